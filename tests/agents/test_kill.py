"""Invariants 1, 2 and 3 under kill -9: every record applied once, every version answered.

A real worker process is killed at random moments of the demo's feed and started again.
At the end each session's context must hold exactly the lines of its records, in order;
the versions must be 1, 2, 3, ... each with an answer to every question; a repeated
event must be the same to the byte; and the versions' origins must cover every source
offset once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from pathlib import Path

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer

from flashfeed.cli.demo import write_config
from flashfeed.cli.demo_board import Sent
from flashfeed.cli.demo_feed import SourceRecord, create_source_topics, replay, source_records
from flashfeed.cli.embedded_broker import embedded_broker
from flashfeed.cli.settings import load
from flashfeed.cli.worker_process import start_worker, stop_worker, wait_until_ready
from flashfeed.codecs.json import decode
from flashfeed.codecs.mapping import Mapping, Source
from flashfeed.codecs.presets import mapping_spec
from flashfeed.codecs.registry import text_codec
from flashfeed.models.config import Config

KILLS = 6
EACH = 30
RECORDS_A_SECOND = 3.0
DONE_TIMEOUT_S = 90.0


def expected_lines(records: list[SourceRecord]) -> dict[str, list[str]]:
    """What each session's context must hold: its records as lines, in order."""
    lines: dict[str, list[str]] = defaultdict(list)
    previous: dict[str, object] = {}
    for record in records:
        preset = "telegraf" if record.topic == "telegraf" else "cryptofeed"
        source = Source(key=record.key, topic=record.topic, timestamp_ms=0, headers=())
        [mapped] = Mapping(mapping_spec(preset, {}))(decode(record.value), source).records
        codec = text_codec("", "iot" if preset == "telegraf" else "ohlcv")
        line = codec.render(mapped.record, previous.get(record.session))
        lines[record.session].append(line.rstrip("\n"))
        previous[record.session] = mapped.record
    return dict(lines)


async def kill_and_restart(config: Path, port: int, log: Path, feeding: asyncio.Task[None]) -> int:
    """Run workers until the feed is written, killing each at a random moment; the kills."""
    kills = 0
    process = start_worker(config, log)
    try:
        while kills < KILLS or not feeding.done():
            await asyncio.to_thread(wait_until_ready, port, process, log)
            if kills < KILLS:
                await asyncio.sleep(random.uniform(0.0, 4.0))
                process.kill()
                process.wait()
                kills += 1
                process = start_worker(config, log)
            else:
                await feeding
        await asyncio.to_thread(wait_until_ready, port, process, log)
        await settle(port)
    finally:
        assert stop_worker(process) == 0, log.read_text()[-3000:]
    return kills


async def settle(port: int) -> None:
    """Wait until every session holds all its records."""
    deadline = time.monotonic() + DONE_TIMEOUT_S
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as bridge:
        while time.monotonic() < deadline:
            listed = (await bridge.get("/v1/sessions")).json()["sessions"]
            counts = []
            for session in listed:
                state = await bridge.get(f"/v1/sessions/{session['session_id']}/state")
                counts.append(state.json()["data_count"])
            if len(counts) == 5 and min(counts) >= EACH:
                contexts.clear()
                for session in listed:
                    state = await bridge.get(f"/v1/sessions/{session['session_id']}/state")
                    contexts[session["session_id"]] = state.json()["context_text"]
                return
            await asyncio.sleep(0.5)
    raise AssertionError(f"not all records came in: {counts}")


contexts: dict[str, str] = {}


async def published(config: Config) -> list[tuple[str, dict[str, str], bytes]]:
    """Every event on the output topics: topic, headers, value."""
    topics = (config.topics.flash_ready, config.topics.data_updated, config.topics.dead_letters)
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=config.kafka.brokers, auto_offset_reset="earliest"
    )
    await consumer.start()
    events = []
    try:
        while fetched := await consumer.getmany(timeout_ms=3000):
            for records in fetched.values():
                for one in records:
                    headers = {name: value.decode() for name, value in one.headers}
                    events.append((one.topic, headers, one.value))
    finally:
        await consumer.stop()
    return events


@pytest.mark.broker
@pytest.mark.model
async def test_kill_9_loses_nothing_and_applies_nothing_twice(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    records = list(source_records(EACH))
    sent: dict[tuple[str, int, int], Sent] = {}
    with embedded_broker() as brokers:
        await create_source_topics(brokers)
        config_path, port = write_config(tmp_path, brokers)
        config = load(config_path)
        feeding = asyncio.create_task(replay(brokers, records, RECORDS_A_SECOND, sent.__setitem__))
        kills = await kill_and_restart(config_path, port, log, feeding)
        events = await published(config)
    assert kills >= 5
    assert not [one for one in events if one[0] == config.topics.dead_letters]

    for session, lines in expected_lines(records).items():
        held = contexts[session].splitlines()
        assert held[-len(lines) :] == lines, session
        assert "\n".join(held).count("\n".join(lines)) == 1

    by_id: dict[str, bytes] = {}
    for _, headers, value in events:  # a repeat is the same event
        assert by_id.setdefault(headers["ce_id"], value) == value

    queries = {name: len(template.flash) for name, template in config.templates.items()}
    answered: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    covered: dict[tuple[str, int], set[int]] = defaultdict(set)
    for value in by_id.values():
        event = orjson.loads(value)
        if "query" in event:
            answered[event["session_id"]][event["data_version"]].add(event["id"])
            continue
        for origin in event["origins"]:
            offsets = set(range(origin["first"], origin["last"] + 1))
            place = (origin["topic"], origin["partition"])
            assert not covered[place] & offsets, "a record is in two versions"
            covered[place] |= offsets
    for session, versions in answered.items():
        wanted = queries["sensor" if session == "cgm-01" else "market"]
        assert sorted(versions) == list(range(1, max(versions) + 1)), session
        assert all(len(ids) == wanted for ids in versions.values()), session
    assert {(*place, offset) for place, all_ in covered.items() for offset in all_} == set(sent)
