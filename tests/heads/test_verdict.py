"""Does an answer change, is it sure enough, does it go out?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.heads.verdict import is_news, judged
from flashfeed.models.session import Answer, FlashQuery, SessionSpec
from flashfeed.models.spec_hash import spec_hash

SHARES = st.floats(0, 1)


def asked(**how: Any) -> FlashQuery:
    return msgspec.convert({"query": "Up?", "choices": ["yes", "no"]} | how, FlashQuery)


def said(yes: float) -> Answer:
    value = "yes" if yes > 0.5 else "no"
    shares = {"yes": yes, "no": 1 - yes}
    return Answer(1, value, shares[value], abs(yes - 0.5), probabilities=shares)


def course(query: FlashQuery, shares: list[float]) -> list[Answer]:
    """The answers one after the other, each judged beside the one before."""
    out: list[Answer] = []
    for share in shares:
        out.append(judged(said(share), query, out[-1] if out else None))
    return out


@given(shares=st.lists(SHARES))
def test_a_question_that_asks_for_nothing_gets_its_answers_as_they_are(
    shares: list[float],
) -> None:
    assert course(asked(), shares) == [said(share) for share in shares]


def test_the_thresholds_are_a_schmitt_triggers() -> None:
    answers = course(asked(hysteresis=0.2), [0.55, 0.45, 0.41, 0.39, 0.55, 0.59, 0.61])
    assert [one.value for one in answers] == ["yes", "yes", "yes", "no", "no", "no", "yes"]
    assert [one.held for one in answers] == [False, True, True, False, True, True, False]


@given(shares=st.lists(SHARES), hysteresis=st.floats(0.01, 1))
def test_an_answer_changes_only_where_the_new_one_leads_by_so_much(
    shares: list[float], hysteresis: float
) -> None:
    answers = course(asked(hysteresis=hysteresis), shares)
    for before, one in pairwise(answers):
        lead = one.probabilities[one.value] - one.probabilities[before.value]
        assert one.value == before.value or lead >= hysteresis
        assert one.confidence == one.probabilities[one.value]
        if one.held:
            assert one.value == before.value
            assert one.raw is not None
            assert one.raw.confidence == max(one.probabilities.values()) >= one.confidence
        else:
            assert one.confidence == max(one.probabilities.values())


@given(shares=st.lists(SHARES), least=SHARES, hysteresis=SHARES)
def test_an_answer_that_is_less_sure_abstains_and_keeps_what_it_says(
    shares: list[float], least: float, hysteresis: float
) -> None:
    free = course(asked(hysteresis=hysteresis), shares)
    for one, as_it_was in zip(
        course(asked(hysteresis=hysteresis, min_confidence=least), shares), free, strict=True
    ):
        assert one.abstained is (one.confidence < least)
        assert msgspec.structs.replace(one, abstained=False) == as_it_was


@given(shares=st.lists(SHARES), least=SHARES, hysteresis=SHARES)
def test_who_reads_the_changes_alone_knows_every_answer(
    shares: list[float], least: float, hysteresis: float
) -> None:
    query = asked(hysteresis=hysteresis, min_confidence=least, publish="changes")
    known: tuple[str, bool] | None = None
    before: Answer | None = None
    for one in course(query, shares):
        stood = (before.value, before.abstained) if before is not None else (None, False)
        if is_news(query, one.value, one.abstained, *stood):
            assert known != (one.value, one.abstained)
            known = (one.value, one.abstained)
        assert known == (one.value, one.abstained)
        before = one


def test_a_choice_that_is_gone_does_not_stand() -> None:
    before = Answer(1, "maybe", 0.9, 1.0, probabilities={"maybe": 0.9, "no": 0.1})
    assert judged(said(0.4), asked(hysteresis=1.0), before) == said(0.4)


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"hysteresis": 0.1, "choices": []}, "expected choices where hysteresis is set"),
        ({"min_confidence": 1.1}, "<= 1.0"),
        ({"hysteresis": -0.1}, ">= 0.0"),
        ({"publish": "never"}, "Invalid enum value 'never'"),
    ],
)
def test_what_cannot_be_is_refused(how: dict[str, Any], fault: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=fault):
        asked(**how)


def test_what_is_made_of_an_answer_is_no_other_spec() -> None:
    plain = SessionSpec(type="iot", flash=(asked(),))
    strict = SessionSpec(
        type="iot", flash=(asked(min_confidence=0.7, hysteresis=0.1, publish="changes"),)
    )
    other = SessionSpec(type="iot", flash=(asked(query="Down?"),))
    assert spec_hash(strict) == spec_hash(plain) != spec_hash(other)
