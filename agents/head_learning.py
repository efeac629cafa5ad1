"""One head as its owner learns it: weights, reservoir, scorecard. Pure.

The reservoir is the head's newest examples, each a message of its own on
`flashfeed.reservoirs`, key `head/slot`: the head's example number n is in slot n modulo
RESERVOIR_SLOTS. There are more slots than examples, by as many as are learnt between two
versions of the head that are published: what an owner wrote and did not live to publish
overwrites nothing that the version before needs.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec
import numpy as np

from flashfeed.heads.head_file import read_head, write_head
from flashfeed.heads.learner import EXAMPLES_MAX, Head, hidden_row
from flashfeed.heads.scorecard import Scorecard, Scores
from flashfeed.models.errors import RequestError
from flashfeed.models.learning import (
    Example,
    ExampleRecord,
    Features,
    HeadName,
    HeadRecord,
    Learnt,
    encode_head,
)
from flashfeed.models.session import CHOICES_MAX

from .kafka_writer import MESSAGE_BYTES_MAX

log = logging.getLogger(__name__)

CHUNK_EXAMPLES_MAX: Final = 256
PROBE_WEIGHTS_MAX: Final = 50_000
"""Choices times numbers of the hidden state; beyond it the logits alone are learnt from."""
RESERVOIR_SLOTS: Final = EXAMPLES_MAX + CHUNK_EXAMPLES_MAX
_REFERENCES: Final = frozenset({"base_rate", "persistence"})


@dataclass(slots=True)
class HeadLearning:
    """A head, the ids of its examples, and the offset up to which it has learnt; `scores` as
    they were when it was last `scored`."""

    name: HeadName
    head: Head
    card: Scorecard
    offset: int = -1
    scores: Scores = field(default_factory=lambda: Scores(0))
    ids: deque[str] = field(default_factory=lambda: deque(maxlen=EXAMPLES_MAX))
    _known: set[str] = field(default_factory=set)

    @classmethod
    def new(cls, name: HeadName) -> HeadLearning:
        """A head that knows nothing. Raises RequestError where it has no such choices."""
        n = len(name.subject.choices)
        if not 2 <= n <= CHOICES_MAX:
            raise RequestError(f"expected 2 to {CHOICES_MAX} choices, got {n}")
        return cls(name, Head(n), Scorecard(n))

    @classmethod
    def restored(cls, record: HeadRecord, reservoir: Mapping[int, Learnt]) -> HeadLearning:
        """The head as its message and its reservoir have it; just as it was where they are
        whole. Raises RequestError where the message is no head."""
        head, _ = read_head(record.weights, record.head.subject)
        one = cls(record.head, head, Scorecard(head.n_choices), record.offset)
        kept = [
            learnt
            for learnt in reservoir.values()
            if head.version - EXAMPLES_MAX < learnt.number <= head.version
        ]
        for learnt in sorted(kept, key=lambda learnt: learnt.number):
            head.examples.append(learnt.example)
            one.card.learn(learnt.example.prediction, learnt.example.label)
            one._remember(learnt.id)
        one.card.resume(record.labels, record.sums)
        one.scored()
        return one

    def scored(self) -> None:
        """Works the scores out anew: a millisecond, beside the engine."""
        self.scores = self.card.scores()

    @property
    def score_is_due(self) -> bool:
        """Whether a hundredth of the examples is new since the scores: of 2,000 one changes
        nothing that can be seen."""
        return self.card.labels - self.scores.labels >= max(1, len(self.head.examples) // 100)

    @property
    def whole(self) -> bool:
        """Whether none of the examples is missing that there should be."""
        return len(self.head.examples) == min(self.head.version, EXAMPLES_MAX)

    def knows(self, example_id: str) -> bool:
        """Whether an example of that id was learnt, of those that are kept."""
        return example_id in self._known

    def learn(self, record: ExampleRecord) -> Learnt:
        """One more example; what goes to the reservoir. Raises RequestError where it is of
        other choices, or of another kind than those before it."""
        example = _checked(record.example, self.head)
        self.card.learn(example.prediction, example.label)
        try:
            self.head.learn(example)
        except np.linalg.LinAlgError as error:  # the fit before stays; the example is learnt
            log.warning("head %s: not fitted: %s", self.name.key, error)
        self._remember(record.id)
        return Learnt(self.head.version, record.id, example)

    def _remember(self, example_id: str) -> None:
        if len(self.ids) == EXAMPLES_MAX:
            self._known.discard(self.ids[0])
        self.ids.append(example_id)
        self._known.add(example_id)

    def message(self, partition: int) -> bytes:
        """The head's message: all but its examples. Where that is larger than a topic takes it
        forgets what it knows of the sessions that were used longest ago."""
        while len(value := encode_head(self._record(partition))) > MESSAGE_BYTES_MAX:
            _forget_half(self.head.last)
            for bias in self.head.biases.values():
                _forget_half(bias.by_session)
        return value

    def _record(self, partition: int) -> HeadRecord:
        examples, self.head.examples = self.head.examples, deque()
        try:
            weights = write_head(self.head, self.name.subject)
        finally:
            self.head.examples = examples
        return HeadRecord(
            self.name, partition, self.offset, self.card.labels, dict(self.card.sums), weights
        )


def _forget_half(by_session: OrderedDict[str, Any]) -> None:
    for session in list(islice(by_session, len(by_session) // 2 + 1)):
        del by_session[session]


def _checked(example: Example, head: Head) -> Example:
    """The example where a head of these choices can learn it. Raises RequestError."""
    k, parts = head.n_choices, example.prediction.parts
    rows = (example.features.logs, *parts.values())
    shares = [share for part in parts.values() for share in part]
    known = parts.keys() >= _REFERENCES and example.prediction.by in parts
    if {len(one) for one in rows} != {k} or not 0 <= example.label < k or not known:
        raise RequestError(f"expected an example of {k} choices")
    if not all(map(math.isfinite, example.features.logs)) or not all(0 < p <= 1 for p in shares):
        raise RequestError("expected finite logarithms, and probabilities above 0")
    hidden = len(example.features.hidden)
    before = next(
        (size for one in islice(reversed(head.examples), 64) if (size := len(one.features.hidden))),
        hidden,
    )
    if hidden % 2 or hidden not in (0, before):
        raise RequestError(f"expected a hidden state of {before} bytes, got {hidden}")
    if not np.isfinite(hidden_row(example.features)).all():
        raise RequestError("expected a finite hidden state")
    if hidden // 2 * k > PROBE_WEIGHTS_MAX:  # its probe would have no room in the head's message
        return msgspec.structs.replace(example, features=Features(example.features.logs))
    return example


def reservoir_key(head_key: str, number: int) -> bytes:
    """The key of a head's example number so many."""
    return f"{head_key}/{number % RESERVOIR_SLOTS}".encode()


def read_reservoirs(
    messages: Iterable[tuple[bytes, bytes | None]],
) -> tuple[dict[str, dict[int, Learnt]], list[str]]:
    """The examples by head and slot, and what is none, by name."""
    found: dict[str, dict[int, Learnt]] = {}
    corrupt: list[str] = []
    decoder = msgspec.json.Decoder(Learnt)
    for key, value in messages:
        head, _, slot = key.decode(errors="replace").rpartition("/")
        try:
            if value is None:
                found.get(head, {}).pop(int(slot), None)
            else:
                found.setdefault(head, {})[int(slot)] = decoder.decode(value)
        except (ValueError, msgspec.MsgspecError) as error:
            corrupt.append(f"{key!r}: {error}")
    return found, corrupt
