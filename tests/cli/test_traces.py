"""A trace from somebody's topic to flash_ready, through a real worker to a real collector."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from flashfeed.cli.embedded_broker import embedded_broker, free_port
from flashfeed.cli.main import main
from flashfeed.cli.worker_process import stop_worker, wait_until_ready, worker_process
from flashfeed.models.event_schemas import event_header_schema

from trace_spans import SAMPLED, SPAN, TRACE, Collector, collector, traceparent

PUSHED = traceparent(0xABC)
CONFIG = """
[kafka]
brokers = "{brokers}"
group = "traced"

[bridge]
port = {port}

[engine]
context_tokens = 1024
sessions_max = 8

[log]
level = "debug"

{traces}

[feeds.rooms]
topics = ["rooms"]
template = "room"
model = "iot"
key = "room"
map = {{ sid = "sensor", val = "value" }}

[templates.room]
type = "iot"

[[templates.room.flash]]
name = "warm"
query = "Is it warm?"
choices = ["yes", "no"]
"""
OUT = ("flashfeed.flash_ready", "flashfeed.data_updated", "flashfeed.answers")
WORDS = ("sesame", "4711.5", "a-secret-token")

pytestmark = [pytest.mark.broker, pytest.mark.model]


async def send(brokers: str, *records: tuple[str, float, tuple[tuple[str, bytes], ...]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    for room, value, headers in records:
        data = orjson.dumps({"room": room, "sensor": "sesame", "value": value})
        await producer.send_and_wait("rooms", data, key=b"sesame", headers=list(headers))
    await producer.stop()


async def read(brokers: str, count: int) -> list[Any]:
    """The first events of the output topics, so many of each topic."""
    consumer = AIOKafkaConsumer(*OUT, bootstrap_servers=brokers, auto_offset_reset="earliest")
    await consumer.start()
    found: list[Any] = []
    try:
        async with asyncio.timeout(60):
            while len(found) < count * len(OUT):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    found += batch
    finally:
        await consumer.stop()
    return found


async def make_topic(brokers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic("rooms", 1, 1)])
    await admin.close()


def push(url: str, **headers: str) -> None:
    """A reading into a session of its own, by HTTP, until it is answered."""
    with httpx.Client(base_url=url, timeout=60) as http:
        body = {"type": "iot", "flash": [{"query": "Hot?", "choices": ["yes", "no"]}]}
        session = http.post("/v1/sessions/init", json=body).json()["session_id"]
        path = f"/v1/sessions/{session}/stream/push"
        data = {"data": [{"sid": "sesame", "val": 4711.5}]}
        http.post(f"{path}?word=sesame", json=data, headers=headers).raise_for_status()
        ends = time.monotonic() + 60
        while not http.get(f"/v1/sessions/{session}/flash").json()["current_data_version"]:
            assert time.monotonic() < ends
            time.sleep(0.05)


class Ran(NamedTuple):
    """What a worker sent, before it was killed and after; what came to the collector."""

    before: list[Any]
    after: list[Any]
    collected: Collector
    log: str

    def headers(self, trace_id: str, topic: str) -> dict[str, str]:
        """The headers of the one event of a trace on a topic."""
        found = [
            {name: data.decode() for name, data in one.headers}
            for one in self.before
            if one.topic == topic
        ]
        [one] = [one for one in found if trace_id in one.get("traceparent", "")]
        return one


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("traced")
    config, log, port = home / "worker.toml", home / "worker.log", free_port()
    with pytest.MonkeyPatch.context() as patch, embedded_broker() as brokers, collector() as to:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=ward,deployment.environment=test")
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=a-secret-token")
        traces = f'[traces]\nendpoint = "{to.url}"\n'
        config.write_text(CONFIG.format(brokers=brokers, port=port, traces=traces))
        asyncio.run(make_topic(brokers))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            sampled = (("traceparent", SAMPLED.encode()), ("tracestate", b"v=1"))
            asyncio.run(send(brokers, ("a", 4711.5, sampled)))
            asyncio.run(read(brokers, 1))
            unsampled = traceparent(7, "00").encode()
            asyncio.run(
                send(
                    brokers,
                    ("b", 1.5, (("traceparent", b"malformed"),)),
                    ("c", 1.5, (("traceparent", unsampled),)),
                )
            )
            push(f"http://127.0.0.1:{port}", traceparent=PUSHED)
            before = asyncio.run(read(brokers, 4))
            for trace_id in (TRACE, PUSHED[3:35]):
                to.wait(lambda held=trace_id: "flashfeed step" in to.of_trace(held))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            after = asyncio.run(read(brokers, 8))
        yield Ran(before, after, to, log.read_text())


def child(span: Span, parent: Span) -> bool:
    return (span.trace_id, span.parent_span_id) == (parent.trace_id, parent.span_id)


def test_one_trace_goes_from_the_topic_to_the_events_headers(ran: Ran) -> None:
    spans = ran.collected.of_trace(TRACE)
    first = spans["process rooms"]
    assert (first.kind, first.parent_span_id.hex()) == (Span.SPAN_KIND_CONSUMER, SPAN)
    way = ["process rooms", "send flashfeed.records", "process flashfeed.records", "flashfeed step"]
    for parent, name in itertools.pairwise(way):
        assert child(spans[name], spans[parent]), name
    assert spans[way[1]].kind == Span.SPAN_KIND_PRODUCER
    step = spans["flashfeed step"]
    of_step = {"flashfeed plan", "flashfeed decode", *(f"send {topic}" for topic in OUT[:2])}
    assert {name for name, span in spans.items() if child(span, step)} == of_step
    assert set(spans) == {*way, *of_step}
    assert not any(span.links for span in spans.values())
    for topic in OUT:
        schema = event_header_schema(
            "data_updated" if topic == OUT[1] else "flash_ready", traced=True
        )
        assert set(ran.headers(TRACE, topic)) == set(schema["properties"])
        sent = spans[f"send {OUT[0] if topic == OUT[2] else topic}"]
        headers = ran.headers(TRACE, topic)
        assert headers["traceparent"] == f"00-{TRACE}-{sent.span_id.hex()}-01"
        assert headers["tracestate"] == sent.trace_state == "v=1"
        assert sent.kind == Span.SPAN_KIND_PRODUCER


def test_the_times_of_a_trace_are_in_their_order(ran: Ran) -> None:
    spans = ran.collected.of_trace(TRACE)
    step, decode = spans["flashfeed step"], spans["flashfeed decode"]
    for span in spans.values():
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    assert spans["flashfeed plan"].end_time_unix_nano == decode.start_time_unix_nano
    assert decode.end_time_unix_nano > decode.start_time_unix_nano
    for name in ("flashfeed plan", "flashfeed decode", f"send {OUT[0]}"):
        assert step.start_time_unix_nano <= spans[name].start_time_unix_nano
        assert spans[name].end_time_unix_nano <= step.end_time_unix_nano
    tokens = {one.key: one.value.int_value for one in decode.attributes}
    assert tokens["flashfeed.tokens.ingest"] > 0 and tokens["flashfeed.questions"] == 1


def test_a_push_goes_on_from_its_request(ran: Ran) -> None:
    trace_id = PUSHED[3:35]
    spans = ran.collected.of_trace(trace_id)
    request = spans["POST /v1/sessions/{session_id}/stream/push"]
    assert (request.kind, request.parent_span_id.hex()) == (Span.SPAN_KIND_SERVER, PUSHED[36:52])
    assert child(spans["process flashfeed.records"], request)
    assert child(spans["flashfeed step"], spans["process flashfeed.records"])
    sent = spans[f"send {OUT[0]}"].span_id.hex()
    assert ran.headers(trace_id, OUT[0])["traceparent"] == f"00-{trace_id}-{sent}-01"


def test_what_is_malformed_or_unsampled_or_not_followed_has_no_trace(ran: Ran) -> None:
    assert {one.trace_id.hex() for one in ran.collected.spans} == {TRACE, PUSHED[3:35]}
    for topic in OUT:
        events = [dict(one.headers) for one in ran.before if one.topic == topic]
        assert sorted("traceparent" in one for one in events) == [False, False, True, True]


def test_after_a_crash_the_same_headers_and_no_span_twice(ran: Ran) -> None:
    def by_id(events: list[Any]) -> dict[tuple[str, bytes], Any]:
        return {(one.topic, dict(one.headers)["ce_id"]): one for one in events}

    again = [one for one in ran.after if one not in ran.before]
    assert len(again) == len(ran.before)
    first = by_id(ran.before)
    for place, one in by_id(again).items():
        assert (one.headers, one.value, one.key) == (
            first[place].headers,
            first[place].value,
            first[place].key,
        )
    ids = [one.span_id for one in ran.collected.spans]
    assert len(ids) == len(set(ids))


def test_the_environment_names_the_service_and_lets_it_in(ran: Ran) -> None:
    for resource in ran.collected.resources:
        assert (resource["service.name"], resource["deployment.environment"]) == ("ward", "test")
        assert resource["service.version"]
    assert {one["authorization"] for one in ran.collected.headers} == {"a-secret-token"}


def test_no_span_and_no_line_of_the_log_tells_what_is_not_theirs_to_tell(ran: Ran) -> None:
    spans = b"".join(one.SerializeToString() for one in ran.collected.spans)
    for word in WORDS:
        assert word.encode() not in spans, word
    assert WORDS[-1] not in ran.log


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def test_without_the_table_a_worker_works_where_the_extra_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config, log, port = tmp_path / "worker.toml", tmp_path / "worker.log", free_port()
    with embedded_broker() as brokers:
        config.write_text(CONFIG.format(brokers=brokers, port=port, traces=""))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            push(f"http://127.0.0.1:{port}", traceparent=PUSHED)
    config.write_text(CONFIG.format(brokers=brokers, port=port, traces="[traces]\n"))
    with worker_process(config, log) as process:
        assert process.wait(60) == 2
    said = log.read_text()
    assert "opentelemetry" in said and "pip install 'flashfeed[traces]'" in said


def test_a_worker_answers_and_stops_while_the_collector_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=a-secret-token")
    config, log, port = tmp_path / "worker.toml", tmp_path / "worker.log", free_port()
    traces = f'[traces]\nendpoint = "http://127.0.0.1:{free_port()}"\n'
    with embedded_broker() as brokers:
        config.write_text(CONFIG.format(brokers=brokers, port=port, traces=traces))
        with worker_process(config, log) as process:
            wait_until_ready(port, process, log)
            push(f"http://127.0.0.1:{port}", traceparent=PUSHED)
            assert stop_worker(process) == 0
    said = log.read_text()
    assert "opentelemetry" in said and WORDS[-1] not in said


def test_an_endpoint_that_is_none_is_told(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text('[traces]\nendpoint = "collector:4318"\nsample_ratio = 1.5\n')
    with pytest.raises(SystemExit) as ended:
        main(["check", "-c", str(config)])
    assert ended.value.code == 2
    assert "traces." in capsys.readouterr().err
