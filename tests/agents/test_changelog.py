"""The changelog gives a session back, whole, wherever the worker died (invariant 1), in a
bounded number of slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.agents.changelog import SlotsRead, entry_write, tombstones
from flashfeed.agents.kafka_writer import Write
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_settle import next_state, settle_step
from flashfeed.agents.session_step import SessionState, Step, Waiting, shrunk
from flashfeed.models.messages import AddQuery, Append, MarkPrefix
from flashfeed.models.session import FlashQuery, SessionSpec
from flashfeed.models.state import HEAD_SLOT, Head, ring_slots
from flashfeed.models.window import block_start, window_length

from session_steps import apply, lines, ran, reading, spec_of, values


class Log:
    """A compacted changelog in memory: every write, and the newest of each key."""

    def __init__(self) -> None:
        self.read = SlotsRead()
        self.keys: set[bytes] = set()

    def settled(self, head: Head, step: Step) -> None:
        write = entry_write("c", 0, head, step.items)
        self.keys.add(write.key or b"")
        self.read.take(write.key or b"", write.value)

    def recovered(self) -> SessionState:
        [state] = self.read.states()
        assert not self.read.bad
        assert not self.read.quarantined
        return state

    def erase(self, head: Head, how_far: int | None = None) -> None:
        for write in tombstones("c", 0, head)[:how_far]:
            self.read.take(write.key or b"", write.value)


def assert_same(back: SessionState, state: SessionState | None) -> None:
    assert state is not None
    assert back.head == state.head
    assert back.items == state.items
    assert back.last == state.last


Specs = st.builds(
    spec_of, mode=st.sampled_from(["exact", "shift", "grow"]), items=st.integers(1, 6)
)
Records = st.tuples(st.just("records"), st.integers(1, 20))
Others = st.tuples(st.sampled_from(["text", "prefix", "query", "repeat", "halve"]), st.just(1))


@given(
    spec=Specs,
    work=st.lists(st.one_of(Records, Records, Others), min_size=1, max_size=40),
    crashes=st.sets(st.integers(0, 40)),
)
def test_whatever_happens_a_crash_gives_the_state_back(
    spec: SessionSpec, work: list[tuple[str, int]], crashes: set[int]
) -> None:
    log, state, at, count = Log(), None, 0, 0
    find = lambda _: spec  # noqa: E731
    for offset, (kind, size) in enumerate(work):
        one = reading(offset, *range(at, at + size), at=at)
        if kind == "text":
            one = Waiting(offset, Append(text=f"text {offset}"))
        elif kind == "prefix":
            one = Waiting(offset, MarkPrefix())
        elif kind == "query":
            one = Waiting(offset, AddQuery(query=FlashQuery(f"{offset}?")))
        elif kind == "repeat":
            one = reading(offset, 0, at=0)
        elif kind == "halve" and state is not None and spec.window.mode != "grow":
            # An owner halves while it applies records: the step's entry has it.
            state = shrunk(state, max(1, state.head.window.items // 2))
            count = state.head.count
        at += size
        state, [step] = apply(state, one, settled=log.settled, find=find)
        if state is None:
            continue
        count = 0 if step.marks_prefix else count + len(step.items)
        assert state.head.count == count
        assert len(state.items) == state.head.items == window_length(state.head.window, count)
        assert state.head.records == sum(item.fields is not None for item in state.items)
        assert_same(log.recovered(), state)
        if offset in crashes:
            state = log.recovered()
    ring = ring_slots(spec.window)
    if ring is not None:
        assert len(log.keys) <= ring + 1
    if state is not None:
        log.erase(state.head)
        assert log.read.states() == []
        assert not any(log.read.slots.values())


@given(
    spec=Specs,
    batches=st.lists(st.integers(1, 9), min_size=1, max_size=15),
    cuts=st.lists(st.integers(1, 5), max_size=12),
    crash=st.integers(0, 12),
)
def test_any_batching_and_any_crash_give_the_same_window(
    spec: SessionSpec, batches: Sequence[int], cuts: Sequence[int], crash: int
) -> None:
    messages, at = [], 0
    find = lambda _: spec  # noqa: E731
    for offset, size in enumerate(batches):
        messages.append(reading(offset, *range(at, at + size), at=at))
        at += size
    whole, _ = apply(None, *messages, find=find)
    one_by_one: SessionState | None = None
    for message in messages:
        one_by_one, _ = apply(one_by_one, message, find=find)
    state: SessionState | None = None
    log, left = Log(), list(messages)
    for place, cut in enumerate([*cuts, len(messages)]):
        taken, left = left[:cut], left[cut:]
        state, _ = apply(state, *taken, settled=log.settled, find=find)
        if place == crash and state is not None:  # come back from the changelog alone,
            state = log.recovered()
            left = taken + left  # and read again what was not committed
    assert lines(state) == lines(whole) == lines(one_by_one)
    assert state is not None
    newest = list(range(at))[-window_length(spec.window, at) :]
    assert values(state) == newest
    assert state.head.version_first == state.items[0].offset


@given(items=st.integers(1, 6), batches=st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_an_exact_window_begins_with_a_line_that_stands_alone(
    items: int, batches: list[int]
) -> None:
    state, at = None, 0
    spec = spec_of("exact", items)
    for offset, size in enumerate(batches):
        state, _ = apply(state, reading(offset, *range(at, at + size), at=at), find=lambda _: spec)
        at += size
        first = lines(state)[0]
        assert first.startswith("a "), first  # the sensor's name, which later lines leave out
        junior = block_start(spec.window, at) - (at - len(lines(state)))
        for line in lines(state)[junior : junior + 1]:  # where the junior begins
            assert line.startswith("a "), line


def test_an_entry_that_lies_partly_before_the_window_gives_its_end() -> None:
    spec = spec_of("exact", 2)
    log = Log()
    # 0 1 2 | 3 4: at 5 items the window is 2 3 4, and 2 is the end of the first entry.
    state, _ = apply(None, reading(0, 0, 1, 2, at=0), settled=log.settled, find=lambda _: spec)
    state, _ = apply(state, reading(1, 3, 4, at=3), settled=log.settled)
    assert values(log.recovered()) == [2, 3, 4]
    assert log.recovered().head.version_first == 0  # the first message still has an item in it
    state, _ = apply(state, reading(2, 5, at=5), settled=log.settled)
    assert values(log.recovered()) == [4, 5]
    assert log.recovered().head.version_first == 1


def test_an_entry_writes_no_more_than_the_window_holds() -> None:
    log = Log()
    find = lambda _: spec_of("exact", 2)  # noqa: E731
    apply(None, reading(0, *range(50)), settled=log.settled, find=find)
    [slots] = log.read.slots.values()
    assert [item.line for item in slots[0].items] == ["a 48", "49 +1"]


def test_a_thousand_steps_take_the_slots_of_the_ring_and_no_more() -> None:
    log, state = Log(), None
    for offset in range(1000):
        state, _ = apply(
            state, reading(offset, offset), settled=log.settled, find=lambda _: spec_of("exact", 4)
        )
    assert len(log.keys) == 2 * 4 + 1
    assert values(log.recovered()) == [996, 997, 998, 999]
    assert log.recovered().head.written == 1000


def test_a_frozen_prefix_comes_back_and_the_window_begins_anew() -> None:
    log = Log()
    state, _ = apply(
        None,
        reading(0, 1, 2),
        Waiting(1, Append(text="Alarm above 9.")),
        Waiting(2, MarkPrefix()),
        settled=log.settled,
    )
    back = log.recovered()
    assert back.head.frozen == ("a 1", "2 +1", "Alarm above 9.")
    assert (back.head.count, back.head.items, back.head.records, back.head.written) == (0, 0, 0, 3)
    state, _ = apply(state, reading(3, 7), settled=log.settled)
    assert lines(log.recovered()) == ["a 7"]  # it does not refer to what is frozen
    state, _ = apply(state, Waiting(4, MarkPrefix()), settled=log.settled)
    assert log.recovered().head.frozen == ("a 1", "2 +1", "Alarm above 9.", "a 7")


def test_a_halved_window_goes_on_from_what_it_kept() -> None:
    log = Log()
    spec = spec_of("exact", 4)
    state, _ = apply(None, reading(0, *range(7)), settled=log.settled, find=lambda _: spec)
    assert state is not None
    smaller = shrunk(state, 2)
    assert values(smaller) == [5, 6]
    assert (smaller.head.count, smaller.head.written) == (2, 7)
    assert values(state) == [0, 1, 2, 3, 4, 5, 6]  # the old one is as it was
    state, _ = apply(smaller, reading(1, 7, at=7), settled=log.settled)
    assert values(log.recovered()) == [5, 6, 7]
    state, _ = apply(state, reading(2, 8, at=8), settled=log.settled)
    assert values(log.recovered()) == [7, 8]
    assert log.recovered().head.window.items == 2
    assert log.recovered().head.spec == spec.__class__(
        type="iot", flash=log.recovered().head.spec.flash, window=spec.window
    )


def test_a_hole_in_the_window_is_named() -> None:
    writes, state = [], None
    for offset in range(3):
        state, [step] = apply(state, reading(offset, offset))
        assert state is not None
        writes.append(entry_write("c", 0, state.head, step.items))
    holed = SlotsRead()
    for write in (writes[0], writes[2]):
        holed.take(write.key or b"", write.value)
    [failed] = holed.states()
    assert "3 items in the window, 1 found" in failed.head.failed
    assert (failed.head.quarantined, list(failed.items), failed.head.version) == (True, [], 3)
    assert holed.letters("c", 0) == []


def four_steps() -> tuple[list[Write], SessionState]:
    writes, state = [], None
    for offset in range(4):
        state, [step] = apply(state, reading(offset, offset))
        assert state is not None
        writes.append(entry_write("c", 0, state.head, step.items))
    assert state is not None
    return writes, state


def other_format(value: bytes | None) -> bytes:
    entry = msgspec.json.decode(value or b"")
    return msgspec.json.encode({**entry, "format": 2})


def all_other(value: bytes | None) -> bytes:
    return b'{"format": 3, "slot": {"ring": 1}, "state": "elsewhere"}'


SPOILT: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda _: b"\xff\x00garbage", "JSON is malformed"),
    (lambda value: value[: len(value) // 2], "truncated"),
    (lambda _: b"{}", "missing required field"),
    (other_format, "format 2 is another flashfeed's; this one has 1"),
    (all_other, "format 3 is another flashfeed's"),
    (lambda value: value.replace(b'"session_id":"s"', b'"session_id":"t"'), "it is of 't'"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILT)
@pytest.mark.parametrize("place", [0, 3])
def test_what_cannot_be_read_costs_its_session_and_no_other(
    spoil: Callable[[bytes], bytes], said: str, place: int
) -> None:
    writes, state = four_steps()
    read = SlotsRead()
    for write in writes:
        read.take(write.key, write.value)
        other = (write.value or b"").replace(b'"session_id":"s"', b'"session_id":"fine"')
        read.take((write.key or b"").replace(b"s/", b"fine/"), other)
    spoilt = spoil(writes[place].value or b"")
    read.take(writes[place].key, spoilt, 77)
    failed, fine = sorted(read.states(), key=lambda one: not one.head.failed)
    assert (fine.head.session_id, fine.head.failed, values(fine)) == ("fine", "", [0, 1, 2, 3])
    assert failed.head.session_id == "s"
    assert failed.head.failed.startswith("changelog_corrupt: entry b's/")
    assert said in failed.head.failed
    assert failed.head.spec == state.head.spec
    [letter] = read.letters("c", 5)
    assert (letter.topic, letter.partition, letter.offset) == ("c", 5, 77)
    assert (letter.key, letter.value) == (writes[place].key, spoilt)
    # It is kept: the next owner finds a failed session, and nothing to tell.
    log = Log()
    for write in writes[:place] + writes[place + 1 :]:
        log.read.take(write.key, write.value)
    log.read.take(writes[place].key, spoilt)
    for write in read.repairs("c", 0, [failed, fine]):
        log.read.take(write.key, write.value)
    again = log.recovered()
    assert again.head == failed.head
    assert log.read.letters("c", 0) == []
    # A record is refused, and a delete erases all of it.
    after, [step] = apply(again, reading(9, 9))
    assert step.refused[0].reason == "session_failed"
    assert after is not None
    log.erase(after.head)
    assert log.read.states() == []


def test_a_session_of_which_nothing_can_be_read_is_there_and_failed() -> None:
    read = SlotsRead()
    read.take(b"s/99999999999", b"?", 3)
    [state] = read.states()
    assert (state.head.session_id, state.head.quarantined) == ("s", True)
    head, erased = read.repairs("c", 0, [state])
    assert (head.key, erased.key, erased.value) == (b"s/-1", b"s/99999999999", None)
    assert [one.key for one in tombstones("c", 0, state.head)] == [b"s/-1"]


@pytest.mark.parametrize("key", [None, b"", b"nothing", b"/3", b"s/x", b"\xff\xfe/1"])
def test_what_is_nobodys_is_kept_as_a_letter_alone(key: bytes | None) -> None:
    read = SlotsRead()
    read.take(key, b"{}", 8)
    read.take(b"nothing-either", None, 9)
    assert read.states() == []
    [letter] = read.letters("c", 0)
    assert (letter.key, letter.value, letter.path) == (key, b"{}", "$key")
    assert [one.key for one in read.repairs("c", 0, [])] == ([key] if key else [])


def test_what_is_written_again_is_not_bad_any_more() -> None:
    writes, state = four_steps()
    read = SlotsRead()
    read.take(writes[2].key, b"?")
    for write in writes:
        read.take(write.key, write.value)
    assert_same(read.states()[0], state)
    assert not read.bad


@given(st.binary(max_size=60), st.binary(max_size=200))
def test_no_bytes_stop_a_recovery(key: bytes, value: bytes) -> None:
    writes, state = four_steps()
    read = SlotsRead()
    for write in writes:
        read.take(write.key, write.value)
    read.take(key, value)
    states = read.states()
    assert_same(next(one for one in states if one.head.session_id == "s"), state)
    for one in states:
        read.letters("c", 0)
        read.repairs("c", 0, [one])


def test_a_record_that_is_none_now_is_named_without_its_values() -> None:
    state, [step] = apply(None, reading(0, 1))
    assert state is not None
    [item] = step.items
    wrong = msgspec.structs.replace(item, fields={"sid": "ward-7", "val": float("inf")})
    write = entry_write("c", 0, state.head, [wrong])
    read = SlotsRead()
    read.take(write.key or b"", write.value)
    [failed] = read.states()
    said = failed.head.failed
    assert said.startswith("changelog_corrupt: a record of its window is no iot now")
    assert "ward" not in said


def test_a_delete_that_erased_the_newest_slot_first_leaves_a_session_that_can_be_deleted() -> None:
    log, old = Log(), None
    for offset in range(4):
        old, _ = apply(old, reading(offset, offset), settled=log.settled)
    assert old is not None
    newest = entry_write("c", 0, old.head, [old.items[-1]])
    log.read.take(newest.key or b"", None)
    [left] = log.read.states()
    assert left.head.quarantined and left.head.records_offset == old.head.records_offset
    for one in tombstones("c", 0, left.head):
        log.read.take(one.key, one.value)
    assert log.read.states() == []
    log.read.quarantined.clear()
    apply(None, reading(9, 70), settled=log.settled)  # it lives again
    assert values(log.recovered()) == [70]


def test_sessions_with_equal_specs_share_one() -> None:
    read = SlotsRead()
    for name in ("a", "b", "c"):
        spec = spec_of("exact", 3 + (name == "c"))
        state, [step] = apply(None, reading(0, 1), find=lambda _, spec=spec: spec)
        assert state is not None
        head = msgspec.structs.replace(state.head, session_id=name)
        write = entry_write("c", 0, head, step.items)
        read.take(write.key or b"", write.value)
    one, two, other = (state.head.spec for state in read.states())
    assert one is two
    assert other is not one


def test_steps_without_items_take_one_slot_however_many() -> None:
    log, state = Log(), None
    for offset in range(6):  # the same record, over and over
        state, _ = apply(state, reading(offset, 1, at=0), settled=log.settled)
    assert log.keys == {b"s/0", f"s/{HEAD_SLOT}".encode()}
    assert_same(log.recovered(), state)
    assert log.recovered().head.counters.duplicates == 5


def test_slots_of_an_earlier_life_are_not_this_ones() -> None:
    log, old = Log(), None
    for offset in range(4):
        old, _ = apply(old, reading(offset, offset), settled=log.settled)
    assert old is not None
    # The delete reached two of four slots when the worker was killed; then it lives again.
    log.erase(old.head, 3)
    apply(None, reading(9, 70), settled=log.settled)
    assert values(log.recovered()) == [70]


def test_priors_come_back_and_the_answers_after_them_are_the_same() -> None:
    log, state = Log(), None
    for offset in range(5):
        state, _ = apply(state, reading(offset, offset), settled=log.settled)
    back = log.recovered()
    assert state is not None
    [query] = state.head.spec.flash
    assert back.head.priors[query.id].count == 5
    later, _ = apply(back, reading(5, 5))
    unbroken, _ = apply(state, reading(5, 5))
    assert later is not None
    assert unbroken is not None
    assert later.head.answers == unbroken.head.answers
    [answer] = later.head.answers
    assert answer.raw is not None
    assert (answer.raw.confidence, answer.value) == (0.75, "yes")
    assert 0.5 < answer.confidence < 0.75  # it says yes to everything: it says less by it


@pytest.mark.parametrize("calibrate", [True, False])
def test_the_correction_can_be_turned_off(calibrate: bool) -> None:
    query = FlashQuery("High?", choices=("yes", "no"), calibrate=calibrate)
    spec = SessionSpec(type="iot", flash=(query, FlashQuery("Why?")))
    state = None
    for offset in range(3):
        state, _ = apply(state, reading(offset, offset), find=lambda _: spec)
    assert state is not None
    chosen, free = state.head.answers
    assert free.raw is None
    assert (chosen.raw is not None) is calibrate
    assert (chosen.confidence < 0.75) is calibrate
    assert bool(state.head.priors) is calibrate


def test_a_state_is_planned_on_and_not_changed() -> None:
    state, _ = apply(None, reading(0, 1, 2, 3))
    assert state is not None
    before = (msgspec.json.encode(state.head), list(state.items))
    step = plan_step("s", state, [reading(1, 4, at=9)], lambda _: None)
    head = settle_step(step, state, ran(step))
    assert (msgspec.json.encode(state.head), list(state.items)) == before
    assert values(next_state(step, state, head)) == [1, 2, 3, 4]
