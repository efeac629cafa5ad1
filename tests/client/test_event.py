"""Which events are wanted, and what is none."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.client.event import AnswerRemoved, Wanted, read_data, removed_answer
from flashfeed.models.events import AnsweredBy, DataUpdated, FlashReady

FLASH = FlashReady(
    session_id="a", type="iot", id=1, name="hot", query="Hot?", value="yes", confidence=0.9,
    logit_gap=1.0, probabilities={"yes": 0.9, "no": 0.1}, previous="yes", changed=False,
    data_version=3, event_time=None, evaluated_at="2026-01-01T00:00:00.000+00:00", origins=(),
    records_first=0, records_last=7, answered_by=AnsweredBy(model="m", spec="s"),
)  # fmt: skip
UPDATED = DataUpdated(
    session_id="a", type="iot", data_version=3, data_count=1, tokens=8, decoded_tokens=30,
    n_tokens=50, update_ms=1.0, pending=0, event_time=None, updated_at="", origins=(),
    records_first=0, records_last=7,
)  # fmt: skip
REMOVED = AnswerRemoved("a", 1)


@pytest.mark.parametrize(
    ("wanted", "flash", "updated", "removed"),
    [
        (Wanted(), True, True, True),
        (Wanted(session="a"), True, True, True),
        (Wanted(session="b"), False, False, False),
        (Wanted(query="hot"), True, False, True),
        (Wanted(query="cold"), False, False, True),
        (Wanted(changed=True), False, False, True),
    ],
)
def test_what_is_wanted(wanted, flash, updated, removed):
    assert (wanted(FLASH), wanted(UPDATED), wanted(REMOVED)) == (flash, updated, removed)


def test_a_changed_answer_is_wanted():
    assert Wanted(query="hot", changed=True)(msgspec.structs.replace(FLASH, changed=True))


@pytest.mark.parametrize("data", [FLASH, UPDATED])
def test_data_reads_back_with_fields_of_a_later_version(data):
    kind = "flashfeed.flash_ready" if data is FLASH else "flashfeed.data_updated"
    later = msgspec.to_builtins(data) | {"of_tomorrow": [1]}
    assert read_data(kind, msgspec.json.encode(later)) == data


@given(st.sampled_from(["flashfeed.flash_ready", "flashfeed.data_updated", "x"]), st.binary())
def test_what_is_no_event_is_a_value_error(kind, value):
    with pytest.raises(ValueError):
        read_data(kind, value)


def test_a_tombstone_names_session_and_question():
    assert removed_answer(b"a/b/12") == AnswerRemoved("a/b", 12)
    for key in (None, b"", b"a", b"a/x", b"\xff"):
        with pytest.raises(ValueError, match="session/query"):
            removed_answer(key)
