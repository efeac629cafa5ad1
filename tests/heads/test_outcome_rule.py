"""When a label is known: after records, after a time of the records' own, or at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flashfeed.heads import outcome_rule
from flashfeed.heads.outcome_rule import (
    PENDING_MAX,
    RECORDS_AFTER_MAX,
    OutcomeRule,
    OutcomeWatch,
)
from flashfeed.models.errors import ConfigError
from flashfeed.models.records import Iot

CHOICES = ("rose", "not")
LABEL = "rose if value > value@0 else not"


def reading(value: float, minute: float | None = None) -> Iot:
    return Iot(sid="a", val=value, timestamp=None if minute is None else minute * 60)


def labels(after: str, readings: Sequence[Iot], label: str = LABEL) -> dict[int, list[str | None]]:
    """What each record made known: the labels of the answers after every record."""
    watch: OutcomeWatch[int] = OutcomeWatch(OutcomeRule(after, label, "iot", CHOICES))
    found: dict[int, list[str | None]] = {}
    known = []
    for number, one in enumerate(readings):
        watch.record(one)
        watch.answered(number)
        due = watch.due()
        known += [one.key for one in due]
        if due:
            found[number] = [None if d.label is None else CHOICES[d.label] for d in due]
    assert known == sorted(known)
    assert len(known) + len(watch) == len(readings)
    return found


def test_after_records_the_label_is_that_of_the_record_so_many_later() -> None:
    readings = [reading(value) for value in (1, 5, 2, 3, 9)]
    assert labels("2 records", readings) == {2: ["rose"], 3: ["not"], 4: ["rose"]}
    assert labels("1 record", readings[:2]) == {1: ["rose"]}


def test_after_0_records_it_is_known_at_once() -> None:
    readings = [reading(value) for value in (1, 5, 2)]
    found = labels("0 records", readings, "rose if value > value@-1 else not")
    assert found == {0: [None], 1: ["rose"], 2: ["not"]}


def test_after_a_time_it_is_the_newest_record_of_that_time() -> None:
    readings = [reading(1, 0), reading(5, 4), reading(0, 9), reading(7, 11), reading(3, 20)]
    # 0..10: the one at 9 counts, known at 11; 4..14: at 11, known at 20.
    assert labels("10m", readings) == {3: ["not"], 4: ["rose", "rose"]}


def test_a_record_right_at_the_end_of_the_time_counts_and_makes_it_known() -> None:
    assert labels("10m", [reading(1, 0), reading(2, 10)]) == {1: ["rose"]}


def test_a_gap_as_long_as_the_time_leaves_no_truth() -> None:
    assert labels("10m", [reading(1, 0), reading(2, 60)]) == {1: [None]}


def test_a_record_without_a_time_has_no_truth_by_time() -> None:
    assert labels("10m", [reading(1), reading(2, 60), reading(3, 70)]) == {0: [None], 2: ["rose"]}


def test_what_waits_is_bounded() -> None:
    watch: OutcomeWatch[int] = OutcomeWatch(OutcomeRule("30d", LABEL, "iot", CHOICES))
    watch.record(reading(1, 0))
    for number in range(PENDING_MAX + 10):
        watch.answered(number)
    assert (len(watch), watch.dropped) == (PENDING_MAX, 10)


def test_the_longest_rule_gives_each_record_its_label() -> None:
    after = f"{RECORDS_AFTER_MAX} records"
    watch: OutcomeWatch[int] = OutcomeWatch(OutcomeRule(after, LABEL, "iot", CHOICES))
    known = []
    for number in range(RECORDS_AFTER_MAX + 10):
        watch.record(reading(number))
        watch.answered(number)
        known += [one.key for one in watch.due()]
    assert known == list(range(10))
    assert (len(watch), watch.dropped) == (RECORDS_AFTER_MAX, 0)


def test_what_is_kept_for_those_that_wait_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_rule, "RECORDS_KEPT_MAX", 50)
    watch: OutcomeWatch[int] = OutcomeWatch(OutcomeRule("30d", LABEL, "iot", CHOICES))
    for number in range(200):
        watch.record(reading(number, number))
        if number % 20 == 0:
            watch.answered(number)
        watch.due()
        assert len(watch._records) <= 50
    assert watch.dropped == 8
    assert len(watch) == 2


def test_an_answer_without_any_record_is_not_waited_for() -> None:
    watch: OutcomeWatch[int] = OutcomeWatch(OutcomeRule("1 record", LABEL, "iot", CHOICES))
    watch.answered(0)
    assert (len(watch), watch.dropped, watch.due()) == (0, 1, [])


@pytest.mark.parametrize(
    ("after", "label", "expected"),
    [
        ("soon", LABEL, "5 records"),
        ("5", LABEL, "5 records"),
        ("-1 records", LABEL, "5 records"),
        ("10001 records", LABEL, "at most 10000"),
        ("400d", LABEL, "a duration"),
        ("2 records", "rose if value@3 > 1 else not", "places up to @2"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(after: str, label: str, expected: str) -> None:
    with pytest.raises(ConfigError) as fault:
        OutcomeRule(after, label, "iot", CHOICES)
    assert expected in str(fault.value)
