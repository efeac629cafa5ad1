"""Invariants 1, 2 and 3 under kill -9: every record applied once, every version answered.

A real worker process is killed at random moments of the demo's feed and started again.
At the end each session's context must hold exactly the lines of its window, in order;
the versions must be 1, 2, 3, ... each with an answer to every question; a repeated
event must be the same to the byte; and the versions' origins must cover every source
offset once.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

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
from flashfeed.models.session import WindowSpec
from flashfeed.models.window import window_start

KILLS = 6
EACH = 30
RECORDS_A_SECOND = 3.0
WINDOW = WindowSpec("exact", 4)
DONE_TIMEOUT_S = 90.0


def expected_lines(records: list[SourceRecord]) -> dict[str, list[str]]:
    """Each session's records as lines, in order. A line refers to the record before it in
    the same block of WINDOW.items."""
    lines: dict[str, list[str]] = defaultdict(list)
    memories: dict[str, Any] = {}
    for record in records:
        preset = "telegraf" if record.topic == "telegraf" else "cryptofeed"
        source = Source(key=record.key, topic=record.topic, timestamp_ms=0, headers=())
        [mapped] = Mapping(mapping_spec(preset, {}))(decode(record.value), source).records
        codec = text_codec("", "iot" if preset == "telegraf" else "ohlcv")
        held = lines[record.session]
        memory = memories.get(record.session) if len(held) % WINDOW.items else None
        held.append(codec.render(mapped.record, memory).rstrip("\n"))
        memories[record.session] = codec.remember(memory, mapped.record)
    return dict(lines)


async def kill_and_restart(
    config: Path, port: int, log: Path, feeding: asyncio.Task[None], wanted: dict[str, list[str]]
) -> int:
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
        await settle(port, wanted)
    finally:
        assert stop_worker(process) == 0, log.read_text()[-3000:]
    return kills


async def settle(port: int, wanted: dict[str, list[str]]) -> None:
    """Wait until every session's context ends with the last line of its window."""
    deadline = time.monotonic() + DONE_TIMEOUT_S
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as bridge:
        while time.monotonic() < deadline:
            contexts.clear()
            for session in (await bridge.get("/v1/sessions")).json()["sessions"]:
                name = session["session_id"]
                response = await bridge.get(f"/v1/sessions/{name}/state")
                if response.status_code == 200:  # else asked again
                    state = response.json()
                    contexts[name] = state["context_text"].splitlines(), state["data_count"]
            ends = {name: held[-1] for name, (held, _) in contexts.items()}
            if ends == {name: window[-1] for name, window in wanted.items()}:
                return
            await asyncio.sleep(0.5)
    raise AssertionError(f"not all records came in: {ends}")


contexts: dict[str, tuple[list[str], int]] = {}


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
        small = re.sub(r"items = \d+", f"items = {WINDOW.items}", config_path.read_text())
        config_path.write_text(small)
        config = load(config_path)
        all_lines = expected_lines(records)
        start = window_start(WINDOW, EACH)
        wanted = {session: lines[start:] for session, lines in all_lines.items()}
        feeding = asyncio.create_task(replay(brokers, records, RECORDS_A_SECOND, sent.__setitem__))
        kills = await kill_and_restart(config_path, port, log, feeding, wanted)
        events = await published(config)
    assert kills >= 5
    assert not [one for one in events if one[0] == config.topics.dead_letters]

    for session, window in wanted.items():
        held, data_count = contexts[session]
        assert held[-len(window) :] == window, session
        assert data_count == len(window) < EACH
        assert held[-len(window) - 1] not in all_lines[session], session  # the prompt's last

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
