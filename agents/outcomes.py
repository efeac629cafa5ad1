"""`flashfeed.outcomes`: what answers' true answers turned out to be, re-keyed into
`flashfeed.records`, as control.py does with `flashfeed.control`.

`read_outcomes` is pure: a fetched batch becomes session messages, and a dead letter for each
that is none. Those that the sessions' owners wrote themselves (`by`) are applied already. What
a session's owner makes of an outcome it counts itself; one that it cannot use (of no session, of
an answer no longer kept, against one that was applied) is a dead letter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flashfeed.models.errors import DecodeFault, RequestError
from flashfeed.models.messages import Asked, encode_message
from flashfeed.models.outcomes import decode_outcome, outcome_key, outcome_message

from .dead_letters import DeadLetter, letter_of
from .kafka_writer import KafkaWriter, Write
from .metrics import Metrics
from .paused import Acknowledge
from .transport import Batch


@dataclass(slots=True)
class ReadOutcomes:
    """What a batch gave: messages by session key in order, and dead letters."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)


def read_outcomes(batch: Batch) -> ReadOutcomes:
    """Read a batch of the outcomes topic. Never raises on what a message holds."""
    result = ReadOutcomes()
    for raw in batch.records:
        try:
            sent = decode_outcome(raw.value)
            key = outcome_key(sent)
            if sent.by:
                continue
        except (DecodeFault, RequestError) as error:
            result.dead_letters.append(letter_of(raw, error, "outcome"))
            continue
        asked = Asked(raw.topic, raw.partition, int(raw.offset))
        result.messages.append((key, encode_message(outcome_message(sent, asked))))
    return result


class OutcomeAgent:
    """Carries the outcomes topic's batches to the sessions' history."""

    def __init__(
        self, writer: KafkaWriter, records: str, dead_letters: str, metrics: Metrics
    ) -> None:
        self._writer = writer
        self._records = records
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def take(self, batch: Batch, acknowledge: Acknowledge) -> None:
        """Write what a batch gave, then acknowledge it."""
        read = read_outcomes(batch)
        writes = [letter.write(self._dead_letters) for letter in read.dead_letters]
        writes += [Write(self._records, key.encode(), value) for key, value in read.messages]
        await self._writer.write(writes)
        self._metrics.dead_letters(read.dead_letters)
        acknowledge()
