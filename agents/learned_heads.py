"""The heads of all questions that learn, as `flashfeed.heads` has them: every worker follows
it, and answers with them. A head is made of its message when it is first asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from flashfeed.heads.head_file import read_head
from flashfeed.heads.learner import Head
from flashfeed.models.errors import RequestError
from flashfeed.models.learning import HeadName, HeadRecord, decode_head

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    record: HeadRecord
    head: Head | None = None


class LearnedHeads:
    """The newest version of every head, by key. Pure."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._empty: dict[int, Head] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, key: bytes, value: bytes | None) -> None:
        """Note a message of the topic. One of a worker that has lost its partition, and did not
        know, is older than what is there, and left out; so is what is no head."""
        name = key.decode(errors="replace")
        if value is None:
            self._held.pop(name, None)
            return
        try:
            record = decode_head(value)
        except msgspec.MsgspecError as error:
            log.error("flashfeed.heads, %r: left out: %s", key, error)
            return
        before = self._held.get(name)
        same = before is not None and before.record.partition == record.partition
        if before is None or not same or before.record.offset <= record.offset:
            self._held[name] = _Held(record)

    def find(self, name: HeadName) -> Head:
        """The head of that name; one that knows nothing where there is none."""
        held = self._held.get(name.key)
        if held is not None:
            if held.head is None:
                held.head = _read(held.record)
            if held.head is not None and held.head.n_choices == len(name.subject.choices):
                return held.head
        n = len(name.subject.choices)
        return self._empty.setdefault(n, Head(n))

    def record(self, key: str) -> HeadRecord | None:
        """A head's newest message."""
        held = self._held.get(key)
        return held.record if held is not None else None

    def records(self, partition: int) -> list[HeadRecord]:
        """The newest messages of the heads whose examples are in that partition."""
        return [one.record for one in self._held.values() if one.record.partition == partition]


def _read(record: HeadRecord) -> Head | None:
    try:
        return read_head(record.weights, record.head.subject)[0]
    except RequestError as error:
        log.error("flashfeed.heads, %s: left out: %s", record.head.key, error)
        return None
