"""The past, replayed: the same range gives the same versions, inputs and answers, and leaves
the brokers as they were."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.agents.replay import Replayed
from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.cli.main import main
from flashfeed.cli.replay import progress, summary

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
MADE_UP = ("evaluated_at", "updated_at", "update_ms", "pending")
"""Of the events, what the clock on the wall says."""
JUDGED = {"value", "confidence", "logit_gap", "probabilities", "previous", "changed", "raw"}
NEAR_TIE = 0.2


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


@pytest.mark.broker
@pytest.mark.model
def test_a_range_is_replayed_the_same_again_and_nothing_is_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "flashfeed.toml"
    with embedded_broker() as brokers:
        config.write_text(TOML.format(brokers=brokers))
        half = asyncio.run(make_room(brokers))
        first = replay(config, tmp_path / "first", "--from", "1h")
        assert "20 records, 19 versions, 19 answers" in capsys.readouterr().err
        again = replay(config, tmp_path / "again", "--from", "1h")
        assert "1 refused: decode" in capsys.readouterr().err
        part = replay(config, tmp_path / "part", "--from", "1h", "--to", half, "--batch", "2")
        rest = replay(config, tmp_path / "rest", "--from", half, "--batch", "5")
        assert asyncio.run(topics(brokers)) == ["room"]
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
    assert progress(done, 15.0) == "25 of 100 records, 20 versions, about 15 s left"
    done.refused["map"] = 5
    assert summary(done, 15.0) == "25 records, 20 versions, 40 answers in 5.0 s\n  5 refused: map"
