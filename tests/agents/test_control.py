"""Sessions and questions by message, and the sessions that feeds make: a real worker."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from flashfeed.agents.control import ControlRules, read_control
from flashfeed.agents.transport import Batch
from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.worker_process import scrape, wait_until_ready, worker_process
from flashfeed.models.messages import Asked, decode_message
from flashfeed.models.session import SessionSpec
from flashfeed.models.tenant import session_key

CONFIG = """
[kafka]
brokers = "{brokers}"
topics_refresh_s = 1.0
[bridge]
port = {port}
[engine]
context_tokens = 1024
[control]
reply_topics = ["mine"]
[feeds.plant]
topics = ["plant"]
model = "iot"
key = "key"
map = {{ sid = "sid", val = "val" }}
template = "sensor"
session = "plant-{{key}}"
allow = ["plant-a*", "plant-b*"]
deny = ["*-secret"]
sessions_max = 2
[feeds.brief]
topics = ["brief"]
model = "iot"
key = "key"
map = {{ sid = "sid", val = "val" }}
template = "sensor"
session = "brief-{{key}}"
idle_ttl = "4s"
[templates.sensor]
type = "iot"
[[templates.sensor.flash]]
query = "Is it hot?"
name = "hot"
choices = ["yes", "no"]
"""
HOT = {"query": "Is it hot?", "name": "hot", "choices": ["yes", "no"]}
COLD = {"query": "Is it cold?", "name": "cold", "choices": ["yes", "no"]}
NUMBERS = itertools.count(1)


class Desk:
    """Somebody who has Kafka alone, and looks at what came of it over HTTP."""

    def __init__(self, brokers: str, port: int) -> None:
        self.brokers = brokers
        self.port = port
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def send(self, topic: str, *bodies: Any, headers: Any = ()) -> None:
        async def produce() -> None:
            async with AIOKafkaProducer(bootstrap_servers=self.brokers) as producer:
                for body in bodies:
                    value = body if isinstance(body, bytes) else orjson.dumps(body)
                    key = body.get("session_id", "").encode() if isinstance(body, dict) else b"k"
                    await producer.send_and_wait(topic, value, key=key, headers=list(headers))

        asyncio.run(produce())

    def read(self, topic: str, wanted: Any, number: int = 1) -> list[Any]:
        """The first records of a topic that `wanted` says yes to, that many."""

        async def consume() -> list[Any]:
            found: list[Any] = []
            consumer = AIOKafkaConsumer(
                topic, bootstrap_servers=self.brokers, auto_offset_reset="earliest"
            )
            async with consumer, asyncio.timeout(60):
                async for record in consumer:
                    if wanted(record):
                        found.append(record)
                        if len(found) == number:
                            return found
            return found

        return asyncio.run(consume())

    def ask(self, body: dict[str, Any], reply_to: str = "flashfeed.replies") -> dict[str, Any]:
        """Send a control message and wait for its reply."""
        word = f"w{next(NUMBERS)}".encode()
        headers = [("reply_to", reply_to.encode()), ("correlation_id", word)]
        self.send("flashfeed.control", body, headers=headers)
        [record] = self.read(reply_to, lambda one: dict(one.headers)["correlation_id"] == word)
        reply: dict[str, Any] = orjson.loads(record.value)
        return reply

    def letters(self, reason: str, number: int = 1) -> list[dict[str, str]]:
        """The headers of the first dead letters of that reason."""

        def wanted(record: Any) -> bool:
            return dict(record.headers)["flashfeed_reason"] == reason.encode()

        found = self.read("flashfeed.dead_letters", wanted, number)
        return [{key: value.decode() for key, value in one.headers} for one in found]

    def state(self, session_id: str) -> Any:
        return self.http.get(f"/v1/sessions/{session_id}/state")

    def until(self, session_id: str, status: int, within_s: float = 30) -> None:
        ends = time.monotonic() + within_s
        while self.state(session_id).status_code != status:
            assert time.monotonic() < ends, f"{session_id} is not {status}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    home: Path = tmp_path_factory.mktemp("control")
    with embedded_broker() as brokers:
        port = free_port()
        config, log = home / "worker.toml", home / "worker.log"
        config.write_text(CONFIG.format(brokers=brokers, port=port))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            yield Desk(brokers, port)


def reading(key: str, value: float = 1.5) -> dict[str, Any]:
    return {"key": key, "sid": "t", "val": value}


@pytest.mark.broker
@pytest.mark.model
def test_a_session_lives_by_messages_alone(desk: Desk) -> None:
    spec = {"type": "iot", "prompt": "Sensors.", "flash": [HOT]}
    made = desk.ask({"op": "create", "session_id": "made", "spec": spec})
    assert (made["error"], made["op"], made["session_id"]) == (None, "create", "made")
    assert (
        desk.ask({"op": "append", "session_id": "made", "text": "It is winter."})["error"] is None
    )
    assert "It is winter." in desk.state("made").json()["context_text"]
    added = desk.ask({"op": "add_query", "session_id": "made", "query": COLD}, "mine")
    standing = desk.http.get("/v1/sessions/made/flash").json()["flash_queries"]
    assert [one["query"] for one in standing] == ["Is it hot?", "Is it cold?"]
    assert added["query_id"] == standing[1]["id"] == 2
    assert added["data_version"] == 1
    removed = desk.ask({"op": "remove_query", "session_id": "made", "query_id": 1})
    assert removed["error"] is None
    standing = desk.http.get("/v1/sessions/made/flash").json()["flash_queries"]
    assert [one["query"] for one in standing] == ["Is it cold?"]
    assert desk.ask({"op": "delete", "session_id": "made"})["error"] is None
    assert desk.state("made").status_code == 404


@pytest.mark.broker
@pytest.mark.model
def test_what_the_owner_refuses_is_said_and_a_dead_letter(desk: Desk) -> None:
    one = {"op": "create", "session_id": "twice", "template": "sensor"}
    assert desk.ask(one)["error"] is None
    refused = desk.ask(one)["error"]
    assert refused["code"] == "already_exists"
    assert "twice" in refused["message"]
    [letter] = desk.letters("session_exists")
    assert letter["flashfeed_topic"] == "flashfeed.control"
    gone = desk.ask({"op": "append", "session_id": "nobody", "text": "x"})
    assert gone["error"]["code"] == "session_not_found"
    # Without a reply_to the letter alone says it, and nothing stops.
    desk.send("flashfeed.control", {"op": "delete", "session_id": "nobody2"})
    found = desk.read("flashfeed.dead_letters", lambda record: record.key == b"nobody2")
    assert dict(found[0].headers)["flashfeed_reason"] == b"session_unknown"


@pytest.mark.broker
@pytest.mark.model
def test_what_is_no_message_is_said_and_a_dead_letter(desk: Desk) -> None:
    refused = desk.ask({"op": "fly", "session_id": "s"})
    assert refused["error"]["code"] == "invalid_record"
    [letter] = desk.letters("decode")
    assert letter["flashfeed_path"] == "$.op"
    spec = {"type": "iot", "text": "no-such"}
    assert (
        "no-such" in desk.ask({"op": "create", "session_id": "s", "spec": spec})["error"]["message"]
    )
    spec = {"type": "iot", "context": 10**9}
    assert "1024" in desk.ask({"op": "create", "session_id": "s", "spec": spec})["error"]["message"]


@pytest.mark.broker
@pytest.mark.model
def test_a_feed_makes_the_sessions_that_it_may(desk: Desk) -> None:
    desk.send("plant", reading("a1"))
    desk.until("plant-a1", 200)
    desk.send("plant", reading("a-secret"), reading("c1"), reading("b1"))
    desk.until("plant-b1", 200)
    denied = desk.letters("session_denied", 2)
    assert all(one["flashfeed_where"] == "feed plant" for one in denied)
    desk.send("plant", reading("a2"), reading("a3"), reading("a1", 9.25))
    full = desk.letters("sessions_full", 2)
    assert {one["flashfeed_where"] for one in full} == {"session plant-a2", "session plant-a3"}
    assert "sessions_max" in full[0]["flashfeed_detail"]
    ends = time.monotonic() + 30
    while "9.25" not in desk.state("plant-a1").json()["context_text"]:  # its neighbours go on
        assert time.monotonic() < ends
        time.sleep(0.1)
    for session in ("plant-a2", "plant-a-secret", "plant-c1"):
        assert desk.state(session).status_code == 404
    assert scrape(desk.port, 'flashfeed_dead_letters_total{reason="sessions_full"}') == 2
    assert scrape(desk.port, 'flashfeed_dead_letters_total{reason="session_denied"}') == 2
    # A place is free again when a session of the feed is gone.
    assert desk.ask({"op": "delete", "session_id": "plant-b1"})["error"] is None
    desk.send("plant", reading("a4"))
    desk.until("plant-a4", 200)


@pytest.mark.broker
@pytest.mark.model
def test_an_idle_session_of_a_feed_ends_and_comes_back(desk: Desk) -> None:
    desk.send("brief", reading("x", 1.5))
    desk.until("brief-x", 200)
    desk.send("flashfeed.control", {"op": "create", "session_id": "kept", "template": "sensor"})
    began = time.monotonic()
    ends = began + 60
    while scrape(desk.port, "flashfeed_idle_sessions_total") == 0:  # asking it would use it
        assert time.monotonic() < ends
        time.sleep(0.2)
    desk.until("brief-x", 404)
    assert time.monotonic() - began > 2
    assert desk.state("kept").status_code == 200  # not a feed's own
    desk.send("brief", reading("x", 2.25))
    desk.until("brief-x", 200)
    text = desk.state("brief-x").json()["context_text"]
    assert "2.25" in text and "1.5" not in text


# -- pure ---------------------------------------------------------------------------


class Raw:
    """A fetched record."""

    def __init__(self, offset: int, body: Any, headers: Any = ()) -> None:
        self.offset = offset
        self.value = body if isinstance(body, bytes | None) else orjson.dumps(body)
        self.key = b"k"
        self.topic = "flashfeed.control"
        self.partition = 1
        self.timestamp = 5
        self.headers = tuple(headers)


RULES = ControlRules({"flashfeed.replies"}, {"t": SessionSpec(type="iot")}.get, 1024)
DELETE = {"op": "delete", "session_id": "s", "tenant": "acme"}


def batch(*raws: Raw) -> Batch:
    records: Any = list(raws)
    return Batch("flashfeed.control", 1, 0, records)


def test_messages_keep_their_order_their_key_and_where_they_came_from() -> None:
    read = read_control(
        batch(Raw(3, {"op": "create", "session_id": "s", "template": "t"}), Raw(4, DELETE)), RULES
    )
    assert [key for key, _ in read.messages] == ["s", session_key("acme", "s")]
    assert decode_message(read.messages[1][1]).asked == Asked("flashfeed.control", 1, 4)
    assert not read.dead_letters and not read.replies


@pytest.mark.parametrize(
    "headers",
    [
        [("reply_to", b"flashfeed.records")],
        [("reply_to", b"\xff")],
        [("reply_to", b"flashfeed.replies"), ("correlation_id", b"x" * 1001)],
    ],
)
def test_a_reply_goes_only_where_it_may(headers: Any) -> None:
    read = read_control(batch(Raw(1, DELETE, headers), Raw(2, DELETE)), RULES)
    [letter] = read.dead_letters
    assert (letter.offset, letter.reason) == (1, "invalid")
    assert not read.replies
    assert len(read.messages) == 1


def test_no_answer_is_larger_than_kafka_takes() -> None:
    bodies = [
        {"op": "delete", "session_id": "s" * 10**6},
        {"op": "delete", "session_id": "s", "tenant": "t" * 10**6},
        {"op": "x" * 10**6, "session_id": "s"},
        {"op": "append", "session_id": "s", "text": "t" * 10**6},
        {"op": "create", "session_id": "s", "template": "t" * 10**6},
        {"op": "create", "session_id": "s", "spec": {"type": "iot", "text": "t" * 10**6}},
        {"op": "create", "session_id": "s", "spec": {"type": "iot", "model": "m" * 10**6}},
    ]
    headers = [("reply_to", b"flashfeed.replies")]
    read = read_control(batch(*(Raw(n, body, headers) for n, body in enumerate(bodies))), RULES)
    assert len(read.dead_letters) == len(read.replies) == len(bodies)
    for write in [*read.replies, *(letter.write("d") for letter in read.dead_letters)]:
        size = len(write.key or b"") + len(write.value or b"")
        assert size + sum(len(key) + len(value) for key, value in write.headers) < 950_000


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff", b"[" * 100_000, b'{"op":"\xff"}'])
def test_no_bytes_stop_it(value: Any) -> None:
    read = read_control(batch(Raw(1, value, [("reply_to", b"flashfeed.replies")])), RULES)
    assert len(read.dead_letters) == len(read.replies) == 1
