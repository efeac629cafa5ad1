"""The worker's log: one JSON object a line, whoever wrote it; no secret, no record's content."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pty
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from websockets.sync.client import connect

from flashfeed.bridge.forwarded import HEADER
from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.logs import JsonLines
from flashfeed.cli.worker_process import scrape

from cluster import CLUSTER, SECRET, group_of

KEYS = {"ann": "ann-has-a-key-of-her-own", "bob": "bob-has-another-key"}
WRONG = "a-key-that-nobody-has"
FLASH = [{"query": "High or low?", "choices": ["high", "low"]}]


def record(message: Any, *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.getLogger("some.where").makeRecord(
        "some.where", logging.WARNING, "x.py", 1, message, args, None, "f", extra
    )
    made.created = 1_700_000_000.1234
    return made


def line_of(one: logging.LogRecord) -> dict[str, Any]:
    """What the formatter's one line says."""
    line = JsonLines().format(one)
    assert line.splitlines() == [line]
    line.encode()
    read: dict[str, Any] = json.loads(line)
    return read


def lines_of(text: str) -> list[dict[str, Any]]:
    """A log's lines, each of which is an object."""
    read = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "logger", "message"} <= one.keys() for one in read)
    return read


# -- the line ---------------------------------------------------------------------


def test_a_line_says_when_who_and_what() -> None:
    assert line_of(record("partition %d is live", 3)) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "logger": "some.where",
        "message": "partition 3 is live",
    }


def test_what_an_event_concerns_are_fields_and_what_is_unknown_is_left_out() -> None:
    where = {"feed": "candles", "topic": "t", "partition": 0, "offset": 0, "session": "AAPL"}
    line = line_of(record("it is", **where, data={"o": 1}))
    assert {name: line[name] for name in where} == where
    assert "data" not in line
    assert "offset" not in line_of(record("it is", partition=1, offset=None))


def test_a_sentence_stands_in_the_line_as_it_was_said() -> None:
    said = "la sesión 'Zürich/温度' reads t[0], 5 °C: it's <b>here</b>"
    assert said in JsonLines().format(record("%s", said))


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb\x1b[2J", 'a"\\b', "a\u2028b\x85", "a\ud800b"])
def test_no_text_breaks_the_line(text: str) -> None:
    assert line_of(record("%s", text, session=text))["session"] == text


def test_a_traceback_is_one_field() -> None:
    one = record("it failed")
    try:
        raise ValueError("why")
    except ValueError:
        one.exc_info = sys.exc_info()
    line = line_of(one)
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: why")
    assert line["message"] == "it failed"


def test_a_call_whose_arguments_do_not_fit_is_a_line_all_the_same() -> None:
    assert line_of(record("partition %d", "three"))["message"] == "partition %d ('three',)"


# -- logging as a worker has it ---------------------------------------------------

SCRIPT = """
import logging, sys, threading, warnings
from flashfeed.cli.logs import set_up
from flashfeed.models.config import LogConfig
set_up(LogConfig(format=sys.argv[1], level=sys.argv[2]))
logging.getLogger("flashfeed.x").debug("a debug line", extra={"session": "s"})
logging.getLogger("flashfeed.x").error("an error line", extra={"session": "s"})
logging.getLogger("aiokafka.consumer").info("what Kafka does")
logging.getLogger("aiokafka.consumer").warning("what Kafka fears")
for name in ("aiokafka.conn", "httpx", "httpcore.http11", "websockets.client"):
    logging.getLogger(name).info("a secret")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0, name="t1")
thread.start()
thread.join()
"""


def said(form: str, level: str) -> str:
    command = [sys.executable, "-c", SCRIPT, form, level]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize(
    ("level", "says"),
    [
        ("debug", ["a debug line", "an error line", "what Kafka does", "what Kafka fears"]),
        ("info", ["an error line", "what Kafka fears"]),
        ("error", ["an error line"]),
    ],
)
def test_the_level_is_everybodys_and_what_has_secrets_in_it_is_never_written(
    level: str, says: list[str]
) -> None:
    lines = lines_of(said("json", level))
    [failed] = [one for one in lines if one["message"] == "the thread t1 failed"]
    assert "ZeroDivisionError" in failed["exception"]
    told = [one for one in lines if one["logger"] not in ("py.warnings", "flashfeed.cli.logs")]
    assert [one["message"] for one in told] == says
    warned = [one["message"] for one in lines if one["logger"] == "py.warnings"]
    assert ["UserWarning: old" in one for one in warned] == ([True] if level != "error" else [])


def test_text_is_for_people() -> None:
    first, *_ = said("text", "info").splitlines()
    assert first.endswith(" ERROR flashfeed.x: an error line")


def test_auto_is_text_on_a_terminal_and_else_json() -> None:
    assert lines_of(said("auto", "info"))
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", SCRIPT, "auto", "info"], stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert " ERROR flashfeed.x: an error line" in shown
    assert "{" not in shown.splitlines()[0]


# -- real workers -----------------------------------------------------------------


@pytest.mark.model
@pytest.mark.broker
def test_workers_at_debug_write_json_alone_and_no_key(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests and a WebSocket that one of them passes on to the other, with keys."""
    named = ",".join(f"{tenant}:{key}" for tenant, key in KEYS.items())
    monkeypatch.setenv("LOGS_TEST_KEYS", named)
    home = tmp_path / "loud"
    home.mkdir()
    bridge = 'api_keys_env = "LOGS_TEST_KEYS"\n\n[log]\nlevel = "debug"'
    with group_of(broker, home, bridge=bridge, more=CLUSTER) as group:
        near, far = group.members
        with httpx.Client(headers={"x-api-key": KEYS["ann"]}, timeout=60) as ann:
            made = ann.post(f"{far.url}/v1/sessions/init", json={"type": "iot", "flash": FLASH})
            session = made.json()["session_id"]
            passed = ann.get(f"{near.url}/v1/sessions/{session}/state")
            assert passed.status_code == 200
        uri = f"ws{near.url.removeprefix('http')}/v1/sessions/{session}/ws"
        with connect(uri, additional_headers={"x-api-key": KEYS["ann"]}) as one:
            one.recv()
        for key in (WRONG, KEYS["bob"]):
            refused = httpx.get(
                f"{near.url}/v1/sessions/{session}/state",
                headers={"authorization": f"Bearer {key}"},
            )
            assert refused.status_code in (401, 404)
    for member in group.members:
        text = member.log.read_text()
        lines = lines_of(text)
        loggers = {one["logger"].partition(".")[0] for one in lines if one["level"] == "debug"}
        assert {"aiokafka", "asyncio"} <= loggers, loggers
        for secret in (*KEYS.values(), WRONG, SECRET):
            assert secret not in text
        assert HEADER not in text.lower()  # what a worker signs, good for one request


FEED = """
[feeds.wards]
topics = ["{topic}"]
template = "ward"
model = "iot"
key = "{{bed}}"
map = {{ sid = "bed", val = "value" }}

[templates.ward]
type = "iot"
flash = [{{ query = "High?", choices = ["yes", "no"] }}]
"""


VALUES = (
    b'{"bed": "b1", "value": 424242.5}',
    b'{"bed": "b1", "value": "marker-of-a-value"}',
    b"marker-of-a-garbage",
)


async def send(brokers: str, topic: str, values: Sequence[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    for value in values:
        await producer.send_and_wait(topic, value)
    await producer.stop()


@pytest.mark.model
@pytest.mark.broker
def test_a_worker_names_what_its_lines_concern_and_no_content(broker: str, tmp_path: Path) -> None:
    """At level info: records that go in, that cannot be read, and one too long for a window."""
    home, topic = tmp_path / "quiet", f"wards-{time.time_ns()}"
    home.mkdir()
    asyncio.run(send(broker, topic, VALUES))
    with group_of(broker, home, count=1, more=FEED.format(topic=topic)) as group:
        [member] = group.members
        url = f"{member.url}/v1/sessions"
        with httpx.Client(timeout=60) as client:
            made = client.post(f"{url}/init", json={"type": "event", "flash": FLASH}).json()
            long = {"text": "marker-of-a-text " * 2000}
            assert client.post(f"{url}/{made['session_id']}/append", json=long).status_code == 400
            bad = client.post(f"{url}/b1/stream/push", json={"data": [{"val": "marker-of-a-push"}]})
            assert bad.status_code == 400
        deadline = time.monotonic() + 60
        while scrape(member.port, "flashfeed_dead_letters_total") < 2:
            assert time.monotonic() < deadline, member.log.read_text()[-3000:]
            time.sleep(0.1)
    text = member.log.read_text()
    lines = lines_of(text)
    assert any(one.get("feed") == "wards" for one in lines)
    live = {one["partition"] for one in lines if "is live with" in one["message"]}
    assert live == set(range(group.partitions))
    assert "marker-of-a" not in text
    assert "424242" not in text


@pytest.mark.parametrize("form", ["json", "text"])
def test_why_a_worker_cannot_start_stands_in_its_log(tmp_path: Path, form: str) -> None:
    config = tmp_path / "worker.toml"
    brokers = f'[kafka]\nbrokers = "127.0.0.1:{free_port()}"\n'
    config.write_text(f'{brokers}[log]\nformat = "{form}"\n[bridge]\nenabled = false\n')
    command = [sys.executable, "-m", "flashfeed.cli.main", "worker", "-c", str(config)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    if form == "json":
        last = lines_of(ended.stderr)[-1]
        assert last["level"] == "critical"
        assert "cannot reach the brokers" in last["message"]
    else:
        assert " CRITICAL flashfeed.cli.worker: cannot reach the brokers" in ended.stderr
