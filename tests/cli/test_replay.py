"""The past, replayed: the same range gives the same versions, inputs and answers, and leaves
the brokers as they were."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pyarrow import parquet

from flashfeed.agents.replay_sessions import Replayed
from flashfeed.agents.replay_topic import check_out_topic
from flashfeed.cli import replay_parquet
from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.cli.main import main, parser
from flashfeed.cli.replay import exit_code
from flashfeed.cli.replay_files import JsonLines
from flashfeed.cli.replay_parquet import ParquetOut
from flashfeed.cli.replay_progress import duration, progress, summary
from flashfeed.cli.settings import load
from flashfeed.models.event_format import decode_event
from flashfeed.models.events import DataUpdated

TOML = """
[kafka]
brokers = "{brokers}"
group = "g"

[engine]
context_tokens = 1024
sessions_max = 4
threads = 1

[feeds.room]
topics = ["room"]
template = "sensor"
model = "iot"
key = "n"
map = {{ sid = "n", val = "v" }}

[templates.sensor]
type = "iot"
window = {{ items = 8 }}
[[templates.sensor.flash]]
query = "Is it warm?"
choices = ["yes", "no"]
"""
OUTCOME = """
[templates.sensor.outcomes.q1]
after = "1 record"
label = "yes if value > 9 else no"
"""
MADE_UP = ("evaluated_at", "updated_at", "update_ms", "pending")
"""Of the events, what the clock on the wall says."""
JUDGED = {"value", "confidence", "logit_gap", "probabilities", "previous", "changed", "raw"}
NEAR_TIE = 0.2
END = ("--to-offset", "room:0:10", "--to-offset", "room:1:10")
"""The embedded broker says too low an end, and gives the rest when it has the time."""
BETWEEN = ("of", "to", "item", "struct", "tz")
"""Words of a column's type that say nothing."""


async def make_room(brokers: str) -> str:
    """Twenty readings of two sensors in two partitions, of which one cannot be read; returns
    the time when there were ten."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic("room", 2, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    for number in range(20):
        if number == 10:
            await asyncio.sleep(0.05)
            half = datetime.now(UTC).isoformat()
            await asyncio.sleep(0.05)
        value = orjson.dumps({"n": "ab"[number % 2], "v": number})
        value = b"{not json" if number == 7 else value
        await producer.send_and_wait("room", value, partition=number // 2 % 2)
    await producer.stop()
    return half


async def topics(brokers: str) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    names: list[str] = await admin.list_topics()
    await admin.close()
    return sorted(names)


def replay(config: Path, out: Path, *args: str) -> list[dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        main(["replay", "-c", str(config), "--out", str(out), *args])
    assert not ended.value.code
    return [orjson.loads(one) for one in out.read_bytes().splitlines()]


def inputs_and_answers(events: list[dict[str, Any]], session: str) -> list[dict[str, Any]]:
    kept = []
    for event in events:
        data = {key: one for key, one in event["data"].items() if key not in MADE_UP}
        if data["session_id"] == session:
            kept.append({"event": event["event"], "id": event["id"]} | data)
    return kept


def assert_same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """The same but for what sessions that share a pass do to each other's last digits; an
    answer that is nearly another may be that one."""
    assert len(one) == len(other)
    for event, again in zip(one, other, strict=True):
        exact = event.keys() - JUDGED
        assert {key: event[key] for key in exact} == {key: again[key] for key in exact}
        if event.get("logit_gap", 0.0) > NEAR_TIE:
            assert event["value"] == again["value"]
            assert event["confidence"] == pytest.approx(again["confidence"], abs=0.05)


def versions(events: list[dict[str, Any]], session: str) -> list[tuple[int, int]]:
    """Each version's number, and how many records its window holds."""
    return [
        (one["data_version"], one["data_count"])
        for one in inputs_and_answers(events, session)
        if one["event"].endswith("data_updated")
    ]


class Room(NamedTuple):
    """The topic `room` on a broker, its configuration, and the time when half of it was there."""

    brokers: str
    config: Path
    half: str


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    home = tmp_path_factory.mktemp("room")
    config = home / "flashfeed.toml"
    with embedded_broker() as brokers:
        config.write_text(TOML.format(brokers=brokers))
        yield Room(brokers, config, asyncio.run(make_room(brokers)))


@pytest.fixture(scope="module")
def first(room: Room) -> list[dict[str, Any]]:
    """All of the room, replayed once."""
    return replay(room.config, room.config.parent / "first", "--from", "1h", *END)


@pytest.mark.broker
@pytest.mark.model
def test_a_range_is_replayed_the_same_again_and_nothing_is_left_behind(
    room: Room, first: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = room.config
    again = replay(config, tmp_path / "again", "--from", "1h", "--progress", *END)
    said = capsys.readouterr().err
    assert "20 records, 19 versions, 19 answers" in said
    assert "1 refused: decode\n" in said
    assert "(room[1] offset 3)" in said
    part = replay(config, tmp_path / "part", "--from", "1h", "--to", room.half, "--batch", "2")
    rest = replay(config, tmp_path / "rest", "--from", room.half, "--batch", "5", *END)
    assert asyncio.run(topics(room.brokers)) == ["room"]
    with pytest.raises(SystemExit):  # a file that is there is nobody's to write over
        main(["replay", "-c", str(config), "--from", "1h", "--out", str(tmp_path / "part")])
    for session in "ab":
        assert_same(inputs_and_answers(first, session), inputs_and_answers(again, session))
    assert [number for number, _ in versions(first, "a")] == list(range(1, 11))
    answered = [one for one in inputs_and_answers(first, "a") if one["event"].endswith("_ready")]
    assert len(answered) == 10
    assert {one["value"] for one in answered} <= {"yes", "no"}
    assert versions(part, "a") == [(1, 2), (2, 4), (3, 5)]
    assert versions(part, "b") == [(1, 2), (2, 4)]
    assert versions(rest, "a") == versions(rest, "b") == [(1, 5)]


def origins(events: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """The partition and offset of every record that was answered."""
    return {
        (origin["partition"], offset)
        for event in events
        for origin in event["data"]["origins"]
        for offset in range(origin["first"], origin["last"] + 1)
    }


@pytest.mark.broker
@pytest.mark.model
def test_sessions_of_a_whole_group_take_turns_on_one_workers_seats(tmp_path: Path) -> None:
    """Four keys, where a worker may have two sessions, and one of them resident."""

    async def make(brokers: str) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=brokers)
        await producer.start()
        for number in range(12):
            value = orjson.dumps({"n": "abcd"[number % 4], "v": number})
            await producer.send_and_wait("room", value, partition=0)
        await producer.stop()

    config = tmp_path / "flashfeed.toml"
    with embedded_broker() as brokers:
        asyncio.run(make(brokers))
        few = "sessions_max = 2\nseats_max = 1"
        config.write_text(TOML.format(brokers=brokers).replace("sessions_max = 4", few))
        events = replay(config, tmp_path / "out", "--from", "1h", "--to-offset", "room:0:12")
    for session in "abcd":
        assert versions(events, session) == [(1, 1), (2, 2), (3, 3)]
    assert origins(events) == {(0, offset) for offset in range(12)}


def test_a_replay_that_had_no_room_for_records_does_not_end_well() -> None:
    done = Replayed(total=2, began_s=0.0)
    done.refuse("decode", "a record that nobody can use")
    assert exit_code(done) == 0
    done.refuse("overloaded", "a record of a session that was not made")
    assert exit_code(done) == 1


@pytest.mark.broker
@pytest.mark.model
def test_a_partition_is_replayed_from_offset_to_offset_into_a_topic(
    room: Room, tmp_path: Path
) -> None:
    """Both kinds of events, as a worker writes them."""
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("replay", "-c", str(room.config), "--out-topic", "room.replayed"),
                *("--from-offset", "room:1:4", "--to-offset", "room:1:8"),
            ]
        )
    assert not ended.value.code

    async def read() -> list[Any]:
        consumer = AIOKafkaConsumer(
            "room.replayed", bootstrap_servers=room.brokers, auto_offset_reset="earliest"
        )
        await consumer.start()
        found: list[Any] = []
        while len(found) < 8:
            found += [
                one for some in (await consumer.getmany(timeout_ms=500)).values() for one in some
            ]
        await consumer.stop()
        admin = AIOKafkaAdminClient(bootstrap_servers=room.brokers)
        await admin.start()
        await admin.delete_topics(["room.replayed"])
        await admin.close()
        return found

    events = []
    for one in asyncio.run(read()):
        headers = dict(one.headers)
        name = headers["ce_type"].decode().removeprefix("flashfeed.")
        data = decode_event(name, one.value, headers["content-type"].decode())
        assert one.key.decode() == data.session_id
        events.append({"event": name, "data": orjson.loads(one.value)})
    assert [one["event"] for one in events].count("flash_ready") == 4
    assert origins(events) == {(1, offset) for offset in range(4, 8)}


@pytest.mark.broker
def test_no_topic_that_a_worker_uses_takes_a_replay(
    room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    before = asyncio.run(topics(room.brokers))
    for name in ("flashfeed.flash_ready", "flashfeed.records", "flashfeed.changelog", "room"):
        with pytest.raises(SystemExit) as ended:
            main(["replay", "-c", str(room.config), "--from", "1h", "--out-topic", name])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert f"--out-topic {name}: " in said and f"{name}.replay" in said
    assert asyncio.run(topics(room.brokers)) == before
    check_out_topic(load(room.config), {"room": ["room"]}, "room.replayed")


def updated(version: int) -> DataUpdated:
    return DataUpdated(
        "a",
        "iot",
        version,
        1,
        5,
        9,
        40,
        1.5,
        0,
        None,
        "2026-01-01T00:00:00.000+00:00",
        (),
        0,
        version,
    )


@pytest.mark.broker
@pytest.mark.model
def test_a_parquet_file_has_what_the_lines_have(
    room: Room, first: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "first.parquet"
    with pytest.raises(SystemExit) as ended:
        main(["replay", "-c", str(room.config), "--from", "1h", "--out", str(out), *END])
    assert not ended.value.code
    rows = parquet.read_table(out).to_pylist()
    assert len(rows) == len(first)
    by_id = {(row["event"], row["id"]): row for row in rows}
    for one in first:
        row, data = by_id[one["event"], one["id"]], one["data"]
        for name in ("session_id", "data_version", "origins", "records_first", "records_last"):
            assert row[name] == data[name]
        if one["event"].endswith("flash_ready"):
            assert (row["query_id"], row["query"]) == (data["id"], data["query"])
            assert dict(row["probabilities"]).keys() == data["probabilities"].keys()
            assert row["raw_value"] == data["raw"]["value"]
            assert row["n_tokens"] is None
        else:
            assert (row["n_tokens"], row["data_count"]) == (data["n_tokens"], data["data_count"])
            assert row["value"] is None


async def test_a_parquet_file_is_written_in_row_groups(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    with file.open("xb") as sink:
        out = ParquetOut(sink, rows_max=4)
        for version in range(1, 8):
            await out.write([updated(version), updated(version)])
        out.close()
    read = parquet.ParquetFile(file)
    assert read.metadata.num_row_groups == 4
    assert read.read().column("data_version").to_pylist() == [n for n in range(1, 8) for _ in "12"]
    assert read.schema_arrow.equals(replay_parquet.schema())


def test_the_page_names_every_column_with_its_type_and_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "REPLAY.md").read_text()
    rows = re.findall(
        r"^\| ([a-z_, ()]+) \| (.+?) \| (both|flash_ready|data_updated) \|$", page, re.M
    )
    named = {
        column: kind
        for columns, kind, _ in rows
        for column in re.sub(r" \([^)]*\)", "", columns).split(", ")
    }
    schema = replay_parquet.schema()
    assert list(named) and named.keys() == set(schema.names)
    for column, kind in named.items():
        words = [
            [one for one in re.findall(r"[a-z0-9]+", text.lower()) if one not in BETWEEN]
            for text in (kind, str(schema.field(column).type))
        ]
        assert words[0] == words[1], column
    options = parser()._subparsers._group_actions[0].choices["replay"]  # type: ignore[union-attr,index]
    for action in options._actions:
        assert action.dest in ("help", "config") or action.option_strings[-1] in page


def test_without_pyarrow_it_is_said_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replay_parquet.importlib.util, "find_spec", lambda _: None)
    config = tmp_path / "flashfeed.toml"
    config.write_text(TOML.format(brokers="127.0.0.1:9"))
    out = tmp_path / "x.parquet"
    with pytest.raises(SystemExit) as ended:
        main(["replay", "-c", str(config), "--from", "1h", "--out", str(out)])
    assert ended.value.code == 2
    assert "pip install 'flashfeed[parquet]'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.broker
@pytest.mark.model
def test_an_interrupted_replay_leaves_whole_lines_and_says_where_to_go_on(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, written = JsonLines.write, []

    async def interrupted(self: JsonLines, events: Any) -> None:
        await write(self, events)
        written.append(events)
        if len(written) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(JsonLines, "write", interrupted)
    out = tmp_path / "part"
    scored = tmp_path / "scored.toml"
    scored.write_text(room.config.read_text() + OUTCOME)
    with pytest.raises(SystemExit) as ended:
        main(["replay", "-c", str(scored), "--from", "1h", "--out", str(out)])
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert "; a score is of what comes from there alone" in said
    events = [orjson.loads(one) for one in out.read_bytes().splitlines()]
    [where] = re.findall(r"Go on with ((?: ?--from-offset room:\d:\d+)+): sessions begin", said)
    rest = replay(room.config, tmp_path / "rest", *where.split(), *END)
    whole = {(number, offset) for number in (0, 1) for offset in range(10)} - {(1, 3)}
    assert origins(events) | origins(rest) == whole
    assert len(origins(events)) < len(whole)


@pytest.mark.parametrize(
    ("command", "said"),
    [(["replay", "--from", "1h"], "cannot reach the brokers"), (["tail"], "cannot read")],
)
def test_without_a_broker_it_is_said(
    command: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "flashfeed.toml"
    config.write_text(TOML.format(brokers="127.0.0.1:9"))
    with pytest.raises(SystemExit) as ended:
        main([*command, "-c", str(config)])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert said in error and "127.0.0.1:9" in error
    assert "Traceback" not in error


def test_progress_says_how_long_it_takes_and_the_summary_what_was_refused() -> None:
    done = Replayed(total=100, began_s=10.0)
    assert progress(done, 12.0) == "0 of 100 records, 0 versions"
    done.read, done.versions, done.answers = 25, 20, 40
    assert progress(done, 15.0) == (
        "25 of 100 records, 20 versions, 5.0 records/s, about 15 s left"
    )
    for number in range(7):
        done.refuse("map", f"no price (t[0] offset {number})")
    assert summary(done, 15.0).splitlines() == [
        "25 records, 20 versions, 40 answers in 5.0 s",
        "  7 refused: map",
        *(f"    no price (t[0] offset {number})" for number in range(5)),
        "    and 2 more",
    ]
    assert [duration(one) for one in (3.4, 119, 400, 9000)] == [
        "3 s", "119 s", "7 min", "2 h 30 min"
    ]  # fmt: skip
