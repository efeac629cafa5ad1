"""When an answer's label is known, by a rule over the session's own later records.

    after = "5 records"     with the fifth record after the answered one
            "30m"           with the newest record of the 30 minutes after it, in event time,
                            known as soon as one comes that is not earlier than their end
            "0 records"     at once: truth that is arithmetic of what is already there

The label is what outcome_expression.py makes of the records. A rule whose label looks
further ahead than `after` says is refused.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from flashfeed.models.assembly import duration_s
from flashfeed.models.errors import ConfigError
from flashfeed.models.records import Record, StreamType

from .outcome_expression import Course, LabelRule

RECORDS_AFTER_MAX: Final = 10_000
RECORDS_KEPT_MAX: Final = 2 * RECORDS_AFTER_MAX
"""So many records are kept for those that wait; the oldest answers go, and their records."""
PENDING_MAX: Final = RECORDS_KEPT_MAX
"""So many answers of a question wait for their labels; the oldest go first. Each record that
is kept may have one: with fewer no label of a longer rule would ever come."""
_RECORDS: Final = re.compile(r"(\d{1,5}) records?")

Key = TypeVar("Key", bound=Hashable)


class OutcomeRule:
    """A question's compiled rule: `after` in records or in seconds, and the label."""

    def __init__(
        self, after: str, label: str, record_type: StreamType, choices: Sequence[str]
    ) -> None:
        match = _RECORDS.fullmatch(after.strip())
        self.records: int | None = int(match[1]) if match else None
        self.seconds = 0.0
        if self.records is None:
            try:
                self.seconds = duration_s(after.strip())
            except ValueError as error:
                raise ConfigError(f'outcome.after: expected "5 records", or {error}') from None
        elif self.records > RECORDS_AFTER_MAX:
            raise ConfigError(f"outcome.after: expected at most {RECORDS_AFTER_MAX} records")
        self.rule = LabelRule(label, record_type, choices)
        if self.records is not None and self.rule.latest > self.records:
            raise ConfigError(
                f"outcome.label {label!r}: expected places up to @{self.records}, as outcome.after "
                f"says, got @{self.rule.latest}"
            )

    def end_of(self, records: Sequence[Record], answered: int) -> int | None:
        """How many records after the answered one the outcome ends; None where it is not
        known yet. Below 0: it can never be known."""
        if self.records is not None:
            return self.records if answered + self.records < len(records) else None
        began = records[answered].timestamp
        if began is None:
            return -1
        due = began + self.seconds
        newest = records[-1].timestamp
        if newest is None or newest < due:
            return None
        within = [
            place
            for place in range(answered, len(records))
            if (time := records[place].timestamp) is not None and began <= time <= due
        ]
        # Where nothing came in the time that the rule is about there is no truth.
        return within[-1] - answered or (-1 if self.seconds else 0)


class Due(msgspec.Struct, Generic[Key], frozen=True):
    """An answer whose outcome came; `label` None where it cannot be known."""

    key: Key
    label: int | None


class OutcomeWatch(Generic[Key]):
    """The answers of one question in one session that wait for their outcome.

    Records come in event order. Bounded: PENDING_MAX answers wait, and only the records
    that they and the rule can still ask for are kept. `dropped` counts the answers that went
    without a label: too many waited, or there was no record yet.
    """

    def __init__(self, rule: OutcomeRule) -> None:
        self._rule = rule
        self._records: list[Record] = []
        self._first = 0
        self._waiting: deque[tuple[Key, int]] = deque()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def record(self, record: Record) -> None:
        """One more record of the session."""
        self._records.append(record)

    def answered(self, key: Key) -> None:
        """An answer was given over all records so far. Without any there is nothing to wait
        for, and the answer is dropped."""
        if not self._records:
            self.dropped += 1
            return
        self._waiting.append((key, self._first + len(self._records) - 1))
        if len(self._waiting) > PENDING_MAX:
            self._drop_oldest()

    def due(self) -> list[Due[Key]]:
        """The answers whose outcomes are known now, in the order of the answers: none is
        known before an earlier one."""
        found: list[Due[Key]] = []
        while self._waiting:
            key, number = self._waiting[0]
            answered = number - self._first
            end = self._rule.end_of(self._records, answered)
            if end is None:
                break
            self._waiting.popleft()
            course = Course(self._records, answered, end)
            found.append(Due(key, None if end < 0 else self._rule.rule.label(course)))
        self._forget()
        return found

    def _drop_oldest(self) -> None:
        self._waiting.popleft()
        self.dropped += 1

    def _forget(self) -> None:
        while len(self._records) > RECORDS_KEPT_MAX and self._waiting:
            self._drop_oldest()
            self._cut()
        self._cut()

    def _cut(self) -> None:
        """Lets go of the records before those that anything can still ask for."""
        newest = self._first + len(self._records) - 1
        oldest = self._waiting[0][1] if self._waiting else newest
        keep = oldest - self._rule.rule.earliest - self._first
        if keep > 0:
            del self._records[:keep]
            self._first += keep
