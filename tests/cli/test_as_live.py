"""What a worker answered over real data, made again from its topics: the same versions, inputs
and answers, whatever came by feed, HTTP or control, and the brokers are left as they were."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from brokers import KINDS, broker_of
from glucose_feed import glucose_feed

from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.main import main
from flashfeed.cli.sample_data import candles, cryptofeed_json, glucose
from flashfeed.cli.worker_process import wait_until_ready, worker_process

pytestmark = [pytest.mark.broker, pytest.mark.model]

CONFIG = """
[kafka]
brokers = "{brokers}"
group = "g"
partitions = 2
[bridge]
port = {port}
[engine]
context_tokens = 1024
sessions_max = 8
threads = 1

[feeds.candles]
topics = ["candles"]
preset = "cryptofeed"
template = "market"
session = "stock"

[feeds.cgm]
topics = ["cgm"]
template = "sensor"
model = "iot"
session = "cgm"
key = "n"
map = {{ sid = "n", val = "v" }}
time = "t:s"

[templates.market]
type = "ohlcv"
window = {{ items = 5 }}
[[templates.market.flash]]
name = "rises"
query = "Will the price rise?"
choices = ["yes", "no"]
[templates.market.outcomes.rises]
after = "1 record"
label = "yes if close > close@0 else no"

[templates.sensor]
type = "iot"
window = {{ items = 6 }}
[[templates.sensor.flash]]
name = "high"
query = "Is the glucose high?"
choices = ["yes", "no"]
[[templates.sensor.flash]]
name = "word"
query = "In one word, how is it?"
max_tokens = 3
"""
LIVE = ("flashfeed.flash_ready", "flashfeed.data_updated")
BURSTS, EACH = 4, 4
HISTORY = 14
NEAR_TIE = 0.2


class Lived(NamedTuple):
    """A worker's past: the broker, the configuration, and a time in the middle of it."""

    brokers: str
    config: Path
    half: str
    events: list[dict[str, Any]]


async def send(brokers: str, values: dict[str, list[bytes]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers, linger_ms=20)
    await producer.start()
    sent = [
        await producer.send(topic, value, key=b"stock")
        for topic in values
        for value in values[topic]
    ]
    await asyncio.gather(*sent)
    await producer.stop()


async def read(brokers: str, until: Any) -> list[dict[str, Any]]:
    consumer = AIOKafkaConsumer(
        *LIVE,
        bootstrap_servers=brokers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    events: list[dict[str, Any]] = []
    deadline = time.monotonic() + 60
    while not until(events) and time.monotonic() < deadline:
        for some in (await consumer.getmany(timeout_ms=200)).values():
            events += [
                {"event": one.topic, "at": (one.partition, one.offset)}
                | {"data": orjson.loads(one.value)}
                for one in some
            ]
    await consumer.stop()
    assert until(events), events[-5:]
    return events


def seen(session: str, records: int) -> Any:
    """Whether a session has a version over so many records of its source."""

    def enough(events: list[dict[str, Any]]) -> bool:
        lasts = [
            origin["last"]
            for one in events
            if one["data"]["session_id"] == session
            for origin in one["data"]["origins"]
        ]
        return max(lasts, default=-1) >= records - 1

    return enough


async def broker_state(brokers: str) -> tuple[Any, Any]:
    """Where every topic ends, and how far the group is."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    names = sorted(await admin.list_topics())
    described = await admin.describe_topics(names)
    await admin.close()
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, group_id="g", enable_auto_commit=False)
    await consumer.start()
    places = [
        TopicPartition(one["topic"], part["partition"])
        for one in described
        for part in one["partitions"]
    ]
    consumer.assign(places)
    ends = await consumer.end_offsets(places)
    committed = {place: await consumer.committed(place) for place in places}
    await consumer.stop()
    return ends, committed


@pytest.fixture(scope="module", params=KINDS)
def lived(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """Candles and glucose in bursts, a corrected candle, a question more in the middle, and a
    session that is fed over HTTP."""
    home = tmp_path_factory.mktemp("as-live")
    days = [row for _, row in zip(range(HISTORY + BURSTS * EACH), candles("AAPL"), strict=False)]
    bars = [cryptofeed_json("AAPL", row) for row in days]
    readings = [
        orjson.dumps({"n": "cgm", "v": row["glucose"], "t": row["timestamp"]})
        for _, row in zip(range(BURSTS * EACH), glucose(), strict=False)
    ]
    corrected = cryptofeed_json("AAPL", days[HISTORY + EACH] | {"close": days[0]["close"]})
    port = free_port()
    config, log = home / "worker.toml", home / "worker.log"
    half = ""
    with broker_of(request.param, home) as brokers:
        asyncio.run(make_topics(brokers))
        config.write_text(CONFIG.format(brokers=brokers, port=port))
        asyncio.run(send(brokers, {"candles": bars[:HISTORY]}))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
            flash = [{"query": "Is it warm?", "choices": ["yes", "no"]}]
            mine = {"type": "iot", "flash": flash, "window_size": 3}
            session = http.post("/v1/sessions/init", json=mine).json()["session_id"]
            for burst in range(BURSTS):
                at = slice(burst * EACH, (burst + 1) * EACH)
                more = bars[HISTORY + at.start : HISTORY + at.stop]
                if burst == 2:
                    more.append(corrected)
                    half = datetime.now(UTC).isoformat()
                    asked = {
                        "op": "add_query",
                        "session_id": "stock",
                        "query": {"query": "Is it calm?", "name": "calm", "choices": ["yes", "no"]},
                    }
                    asyncio.run(send(brokers, {"flashfeed.control": [orjson.dumps(asked)]}))
                asyncio.run(send(brokers, {"candles": more, "cgm": readings[at]}))
                pushed = {"data": [{"sid": "x", "val": 20.0 + burst * EACH + n} for n in range(2)]}
                done = http.post(f"/v1/sessions/{session}/stream/push", json=pushed)
                assert done.status_code < 300, done.text
                count = HISTORY + at.stop + (burst >= 2)
                asyncio.run(read(brokers, seen("stock", count)))
                asyncio.run(read(brokers, seen("cgm", at.stop)))
        events = asyncio.run(read(brokers, seen("stock", HISTORY + BURSTS * EACH + 1)))
        yield Lived(brokers, config, half, asyncio.run(everything(brokers, len(events))))


async def everything(brokers: str, least: int) -> list[dict[str, Any]]:
    """All live events, read until there are no more."""
    before = -1

    def quiet(events: list[dict[str, Any]]) -> bool:
        nonlocal before
        same, before = len(events) == before, len(events)
        return same and len(events) >= least

    return await read(brokers, quiet)


async def make_topics(brokers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1) for name in ("candles", "cgm")])
    await admin.close()


def replay(config: Path, out: Path, *args: str) -> list[dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        main(["replay", "-c", str(config), "--as-live", "--out", str(out), *args])
    assert not ended.value.code
    return [orjson.loads(one) for one in out.read_bytes().splitlines()]


def end(lived: Lived) -> list[str]:
    """The versions' ends: the embedded broker says too low ones, and gives the rest late."""
    updates = [one["at"] for one in lived.events if one["event"] == LIVE[1]]
    ends = {
        partition: max(at for part, at in updates if part == partition) for partition, _ in updates
    }
    return [
        word
        for partition, last in ends.items()
        for word in ("--to-offset", f"{LIVE[1]}:{partition}:{last + 1}")
    ]


def by_version(events: list[dict[str, Any]]) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Events by session, version and query (0: the update)."""
    return {
        (one["data"]["session_id"], one["data"]["data_version"], one["data"].get("id", 0)): one[
            "data"
        ]
        for one in events
    }


def assert_same(again: dict[str, Any], live: dict[str, Any]) -> None:
    """The inputs are the same; the logits within 0.1, so that of two log-probabilities each may
    be as far off again; the answer but for near ties (invariant 5)."""
    for name in ("origins", "records_first", "records_last", "event_time", "type"):
        assert again[name] == live[name]
    if "value" not in live:
        assert (again["data_count"], again["n_tokens"]) == (live["data_count"], live["n_tokens"])
        return
    for one, other in ((again["raw"], live["raw"]), (again, live)):
        for choice, share in (other or live)["probabilities"].items():
            said = (one or again)["probabilities"][choice]
            assert abs(math.log(said) - math.log(share)) <= 2 * 0.1
    if live["logit_gap"] > NEAR_TIE:
        assert (again["value"], again["answered_by"]) == (live["value"], live["answered_by"])


def test_the_live_versions_are_made_again_and_nothing_is_touched(
    lived: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = asyncio.run(broker_state(lived.brokers))
    assert before[1][TopicPartition("candles", 0)] == HISTORY + BURSTS * EACH + 1
    again = by_version(replay(lived.config, tmp_path / "all", "--from", "1h", *end(lived)))
    assert asyncio.run(broker_state(lived.brokers)) == before
    said = capsys.readouterr()
    live = by_version(lived.events)
    assert again.keys() == live.keys()
    for key, one in again.items():
        assert_same(one, live[key])
    # It was no easy past: large versions, a window that slid, a question that came later.
    stock = [one for (session, _, query), one in live.items() if session == "stock" and not query]
    spans = [origin["last"] - origin["first"] for one in stock for origin in one["origins"]]
    assert max(spans) > 1
    assert max(one["records_first"] for one in stock) > 0
    assert {query for session, _, query in live if session == "stock"} == {0, 1, 2}
    assert len({session for session, _, _ in live}) == 3
    assert " 0 differ," in said.err
    assert "rises" in said.out and "published" in said.out  # its outcome rule makes it a backtest


def test_a_range_that_begins_in_the_middle_goes_on_from_the_context_that_was(
    lived: Lived, tmp_path: Path
) -> None:
    again = by_version(replay(lived.config, tmp_path / "half", "--from", lived.half, *end(lived)))
    live = by_version(lived.events)
    assert again.keys() < live.keys()
    assert {session for session, _, _ in again} == {session for session, _, _ in live}
    assert min(version for _, version, _ in again) > 1
    for key, one in again.items():
        assert_same(one, live[key])


def test_a_past_that_cannot_be_made_again_ends_with_3_and_is_named(
    lived: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another window is another context, from which nothing goes on."""
    config = tmp_path / "other.toml"
    config.write_text(lived.config.read_text().replace("items = 6", "items = 3"))
    args = ["replay", "-c", str(config), "--as-live", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main([*args, "--from", lived.half])
    assert ended.value.code == 3
    assert "live versions left out: its context cannot be told" in capsys.readouterr().err


LEARNING = """
[kafka]
brokers = "{brokers}"
group = "g"
partitions = 2
[bridge]
port = {port}
[engine]
context_tokens = 1024
sessions_max = 8
threads = 1
"""
LEARNT, READINGS_MAX = 12, 120


async def learn(brokers: str) -> list[dict[str, Any]]:
    """Readings one by one, each answered before the next, until a learnt head gave some
    answers; the answers."""
    levels = [row["glucose"] for _, row in zip(range(READINGS_MAX), glucose(), strict=False)]
    random.Random(5).shuffle(levels)
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    consumer = AIOKafkaConsumer(
        LIVE[0],
        bootstrap_servers=brokers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await producer.start()
    await consumer.start()
    answers: list[dict[str, Any]] = []
    for at, level in enumerate(levels):
        value = orjson.dumps({"n": "cgm", "v": level, "h": 140, "t": 1e9 + 300 * at})
        await producer.send_and_wait("cgm", value, partition=0)
        async with asyncio.timeout(60):
            while len(answers) <= at:
                answers.append(orjson.loads((await consumer.getone()).value))
        if sum(one["answered_by"]["head"] == "mixed" for one in answers) == LEARNT:
            break
    await producer.stop()
    await consumer.stop()
    return answers


def test_what_a_learnt_head_answered_is_made_again_as_the_model_said_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the first answer on, and from one of the head's own."""
    config, log = tmp_path / "worker.toml", tmp_path / "worker.log"
    port = free_port()
    with embedded_broker() as brokers:
        asyncio.run(make_topics(brokers))
        config.write_text(LEARNING.format(brokers=brokers, port=port) + glucose_feed(learns=True))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            answers = asyncio.run(learn(brokers))
        learnt = [one for one in answers if one["answered_by"]["head"] == "mixed"]
        assert len(learnt) == LEARNT
        by_model = [
            {part["forecaster"]: part["probabilities"] for part in one["learned"]["forecasts"]}
            for one in learnt
        ]
        turned = [
            one
            for one, parts in zip(learnt, by_model, strict=True)
            if one["value"] != max(parts["prior"], key=parts["prior"].__getitem__)
        ]
        assert turned  # else there is nothing to tell apart
        events = asyncio.run(everything(brokers, 2 * len(answers)))
        updates = [one["at"] for one in events if one["event"] == LIVE[1]]
        [partition], offsets = {at[0] for at in updates}, [at[1] for at in updates]
        for first, count in ((0, LEARNT), (len(answers) - 5, 5)):
            place = f"{LIVE[1]}:{partition}"
            begin, stop = f"{place}:{offsets[first]}", f"{place}:{offsets[-1] + 1}"
            stretch = ("--from-offset", begin, "--to-offset", stop)
            replay(config, tmp_path / f"from-{first}", *stretch)
            said = capsys.readouterr().err
            assert f"{len(answers) - first} answers compared, 0 differ" in said
            assert f"  {count} live answers are a learnt head's" in said


@pytest.mark.parametrize("more", [["--batch", "2"], ["--feed", "cgm"], ["--against", "CONFIG"]])
def test_what_the_live_events_say_is_not_to_be_said_again(
    lived: Lived, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    more = [one.replace("CONFIG", str(lived.config)) for one in more]
    with pytest.raises(SystemExit) as ended:
        main(["replay", "-c", str(lived.config), "--as-live", "--from", "1h", *more])
    assert ended.value.code == 2
    assert "--as-live: expected no --feed, --batch or --against" in capsys.readouterr().err
