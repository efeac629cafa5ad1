"""`flashfeed.control`: sessions and questions by message, re-keyed into `flashfeed.records`.

`read_control` is pure: a fetched batch becomes session messages, and for each that cannot
be used a dead letter and, where one is awaited, a reply. What the session's owner makes of
a message it says itself (control_replies.py). Only then is the batch acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flashfeed.models.control import (
    CreateSession,
    Reply,
    decode_control,
    op_name,
    refusal,
    session_message,
)
from flashfeed.models.errors import DecodeFault, RequestError
from flashfeed.models.messages import Asked, Create, encode_message
from flashfeed.models.session import SessionSpec

from .control_replies import reply_write
from .dead_letters import DeadLetter, letter_of
from .kafka_writer import MESSAGE_BYTES_MAX, KafkaWriter, Write
from .metrics import Metrics
from .paused import Acknowledge
from .spec_room import check_room, check_text
from .transport import Batch

REPLY_TO = "reply_to"
CORRELATION_ID = "correlation_id"
CORRELATION_ID_BYTES_MAX = 1000
NAME_CHARS_MAX = 200


class ControlRules(NamedTuple):
    """What a control message may name: topics to reply on, templates, tokens of a context."""

    reply_topics: Collection[str]
    templates: Callable[[str], SessionSpec | None]
    context_tokens: int


@dataclass(slots=True)
class ReadControl:
    """What a batch gave: messages by session key in order, dead letters, and replies."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    replies: list[Write] = field(default_factory=list)


def read_control(batch: Batch, rules: ControlRules) -> ReadControl:
    """Read a batch of the control topic. Never raises on what a message holds."""
    result = ReadControl()
    for raw in batch.records:
        asked = Asked(raw.topic, raw.partition, int(raw.offset))
        reply = Reply(op="", session_id="", tenant="")
        try:
            asked = _awaited(asked, raw.headers, rules)
            control = decode_control(raw.value)
            names = control.session_id[:NAME_CHARS_MAX], control.tenant[:NAME_CHARS_MAX]
            reply = Reply(op_name(control), *names)
            key, message = session_message(control, asked, rules.templates, raw.timestamp or 0)
            if isinstance(control, CreateSession):
                assert isinstance(message, Create)
                check_room(message.spec, rules.context_tokens)
                check_text(message.spec)
            value = encode_message(message)
            if len(value) > MESSAGE_BYTES_MAX:
                raise RequestError(
                    f"expected at most {MESSAGE_BYTES_MAX} bytes as flashfeed writes it, "
                    f"got {len(value)}"
                )
        except (DecodeFault, RequestError) as error:
            result.dead_letters.append(letter_of(raw, error, "control"))
            refused = Reply(reply.op, reply.session_id, reply.tenant, refusal(error))
            result.replies += reply_write(asked, reply.session_id, refused)
            continue
        result.messages.append((key, value))
    return result


def _awaited(asked: Asked, headers: Any, rules: ControlRules) -> Asked:
    """With the topic that waits for a reply. Raises RequestError where it may not."""
    found = {name: value or b"" for name, value in headers}
    topic = found.get(REPLY_TO, b"").decode(errors="replace")
    if topic and topic not in rules.reply_topics:
        raise RequestError(
            f"{REPLY_TO}: expected one of {', '.join(sorted(rules.reply_topics))} "
            f"(control.reply_topics has more), got {topic[:80]!r}"
        )
    word = found.get(CORRELATION_ID, b"")
    if len(word) > CORRELATION_ID_BYTES_MAX:
        raise RequestError(f"{CORRELATION_ID}: expected at most {CORRELATION_ID_BYTES_MAX} bytes")
    return Asked(asked.topic, asked.partition, asked.offset, topic, word.decode(errors="replace"))


class ControlAgent:
    """Carries the control topic's batches to the sessions' history."""

    def __init__(
        self,
        rules: ControlRules,
        writer: KafkaWriter,
        records: str,
        dead_letters: str,
        metrics: Metrics,
    ) -> None:
        self._rules = rules
        self._writer = writer
        self._records = records
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def take(self, batch: Batch, acknowledge: Acknowledge) -> None:
        """Write what a batch gave, then acknowledge it."""
        read = read_control(batch, self._rules)
        writes = [letter.write(self._dead_letters) for letter in read.dead_letters]
        writes += read.replies
        writes += [Write(self._records, key.encode(), value) for key, value in read.messages]
        await self._writer.write(writes)
        self._metrics.dead_letters(read.dead_letters)
        acknowledge()
