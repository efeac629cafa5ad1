"""The label language: what it says is what it gives, and nothing else can be said in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.heads.outcome_expression import NESTED_MAX, PLACE_MAX, Course, LabelRule
from flashfeed.models.errors import ConfigError
from flashfeed.models.records import Iot, Ohlcv, Record

CHOICES = ("yes", "no", "not sure")


def candle(close: float, volume: float = 1.0) -> Ohlcv:
    return Ohlcv(o=close, h=close + 1, l=close - 1, c=close, v=volume)


RECORDS: list[Record] = [candle(10), candle(12, 5), candle(11, 3), candle(15, 9), candle(14, 2)]
ANSWERED, END = 1, 2  # closes: 10, [12], 11, (15), 14


def said(text: str, records: list[Record] = RECORDS, end: int = END) -> str | None:
    label = LabelRule(text, "ohlcv", CHOICES).label(Course(records, ANSWERED, end))
    return None if label is None else CHOICES[label]


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        ("close > close@0", True),
        ("close@0 > close@-1", True),
        ("close@1 > close@0", False),
        ("c == 15 and v == 9", True),
        ("close@end == close@2", True),
        ("close - close@0 >= 3", True),
        ("abs(close@1 - close@0) / close@0 < 0.1", True),
        ("mean(close@-1..1) == 11", True),
        ("max(close@0..end) == 15 and min(close@0..end) == 11", True),
        ("first(volume@0..2) == 5 and last(volume@0..2) == 9", True),
        ("not close > 15", True),
        ("not (close > 15 or close < 15)", True),
        ("(close + 1) * 2 > 31", True),
        ("((close)) > (14)", True),
        ("-close < -14", True),
        ("1 + 2 * 3 == 7", True),
        ("10 - 4 - 3 == 3", True),
        ("8 / 4 / 2 == 1", True),
        ("close > 100 or close > 14 and close < 16", True),
        ("close > 14 or close > 100 and close > 200", True),
        ("high - low == 2", True),
        ("close != 1.5e1", False),
    ],
)
def test_a_condition_says_what_it_says(condition: str, true: bool) -> None:
    assert said(f"yes if {condition} else no") == ("yes" if true else "no")


def test_labels_may_be_chained_quoted_or_plain() -> None:
    text = '"not sure" if close == 15 else yes if close > 15 else no'
    assert [said(text, end=end) for end in (2, 3, 1)] == ["not sure", "no", "no"]
    assert said("no") == "no"


@pytest.mark.parametrize(
    "text",
    [
        "yes if close@-2 > 1 else no",  # before the first record
        "yes if close@3 > 1 else no",  # after the outcome's end
        "yes if mean(close@-5..0) > 1 else no",
        "yes if close / (close - close) > 1 else no",
        "yes if close@0 * 1e300 * 1e300 / 1e300 / 1e300 - 1e300 * 1e300 > 1 else no",
    ],
)
def test_what_is_not_there_or_has_no_result_is_unknown(text: str) -> None:
    assert said(text) is None


def test_a_field_that_is_absent_is_unknown() -> None:
    records: list[Record] = [Iot(sid="a", val=1.0), Iot(sid="a", val=2.0, hi=1.5)]
    rule = LabelRule("yes if value > hi else no", "iot", CHOICES)
    assert rule.label(Course(records, 0, 1)) == 0
    assert rule.label(Course(records, 0, 0)) is None


def test_how_far_it_looks_is_known() -> None:
    rule = LabelRule("yes if mean(close@-7..-2) > close@3 else no", "ohlcv", CHOICES)
    assert (rule.earliest, rule.latest) == (7, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "one of the choices"),
        ("maybe", "one of the choices yes, no, not sure, got 'maybe'"),
        ("yes if close > 1", "`else`"),
        ("yes if close else no", "a comparison"),
        ("yes if close > 1 else no more", "the end"),
        ("yes if price > 1 else no", "a field of ohlcv records"),
        ("yes if sym > 1 else no", "a field with numbers"),
        ("yes if close@1.5 > 1 else no", "a whole number"),
        (f"yes if close@{PLACE_MAX + 1} > 1 else no", "a whole number"),
        ("yes if mean(close@2..1) > 1 else no", "places in order"),
        ("yes if __import__('os') else no", "a name, a number or a sign"),
        ("yes if close.__class__ > 1 else no", "a name, a number or a sign"),
        ("yes if eval > 1 else no", "a field"),
        ("yes if close > 'a' else no", "a name, a number or a sign"),
        ("yes if " + "(" * (NESTED_MAX + 1), "parentheses at most"),
        ("yes if " + "-" * 250, "at most 200"),
        ("yes if " + "- " * 300, "at most 500 characters"),
    ],
)
def test_a_fault_is_named_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match="outcome") as fault:
        LabelRule(text, "ohlcv", CHOICES)
    assert expected in str(fault.value)


@pytest.mark.parametrize(
    "condition",
    [
        "not " * 110 + "1 > 0",
        "-" * 150 + "1 > 0",
        "(" * NESTED_MAX + "1" + ")" * NESTED_MAX + " > 0",
    ],
)
def test_the_deepest_text_that_is_taken_is_read_and_computed(condition: str) -> None:
    assert said(f"yes if {condition} else no") in ("yes", "no")


WORDS = "yes no if else and or not ( ) < > == + - * / @ .. , close mean( abs( 1 2.5 end"


@given(st.lists(st.sampled_from(WORDS.split()), max_size=25))
def test_any_text_is_a_rule_or_a_fault_of_configuration(words: list[str]) -> None:
    try:
        rule = LabelRule(" ".join(words), "ohlcv", CHOICES)
    except ConfigError:
        return
    assert rule.label(Course(RECORDS, ANSWERED, END)) in (None, 0, 1)
