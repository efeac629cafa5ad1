"""Texts among the records of a session: items like them, counted like them, no figures."""

from __future__ import annotations

from flashfeed.agents.session_outputs import OutputTopics, step_outputs
from flashfeed.agents.session_plan import failed_step, plan_step
from flashfeed.agents.session_step import SessionState, Waiting
from flashfeed.models.errors import ContextFull
from flashfeed.models.messages import Create, PackedRecord, Records
from flashfeed.models.session import NEXT_WORD, Answer, SessionSpec, WindowSpec
from flashfeed.models.state import Entry, decode_entry, encode_entry

from session_steps import apply, lines, reading, spec_of, templates, values

TOPICS = OutputTopics("source", "changelog", "dead", "ready", "updated", "answers")


def texts(offset: int, *pushed: str, key: str = "") -> Waiting:
    """A push of texts to a session of sensors."""
    records = tuple(
        PackedRecord(0, place, 1000, {"text": text}) for place, text in enumerate(pushed)
    )
    return Waiting(offset, Records(type="iot", records=records, idempotency_key=key))


def test_texts_and_records_are_items_in_the_order_of_their_messages() -> None:
    state, [step] = apply(None, reading(0, 1), texts(1, "calm", "still calm"), reading(2, 2))
    assert lines(state) == ["a 1", "calm", "still calm", "2 +1"]
    assert values(state) == [1, 2]
    assert state is not None
    assert (state.head.records, state.head.items) == (2, 4)
    assert state.head.counters.processed == 4
    assert (step.records, step.texts, state.head.version) == (2, 2, 1)


def test_texts_slide_out_of_the_window_and_are_counted() -> None:
    state, _ = apply(None, Waiting(0, Create(spec=spec_of("exact", 2))))
    for offset in range(1, 8):
        state, _ = apply(state, texts(offset, f"text {offset}"))
    assert lines(state) == ["text 5", "text 6", "text 7"]
    assert state is not None
    assert state.head.evicted == 4


def test_a_push_of_texts_with_a_key_is_applied_once() -> None:
    state, _ = apply(None, reading(0, 1), texts(1, "calm", key="k"), texts(2, "calm", key="k"))
    assert lines(state) == ["a 1", "calm"]
    assert state is not None
    assert (state.head.counters.processed, state.head.counters.duplicates) == (3, 1)


def test_texts_that_have_no_room_become_dead_letters() -> None:
    state, _ = apply(None, reading(0, 1))
    taken = [texts(1, "too", "long")]
    step = failed_step(plan_step("s", state, taken, templates), state, ContextFull("full"))
    assert (step.texts, step.items) == (0, [])
    outputs = step_outputs(step, state, step.head, 0, TOPICS)
    assert [letter.value for letter in outputs.letters] == [b'{"text":"too"}', b'{"text":"long"}']
    assert {letter.reason for letter in outputs.letters} == {"context_full"}


def test_a_text_for_no_session_becomes_a_dead_letter() -> None:
    _, [step] = apply(None, texts(0, "hello"))
    [refused] = step.refused
    assert refused.reason == "session_unknown"


def test_a_pre_decoded_session_is_asked_for_its_next_word_and_shows_it_to_nobody() -> None:
    spec = SessionSpec(type="iot", window=WindowSpec("grow"), pre_decode=True)
    state, _ = apply(None, Waiting(0, Create(spec=spec)))
    state, [step] = apply(state, texts(1, "calm"))
    assert step.queries == (NEXT_WORD,)
    assert state is not None
    assert state.head.ready == Answer(0, "yes", 0.75, 1.0)
    assert state.head.answers == ()
    outputs = step_outputs(step, state, state.head, 0, TOPICS)
    assert [type(event).__name__ for event in outputs.events] == ["DataUpdated"]
    # What a new owner reads is what was written.
    entry = decode_entry(encode_entry(Entry(0, state.head, tuple(state.items))))
    restored = SessionState.restored(entry.head, entry.items)
    assert (restored.head.ready, lines(restored)) == (state.head.ready, ["calm"])
