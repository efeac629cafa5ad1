"""Dead letters read back: chosen, mapped anew, and never applied twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson
import pytest

from flashfeed.agents.dead_letters import DeadLetter
from flashfeed.agents.feeds import Feed, read_batch
from flashfeed.agents.letter_box import chosen_letters, feed_finder
from flashfeed.agents.letter_history import Position, Taken
from flashfeed.agents.letter_replay import CUT, NO_FEED, PUSHED, SKIPPED, Rebuilt, rebuild
from flashfeed.agents.letters import Chosen, Letter, newest_of_each, read_letter
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.session_outputs import OutputTopics, step_outputs
from flashfeed.agents.session_plan import plan_step
from flashfeed.agents.session_settle import settle_step
from flashfeed.agents.session_step import Waiting
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.transport import Batch
from flashfeed.codecs.codec import Outside
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.registry import codec
from flashfeed.models.assembly import BarSpec
from flashfeed.models.config import Config, FeedConfig
from flashfeed.models.feed import MappingSpec
from flashfeed.models.messages import Delete, PackedRecord, Records, encode_message
from flashfeed.models.session import SessionSpec

from session_steps import apply, ran, templates, values

OUTSIDE = Outside(read_file=lambda path: Path(path).read_bytes())
BROKEN = MappingSpec(model="iot", key="n", each="all[]", map={"sid": "n", "val": "value"})
MENDED = MappingSpec(model="iot", key="n", each="all[]", map={"sid": "n", "val": "v"})
CONFIG = Config(feeds={"f": FeedConfig(topics=("t*",), template="sensor")})


class Raw(NamedTuple):
    """A record as it lies on a topic."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    topic: str = "t"
    partition: int = 0
    timestamp: int = 1000
    headers: Any = ()


def feed(spec: MappingSpec = MENDED) -> Feed:
    return Feed(
        name="f",
        template="sensor",
        type="iot",
        codec=codec("json", {}, OUTSIDE),
        mapping=Mapping(spec),
        session_id=lambda key: key,
    )


def message(*readings: tuple[str, float]) -> bytes:
    return orjson.dumps({"all": [{"n": name, "v": value} for name, value in readings]})


def lying(letters: list[DeadLetter], first: int = 0) -> list[Letter]:
    """The letters as they are read back from their topic."""
    read = []
    for place, one in enumerate(letters, start=first):
        out = one.write("dead")
        raw = Raw(place, out.value, out.key, "dead", 0, 5000 + place, out.headers)
        letter = read_letter(raw)
        assert letter is not None
        read.append(letter)
    return read


def letters_of(*values: bytes, spec: MappingSpec = BROKEN) -> list[Letter]:
    raws: list[Any] = [Raw(offset, value) for offset, value in enumerate(values, start=10)]
    return lying(read_batch(Batch("t", 0, 0, raws), feed(spec)).dead_letters)


async def rebuilt(letters: list[Letter], spec: MappingSpec = MENDED) -> Rebuilt:
    return await rebuild(letters, feed_finder(CONFIG, [feed(spec)]), Supplies(CONFIG, Metrics()))


def waiting(offset: int, one: Records) -> Waiting:
    return Waiting(offset, one)


def test_a_letter_is_read_back_as_it_was_written() -> None:
    [letter, _] = letters_of(message(("a", 1.0), ("b", 2.0)))
    assert letter.place == ("t", 0, 10)
    assert (letter.part, letter.reason, letter.feed) == (0, "map", "f")
    assert letter.value == message(("a", 1.0), ("b", 2.0))
    assert letter.timestamp_ms == 1000
    assert read_letter(Raw(3, b"x", headers=[("flashfeed_topic", b"t")])) is None


def test_of_each_part_the_newest_letter_stands_and_filters_look_at_it_alone() -> None:
    first = letters_of(message(("a", 1.0), ("b", 2.0)))
    again = [one._replace(written_ms=9000, number=(0, 7), reason="validate") for one in first[:1]]
    assert [one.number for one in newest_of_each([*again, *first])] == [(0, 1), (0, 7)]
    assert chosen_letters([*first, *again], Chosen(reason="map")) == [first[1]]
    assert chosen_letters([*first, *again], Chosen(ids=frozenset({"0:0"}))) == [first[0]]
    assert chosen_letters(first, Chosen(feed="other")) == []
    assert len(chosen_letters(first, Chosen(feed="f", topic="t"))) == 2


async def test_a_mended_mapping_gives_the_parts_that_were_at_fault_and_no_others() -> None:
    half = orjson.dumps({"all": [{"n": "a", "value": 1, "v": 1}, {"n": "b", "v": 2}]})
    letters = letters_of(half, message(("a", 3.0)))
    result = await rebuilt(letters)
    assert [one.position for one in result.ready] == [
        Position("a", "t", 0, 11, 0),
        Position("b", "t", 0, 10, 1),
    ]
    assert all(len(one.message.records) == 1 for one in result.ready)
    [first, second] = [one.message for one in result.ready]
    assert (first.topic, first.partition, first.replays) == ("t", 0, 1)
    assert first.template == second.template == "sensor"
    assert first.idempotency_key != second.idempotency_key


async def test_what_fails_again_is_a_letter_that_counts_its_replays() -> None:
    letters = letters_of(message(("a", 1.0)))
    for replays in (1, 2, 3):
        result = await rebuilt(letters, BROKEN)
        assert not result.ready
        [again] = result.failed
        assert again.replays == replays
        letters = lying([again], first=100 * replays)


async def test_what_cannot_be_replayed_is_counted_with_the_reason() -> None:
    [letter] = letters_of(b"{not json")
    result = await rebuilt(
        [
            letter._replace(where="control"),
            letter._replace(topic=""),
            letter._replace(topic="x", feed="gone"),
            letter._replace(cut=True),
            letter._replace(cut=True, part=0, where="session a", type="iot"),
        ]
    )
    assert result.skipped == {PUSHED: 2, NO_FEED: 1, CUT: 2}
    assert not (result.ready or result.failed)


async def test_each_part_that_the_feed_skips_now_is_counted() -> None:
    letters = letters_of(message(("a", 1.0), ("b", 2.0), ("c", 3.0)), message(("a", 4.0)))
    skips = msgspec.structs.replace(MENDED, when={"n": "c"})
    result = await rebuilt(letters, skips)
    assert [one.position.session for one in result.ready] == ["c"]
    assert result.skipped == {SKIPPED: 3}


async def test_a_replayed_record_is_applied_behind_its_watermark_once() -> None:
    [letter] = letters_of(message(("s", 1.0)))
    [ready] = (await rebuilt([letter])).ready
    later = Records(
        type="iot",
        records=(PackedRecord(50, 0, 1000, {"sid": "s", "val": 5.0}),),
        topic="t",
        template="sensor",
    )
    state, _ = apply(None, waiting(0, later))
    state, steps = apply(state, waiting(1, ready.message))
    assert values(state) == [5.0, 1.0]
    assert state is not None
    assert state.head.watermarks == {"t/0": (50, 0)}  # a replay moves no watermark
    assert [(one.first, one.last) for one in state.head.origins] == [(10, 10)]
    state, steps = apply(state, waiting(2, ready.message))
    assert values(state) == [5.0, 1.0]
    assert sum(step.duplicates for step in steps) == 1


async def test_a_sessions_letter_has_what_a_replay_needs() -> None:
    record = PackedRecord(10, 2, 1234, {"sid": "s", "val": 1.0})
    message = Records(
        type="iot", records=(record,), topic="t", partition=3, template="gone", feed="f"
    )
    step = plan_step("s", None, [waiting(0, message)], templates)
    head = settle_step(step, None, ran(step))
    out = step_outputs(step, None, head, 0, OutputTopics("", "c", "d", "r", "u", "a"))
    [letter] = lying(out.letters)
    assert (letter.reason, letter.from_session) == ("session_unknown", True)
    [ready] = (await rebuilt([letter])).ready
    assert ready.position == Position("s", "t", 3, 10, 2)
    assert ready.message.template == "sensor"  # its feed's, as it is configured now
    assert ready.message.records == (record,)
    [twice] = (await rebuilt([letter, *lying([replace_replays(out.letters[0])], 9)])).ready
    assert twice.message.replays == 2


def replace_replays(letter: DeadLetter) -> DeadLetter:
    return letter._replace(replays=1)


A = Position("s", "t", 0, 10, 0)


def records(*offsets: int, replays: int = 0) -> bytes:
    packed = tuple(PackedRecord(offset, 0, 0, {}) for offset in offsets)
    return encode_message(Records(type="iot", records=packed, topic="t", replays=replays))


@pytest.mark.parametrize(
    ("history", "applied"),
    [
        ([], False),
        ([records(10)], True),  # its feed was read again
        ([records(9, 10, 11)], True),
        ([records(11), records(10)], False),  # dropped there: the watermark was past it
        ([records(11), records(10, replays=1)], True),
        ([records(11), encode_message(Delete()), records(10)], True),  # a new life
        ([records(11), encode_message(Delete(idle_since=0)), records(10)], True),
        ([records(9), records(11), encode_message(Delete(idle_since=0)), records(10)], False),
        ([b"nonsense", records(10)], True),
    ],
)
def test_the_history_says_what_was_applied_meanwhile(history: list[bytes], applied: bool) -> None:
    taken = Taken([A])
    for offset, value in enumerate(history):
        taken.take(b"other", records(10), offset)
        taken.take(b"s", value, offset)
    assert (A in taken.applied([])) is applied


def test_a_record_that_its_session_refused_after_a_replay_can_be_replayed_again() -> None:
    [letter] = letters_of(message(("s", 1.0)))
    refused = letter._replace(where="session s", type="iot", replays=1)
    taken = Taken([A])
    taken.take(b"s", records(10, replays=1), 0)
    assert taken.applied([letter]) == {A}
    assert taken.applied([letter, refused]) == set()
    taken.take(b"s", records(10, replays=2), 1)
    assert taken.applied([letter, refused]) == {A}


def test_a_session_of_another_type_refuses_a_replay_as_any_record() -> None:
    one = Records(
        type="event",
        records=(PackedRecord(1, 0, 0, {}),),
        topic="t",
        template="sensor",
        replays=3,
    )
    state, [step] = apply(None, waiting(0, one), find=lambda _: SessionSpec(type="iot"))
    assert state is not None
    assert values(state) == []
    [refused] = step.refused
    assert (refused.reason, refused.message.replays) == ("session_failed", 3)


def test_a_bars_version_names_the_replayed_stretch_beside_its_feeds() -> None:
    def trade(message_at: int, offset: int, second: float, replays: int = 0) -> Waiting:
        record = PackedRecord(offset, 0, 0, {"p": 1.0, "q": 1.0, "timestamp": second})
        packed = Records(
            type="trade", records=(record,), topic="t", template="bars", replays=replays
        )
        return waiting(message_at, packed)

    spec = SessionSpec(type="ohlcv", bars=BarSpec(size="1m"))
    state = None
    for one in (trade(0, 50, 1.0), trade(1, 10, 2.0, 1), trade(2, 51, 3.0), trade(3, 52, 60.0)):
        state, _ = apply(state, one, find=lambda _: spec)
    assert state is not None
    [bar] = state.items
    assert bar.fields["v"] == 3.0
    assert [(one.first, one.last) for one in state.head.origins] == [(50, 52), (10, 10)]
