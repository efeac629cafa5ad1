"""A feed's mapping is wrong, is mended, and its dead letters are replayed: each once."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flashfeed.agents.letter_box import read_letters
from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.main import main
from flashfeed.cli.settings import load
from flashfeed.cli.worker_process import scrape, wait_until_ready, worker_process

pytestmark = [pytest.mark.broker, pytest.mark.model]

TOML = """
[kafka]
brokers = "{brokers}"
group = "g"
partitions = 2

[bridge]
port = {port}

[engine]
context_tokens = 1024
sessions_max = 4

[feeds.room]
topics = ["room"]
template = "sensor"
model = "iot"
key = "n"
map = {{ sid = "n", val = "{field}" }}

[templates.sensor]
type = "iot"
"""


LONG = {"n": "b", "value": 16, "pad": "x" * 910_000}
"""Longer than a letter may be: its original is read from its topic."""


async def create_room(brokers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic("room", 1, 1)])
    await admin.close()


async def send(brokers: str, *values: dict[str, Any]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    for value in values:
        await producer.send_and_wait("room", orjson.dumps(value))
    await producer.stop()


def until(done: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["dead-letters", *args])
    return int(ended.value.code or 0)


def lines(port: int, session: str) -> list[str]:
    state = httpx.get(f"http://127.0.0.1:{port}/v1/sessions/{session}/state").json()
    found = (re.fullmatch(r"(?:[ab] )?(\d+)(?: [+-]\d+)?", line) for line in
             state.get("context_text", "").splitlines())  # fmt: skip
    return [line[1] for line in found if line]


def test_what_a_letter_says_moves_no_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may write to the topic chooses its headers."""
    path, evil = tmp_path / "worker.toml", "\x1b[2J\x1f"
    with embedded_broker() as brokers:
        path.write_text(TOML.format(brokers=brokers, port=free_port(), field="v"))
        names = ("topic", "reason", "path", "detail", "where")
        ours = {name: evil + name for name in names} | {"partition": "0", "offset": "0"}
        headers = [(f"flashfeed_{name}", value.encode()) for name, value in ours.items()]

        async def forge() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=brokers)
            await producer.start()
            headers.append((evil + "header", b"x"))
            await producer.send_and_wait("flashfeed.dead_letters", b"v", headers=headers)
            await producer.stop()

        asyncio.run(forge())
        for command in ("list", "show"):
            assert run(command, "-c", str(path)) == 0
            out = capsys.readouterr().out
            assert all(one in out for one in (*names, "offset 0"))
            assert "\x1b" not in out and "\x1f" not in out


def test_letters_of_a_mended_feed_reach_their_sessions_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, path, port = tmp_path / "worker.log", tmp_path / "worker.toml", free_port()
    with embedded_broker() as brokers:
        path.write_text(TOML.format(brokers=brokers, port=port, field="v"))
        asyncio.run(create_room(brokers))
        with worker_process(path, log) as process:
            wait_until_ready(port, process, log)
            asyncio.run(
                send(brokers, {"n": "a", "value": 11}, {"n": "a", "v": 12}, {"n": "b", "value": 13},
                     {"n": "a", "value": 14}, {"n": "a", "value": "n/a"}, LONG)
            )  # fmt: skip
            until(lambda: scrape(port, 'flashfeed_dead_letters_total{reason="map"}') == 5, log)
            until(lambda: len(lines(port, "a")) == 1, log)

        assert run("list", "-c", str(path), "--json") == 0
        listed = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
        listed.sort(key=lambda one: one["offset"])  # of one millisecond or of two
        assert [(one["offset"], one["path"]) for one in listed] == [
            (0, "$.v"), (2, "$.v"), (3, "$.v"), (4, "$.v"), (5, "$.v"),
        ]  # fmt: skip
        assert run("list", "-c", str(path), "--reason", "decode") == 0
        assert capsys.readouterr().out == "0 dead letters\n"
        assert run("show", listed[1]["id"], "-c", str(path)) == 0
        assert '{"n":"b","value":13}' in capsys.readouterr().out
        assert run("show", "-c", str(path), "9:99") == 1
        assert "no such letter" in capsys.readouterr().out
        assert run("show", listed[4]["id"], "-c", str(path)) == 0
        assert "value of 900000 bytes (cut to fit Kafka)" in capsys.readouterr().out

        path.write_text(TOML.format(brokers=brokers, port=port, field="value|v"))
        assert run("replay", "-c", str(path), "--dry-run") == 1
        told = capsys.readouterr().out
        assert "5 dead letters\n  4 records would be sent" in told
        assert "1 fail again, and would be dead letters again" in told
        assert len(asyncio.run(read_letters(load(path), None))) == 5
        with worker_process(path, log) as process:
            wait_until_ready(port, process, log)
            assert run("replay", listed[0]["id"], "-c", str(path)) == 0
            until(lambda: len(lines(port, "a")) == 2, log)
            capsys.readouterr()
            assert run("replay", "-c", str(path), "--feed", "room") == 1
            told = capsys.readouterr().out
            assert "3 records sent to their sessions\n  1 have been applied meanwhile" in told
            assert "1 failed again, and are dead letters again" in told
            until(lambda: len(lines(port, "a")) == 3 and len(lines(port, "b")) == 2, log)
            assert run("replay", "-c", str(path)) == 1
            told = capsys.readouterr().out
            assert "0 records sent to their sessions\n  4 have been applied meanwhile" in told
            asyncio.run(send(brokers, {"n": "a", "v": 15}))
            until(lambda: len(lines(port, "a")) == 4, log)
            assert lines(port, "a") == ["12", "11", "14", "15"]
        again = asyncio.run(read_letters(load(path), None))
        assert [one.replays for one in again if one.offset == 4] == [0, 1, 2]
