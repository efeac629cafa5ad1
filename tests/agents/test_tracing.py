"""Whose trace a record, a step and an event belong to; nothing of it where it is off."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import orjson
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.trace import SpanKind, StatusCode

from flashfeed.agents.feeds import Feed, FeedAgent, FeedTopics
from flashfeed.agents.kafka_writer import Write, Written
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.session_step import Waiting
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.transport import Batch
from flashfeed.cli.logs import JsonLines, show_traces
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.registry import codec
from flashfeed.models.assembly import BarSpec
from flashfeed.models.config import Config
from flashfeed.models.errors import EngineError
from flashfeed.models.feed import MappingSpec
from flashfeed.models.messages import Records, decode_message, encode_message
from flashfeed.models.records import make_record
from flashfeed.models.session import SessionSpec
from flashfeed.models.trace_context import Followed, TraceContext, parent_of, sent_in

from session_bench import Bench
from session_steps import SPEC, apply, reading, spec_of
from trace_spans import SAMPLED, SPAN, TRACE, Spans, ids, is_child, traceparent

MAPPING = MappingSpec(model="iot", key="n", each="all[]?", map={"sid": "n", "val": "v"})


# -- contexts ---------------------------------------------------------------------


def headers(*values: str, state: str = "") -> list[tuple[str, bytes]]:
    made = [("traceparent", one.encode()) for one in values]
    return [*made, ("tracestate", state.encode())] if state else made


def read(held: Iterable[tuple[str, bytes | None]]) -> TraceContext | None:
    """The context in these headers."""
    tracing = Spans().tracing
    context = tracing.read(held)
    return tracing.written(context) if context is not None else None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        SAMPLED[:-1],
        SAMPLED + "-x",
        SAMPLED.upper().replace("00-", "00-", 1),
        SAMPLED.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-02",
        "00-" + "ä" * 32 + f"-{SPAN}-01",
        SAMPLED + " " * 600,
        "\0" * 55,
    ],
)
def test_a_malformed_or_unsampled_traceparent_is_none(value: str) -> None:
    assert read(headers(value)) is None


def test_a_header_without_a_value_is_none() -> None:
    assert read([("traceparent", None), ("x", None)]) is None


def test_the_last_traceparent_counts_and_its_state_goes_with_it() -> None:
    assert read([("x", b"y"), *headers(traceparent(5), SAMPLED, state="a=1,b=2")]) == TraceContext(
        SAMPLED, "a=1,b=2"
    )
    assert read(headers(SAMPLED, "broken")) is None


@pytest.mark.parametrize("state", ["=,", "a=" + "x" * 600, "secret words"])
def test_a_malformed_tracestate_is_left_out_in_silence(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert read(headers(SAMPLED, state=state)) == TraceContext(SAMPLED)
    assert not caplog.records


def test_work_is_part_of_the_one_trace_that_its_causes_are_of() -> None:
    one, other = TraceContext(traceparent(1)), TraceContext(traceparent(2))
    sibling = TraceContext(f"00-{1:032x}-{9:016x}-01")
    assert parent_of([]) is None
    assert parent_of([one]) == one
    assert parent_of([one, sibling]) == one
    assert parent_of([one, sibling, other]) is None


def test_the_span_that_events_are_sent_in_is_made_of_the_steps() -> None:
    step = TraceContext(SAMPLED, "a=1")
    sent = sent_in(step, "flash")
    assert sent == sent_in(step, "flash") != sent_in(step, "updated")
    assert (sent.trace_id, sent.tracestate) == (TRACE, "a=1")
    assert sent.span_id != SPAN
    assert read(headers(sent.traceparent, state="a=1")) == sent


# -- the feed ---------------------------------------------------------------------


class Raw(NamedTuple):
    offset: int
    value: bytes
    headers: Iterable[tuple[str, bytes]] = ()
    key: bytes | None = None
    topic: str = "sensors"
    partition: int = 3
    timestamp: int = 1_700_000_000_000


class Writer:
    """Where a feed writes: everything has a place at once."""

    def __init__(self) -> None:
        self.writes: list[Write] = []

    async def write(self, writes: Iterable[Write]) -> list[Written]:
        first = len(self.writes)
        self.writes += writes
        return [Written(1, place) for place in range(first, len(self.writes))]


async def feed(spans: Spans | None, *raws: Raw) -> list[tuple[str, Any]]:
    """The messages that a feed's agent makes of a batch, by session."""
    config, writer, metrics = Config(), Writer(), Metrics()
    supplies = Supplies(config, metrics)
    made = Feed(
        "f", "t", "iot", codec("json", {}, supplies.outside), Mapping(MAPPING), lambda key: key
    )
    anything: Any = writer
    agent = FeedAgent(
        made,
        anything,
        supplies,
        FeedTopics("flashfeed.records", "letters"),
        metrics,
        lambda error: None,
        spans.tracing if spans is not None else None,
    )
    records: list[Any] = list(raws)
    acknowledged: list[bool] = []
    await agent.take(Batch("sensors", 3, 0, records), lambda: acknowledged.append(True))
    assert acknowledged
    return [
        ((one.key or b"").decode(), decode_message(one.value))
        for one in writer.writes
        if one.topic == "flashfeed.records"
    ]


def value(name: str = "a", number: float = 1.5) -> bytes:
    return orjson.dumps({"n": name, "v": number})


async def test_each_followed_record_stays_in_its_own_trace_however_it_is_packed() -> None:
    spans = Spans()
    [(_, message)] = await feed(
        spans,
        Raw(10, value(), headers(SAMPLED)),
        Raw(11, value(), headers("broken")),
        Raw(12, value()),
        Raw(13, value(), headers(traceparent(7), state="v=1")),
    )
    assert [one.offset for one in message.records] == [10, 11, 12, 13]
    assert [one.offset for one in message.traces] == [10, 13]
    for followed, trace_id in zip(message.traces, [TRACE, f"{7:032x}"], strict=True):
        mine = [one for one in spans.all() if ids(one.context)[0] == trace_id]
        process, send = sorted(mine, key=lambda one: one.name)
        assert (process.name, process.kind) == ("process sensors", SpanKind.CONSUMER)
        assert (send.name, send.kind) == ("send flashfeed.records", SpanKind.PRODUCER)
        assert is_child(send, process)
        assert (followed.context.trace_id, followed.context.span_id) == ids(send.context)
        assert process.parent is not None and process.parent.is_remote
    assert message.traces[1].context.tracestate == "v=1"
    assert len(spans.all()) == 4


async def test_a_record_of_two_sessions_is_sent_twice_in_its_trace() -> None:
    spans = Spans()
    both = orjson.dumps({"all": [{"n": "a", "v": 1}, {"n": "b", "v": 2}, {"n": "a", "v": 3}]})
    made = await feed(spans, Raw(1, both, headers(SAMPLED)))
    assert [session for session, _ in made] == ["a", "b"]
    assert {len(message.traces) for _, message in made} == {1}
    assert len({message.traces[0].context for _, message in made}) == 2
    assert {ids(one.context)[0] for one in spans.all()} == {TRACE}
    sent = spans.named("send flashfeed.records")
    assert [(one.attributes or {})["messaging.kafka.offset"] for one in sent] == [0, 1]


async def test_a_dead_letters_span_says_why_and_quotes_nothing() -> None:
    spans = Spans()
    assert await feed(spans, Raw(1, b"{sesame", headers(SAMPLED))) == []
    [span] = spans.all()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "decode"
    assert "sesame" not in span.to_json()


async def test_what_brings_no_context_is_followed_by_the_ratio_alone() -> None:
    raws = [Raw(n, value()) for n in range(400)]
    assert await feed(None, *raws) == await feed(Spans(), *raws)
    spans = Spans(ratio=0.25)
    messages = await feed(spans, *raws)
    followed = sum(len(message.traces) for _, message in messages)
    assert 50 < followed < 150  # a hundred, give or take six standard deviations
    assert len(spans.named("process sensors")) == followed
    assert all(one.parent is None for one in spans.named("process sensors"))


async def test_off_a_message_has_the_bytes_that_it_always_had() -> None:
    [(_, message)] = await feed(None, Raw(1, value(), headers(SAMPLED)))
    assert message.traces == ()
    assert b"trace" not in encode_message(message)


# -- the step ---------------------------------------------------------------------


def followed(waiting: Waiting, *traces: str) -> Waiting:
    """The message with its records followed, one after the other."""
    assert isinstance(waiting.message, Records)
    offsets = dict.fromkeys(one.offset for one in waiting.message.records)
    made = tuple(
        Followed(offset, TraceContext(one))
        for offset, one in zip(offsets, traces, strict=False)
        if one
    )
    return waiting._replace(message=msgspec.structs.replace(waiting.message, traces=made))


def bench_of(spans: Spans, spec: SessionSpec = SPEC) -> Bench:
    bench = Bench(spec)
    bench.tracing = spans.tracing
    bench.owner = bench.make_owner()
    return bench


def out_headers(bench: Bench, topic: str) -> list[dict[str, str]]:
    """The headers of the events that went to a topic."""
    events = [one for one in bench.steps.events if one.topic == topic]
    return [{name: data.decode() for name, data in one.headers} for one in events]


async def test_a_record_that_is_followed_alone_keeps_its_trace_to_its_events() -> None:
    spans = Spans()
    bench = bench_of(spans)
    await bench.apply(followed(reading(0, 1.5), SAMPLED))
    assert {ids(one.context)[0] for one in spans.all()} == {TRACE}
    process, step = spans.one("process flashfeed.records"), spans.one("flashfeed step")
    assert process.parent is not None and ids(process.parent) == (TRACE, SPAN)
    assert is_child(step, process) and not step.links and not process.links
    for name in ("flashfeed plan", "flashfeed decode", "send flash", "send updated"):
        assert is_child(spans.one(name), step), name
    for topic in ("flash", "answers", "updated"):
        [found] = out_headers(bench, topic)
        sent = spans.one("send flash" if topic == "answers" else f"send {topic}")
        assert found["traceparent"].split("-")[1:3] == [*ids(sent.context)]
        assert sent.kind is SpanKind.PRODUCER


async def test_a_step_of_several_traces_is_one_of_its_own_linked_both_ways() -> None:
    spans = Spans()
    bench = bench_of(spans)
    await bench.apply(followed(reading(0, 1, 2, 3), traceparent(1), "", traceparent(2)))
    step = spans.one("flashfeed step")
    processes = spans.named("process flashfeed.records")
    assert step.parent is None
    assert {ids(one.context) for one in step.links} == {ids(one.context) for one in processes}
    assert {ids(one.context)[0] for one in processes} == {f"{n:032x}" for n in (1, 2)}
    for process in processes:
        assert [ids(one.context) for one in process.links] == [ids(step.context)]
    [found] = out_headers(bench, "updated")
    assert found["traceparent"].split("-")[1] == ids(step.context)[0]


async def test_a_step_of_one_trace_stays_in_it() -> None:
    spans = Spans()
    bench = bench_of(spans)
    await bench.apply(followed(reading(0, 1, 2), SAMPLED, f"00-{TRACE}-{4:016x}-01"))
    step = spans.one("flashfeed step")
    first, second = spans.named("process flashfeed.records")
    assert is_child(step, first)
    assert [ids(one.context) for one in step.links] == [ids(second.context)]
    assert {ids(one.context)[0] for one in spans.all()} == {TRACE}


async def test_what_is_not_followed_leaves_no_span_and_no_header() -> None:
    spans = Spans()
    bench = bench_of(spans)
    await bench.apply(followed(reading(0, 1), SAMPLED), reading(1, 2))
    assert len(spans.named("flashfeed step")) == 1
    assert ["traceparent" in one for one in out_headers(bench, "flash")] == [True, False]
    assert bench.owner.state is not None and bench.owner.state.head.trace is None


async def test_a_repeat_is_no_cause() -> None:
    spans = Spans()
    bench = bench_of(spans)
    again = followed(reading(1, 1, 2, at=0), SAMPLED, traceparent(2))
    await bench.apply(followed(reading(0, 1), SAMPLED), again)
    second = spans.named("flashfeed step")[1]
    assert ids(second.context)[0] == f"{2:032x}"
    applied = [
        (one.attributes or {})["flashfeed.applied"]
        for one in spans.named("process flashfeed.records")
    ]
    assert applied == [True, False, True]


@pytest.mark.parametrize("tracing", [True, False])
async def test_a_version_that_is_published_again_says_the_same(tracing: bool) -> None:
    spans = Spans()
    bench = bench_of(spans)
    state = TraceContext(SAMPLED, "v=1")
    waiting = followed(reading(0, 1.5), SAMPLED)
    message = msgspec.structs.replace(waiting.message, traces=(Followed(0, state),))
    await bench.apply(waiting._replace(message=message))
    before, count = list(bench.steps.events), len(spans.all())
    bench.steps.events.clear()
    bench.tracing = spans.tracing if tracing else None
    await bench.come_back()
    assert bench.steps.events == before
    assert dict(before[0].headers)["tracestate"] == b"v=1"
    assert len(spans.all()) == count  # no span is there twice


async def test_a_step_that_fails_says_so() -> None:
    spans = Spans()
    bench = bench_of(spans)
    bench.engine.errors.extend(EngineError("no") for _ in range(3))
    await bench.apply(followed(reading(0, 1.5), SAMPLED))
    for name in ("flashfeed step", "process flashfeed.records"):
        span = spans.one(name)
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == EngineError.reason
    assert not spans.named("send updated")


async def test_a_line_of_the_log_has_the_ids_of_the_step_it_is_written_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans, stream = Spans(), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    show_traces(spans.tracing.current)
    bench = bench_of(spans)
    bench.engine.errors.extend(EngineError("no") for _ in range(3))
    await bench.apply(followed(reading(0, 1.5), SAMPLED))
    logging.getLogger("here").error("outside")
    lines = [orjson.loads(one) for one in stream.getvalue().splitlines()]
    # Of this alone: the collector may find what tests before it left, and asyncio tells.
    inside = [one for one in lines if one["logger"].startswith("flashfeed.")]
    [outside] = [one for one in lines if one["logger"] == "here"]
    step = spans.one("flashfeed step")
    assert len(inside) == 3
    assert {(one["trace_id"], one["span_id"]) for one in inside} == {ids(step.context)}
    assert not {"trace_id", "span_id"} & outside.keys()


async def test_a_step_that_is_done_in_parts_has_no_span_of_the_whole() -> None:
    spans = Spans()
    bench = bench_of(spans, spec_of("exact", 64))
    bench.engine.room = 90
    big = [followed(reading(n, *range(100, 106), at=10 * n), traceparent(n + 1)) for n in range(4)]
    for one in big:
        bench.owner.put(one)
    await bench.apply(reading(9, 1, at=900))
    names = [one.name for one in spans.all()]
    assert names.count("process flashfeed.records") == len(big)
    steps = spans.named("flashfeed step")
    held = {ids(one.context) for one in steps}
    assert {ids(one.parent) for one in spans.named("flashfeed plan") if one.parent} == held


def test_a_bar_is_caused_by_the_trades_in_it() -> None:
    spec = SessionSpec(type="ohlcv", flash=SPEC.flash, bars=BarSpec(size="1m"))

    def trade(offset: int, at: float, trace: str = "") -> Waiting:
        raw = reading(offset, 1.0)
        assert isinstance(raw.message, Records)
        fields = {"p": 10.0, "q": 1.0, "timestamp": at}
        make_record("trade", fields)
        [record] = raw.message.records
        record = msgspec.structs.replace(record, fields=fields)
        message = msgspec.structs.replace(raw.message, type="trade", records=(record,))
        return followed(raw._replace(message=message), trace)

    def find(_: str) -> SessionSpec:
        return spec

    state, [first] = apply(None, trade(0, 0.0, traceparent(1)), find=find)
    assert state is not None and not first.moves
    assert [one.traceparent for one in state.head.assembly.traces] == [traceparent(1)]
    state, [second] = apply(state, trade(1, 61.0), find=find)
    assert state is not None and second.moves
    assert [one.traceparent for one in second.causes] == [traceparent(1)]
    assert state.head.assembly.traces == ()


# -- all spans --------------------------------------------------------------------


async def test_attributes_are_those_of_the_conventions_and_tell_nothing() -> None:
    spans = Spans()
    [(_, message)] = await feed(spans, Raw(10, value("sesame", 4711.5), headers(SAMPLED)))
    bench = bench_of(spans)
    await bench.apply(Waiting(0, message))
    known = {
        getattr(messaging_attributes, name) for name in vars(messaging_attributes) if name.isupper()
    }
    for span in spans.all():
        for name in span.attributes or {}:
            assert name in known or name.startswith(("flashfeed.", "error.")), name
        assert _operation(span)
        assert "sesame" not in span.to_json() and "4711" not in span.to_json()


def _operation(span: ReadableSpan) -> bool:
    """Whether a messaging span's name and kind are the convention's."""
    held = span.attributes or {}
    if "messaging.system" not in held:
        return span.kind is SpanKind.INTERNAL
    kind = {"process": SpanKind.CONSUMER, "send": SpanKind.PRODUCER}
    name = f"{held['messaging.operation.name']} {held['messaging.destination.name']}"
    return span.name == name and span.kind is kind[str(held["messaging.operation.type"])]


OFF = """
import sys
from pathlib import Path
from flashfeed.cli.settings import load
from flashfeed.cli.worker import tracing_of
import flashfeed.bridge.app

assert tracing_of(load(Path(sys.argv[1]))) is None
ours = ("opentelemetry.sdk", "opentelemetry.exporter", "flashfeed.agents.tracing")
print([name for name in sys.modules if name.startswith(ours)])
"""


@pytest.mark.parametrize("table", ["", "[traces]\nenabled = false\n"])
def test_off_nothing_of_it_is_imported(table: str, tmp_path: Any) -> None:
    config = tmp_path / "off.toml"
    config.write_text(table)
    command = [sys.executable, "-c", OFF, str(config)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
