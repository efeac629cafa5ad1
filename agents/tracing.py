"""Traces of records, as OpenTelemetry has them: the one door to its SDK.

Imported only where the configuration has `[traces]`; without it nobody holds a `Tracing`, and
what could be followed costs one look at None. Spans are exported by a thread of the SDK's own,
over OTLP and HTTP; what its queue has no room for is dropped there (invariant 7). Names and
attributes are those of the semantic conventions for messaging. No attribute is made of what a
record holds, its key and the session that is named after it included.

feed_trace.py follows a record from its topic to `flashfeed.records`, step_trace.py from there
to the events of its version.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flashfeed.models.config import Config, TracesConfig
from flashfeed.models.messages import Records
from flashfeed.models.trace_context import TRACEPARENT, TRACESTATE, TraceContext

from .feed_trace import FeedTrace
from .session_step import Waiting
from .step_trace import StepTrace
from .transport import Batch

HEADER_BYTES_MAX: Final = 512
"""The length to which a tracestate has to be passed on (W3C); what is longer is left out."""
FLAGS_AT: Final = 54
"""Where a traceparent has the digit with the sampled bit; most are read no further."""
SAMPLED: Final = frozenset(digit.encode() for digit in "13579bdf")
CLOSE_MAX_S: Final = 3.0
"""A collector that is away would hold back the worker's end for OTEL_EXPORTER_OTLP_TIMEOUT."""
TRACES_PATH: Final = "/v1/traces"

_QUOTING: Final = ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext")
"""Loggers that would repeat a record's malformed headers."""

Headers = Iterable[tuple[str, bytes | None]]


class Tracing:
    """What a worker makes spans with. `exporter` takes them where the tests look."""

    def __init__(
        self, config: Config, traces: TracesConfig, exporter: SpanExporter | None = None
    ) -> None:
        for name in _QUOTING:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.group: Final = config.kafka.group
        self.records_topic: Final = config.topics.records
        self._ratio = traces.sample_ratio
        self._ids = _ChosenIds()
        self.provider: Final = TracerProvider(
            sampler=ParentBased(_Root(traces.sample_ratio)),
            resource=_resource(config.kafka.group),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(_Batches(exporter or _exporter(traces)))
        self._tracer = self.provider.get_tracer("flashfeed", version("flashfeed"))
        self._w3c = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Export what waits, as far as the collector takes it soon, and stop."""
        closing = threading.Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_MAX_S)

    # -- contexts -------------------------------------------------------------------

    def read(self, headers: Headers) -> Context | None:
        """The sampled context in a record's headers; None where there is none, or none that
        can be read. Of several headers of that name the last counts."""
        found = state = None
        for name, value in headers:
            if name == TRACEPARENT:
                found = value
            elif name == TRACESTATE:
                state = value
        if not found or found[FLAGS_AT : FLAGS_AT + 1] not in SAMPLED:
            return None
        context = self.spanned(TraceContext(_text(found), _text(state)))
        span = trace.get_current_span(context).get_span_context()
        return context if span.is_valid and span.trace_flags.sampled else None

    def spanned(self, context: TraceContext) -> Context:
        """A context as OpenTelemetry has it, to be a span's parent."""
        carrier = {TRACEPARENT: context.traceparent}
        if context.tracestate:
            carrier[TRACESTATE] = context.tracestate
        return self._w3c.extract(carrier, Context())

    def context_of(self, span: trace.Span) -> TraceContext:
        """The context that a span gives to what it causes."""
        return self.written(trace.set_span_in_context(span, Context()))

    def current(self) -> TraceContext | None:
        """The context of the span that is active here, where it is sampled."""
        span = trace.get_current_span()
        return self.context_of(span) if span.get_span_context().trace_flags.sampled else None

    def written(self, context: Context) -> TraceContext:
        """OpenTelemetry's context as it travels."""
        carrier: dict[str, str] = {}
        self._w3c.inject(carrier, context)
        return TraceContext(carrier[TRACEPARENT], carrier.get(TRACESTATE, ""))

    # -- spans ----------------------------------------------------------------------

    def begins(self) -> bool:
        """Whether to follow a record that brings no context."""
        return self._ratio > 0 and random.random() < self._ratio

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: Context | None,
        start_ns: int,
        attributes: dict[str, Any],
        links: Sequence[TraceContext] = (),
        span_id: str = "",
    ) -> trace.Span:
        """Begin a span at a time that is past already; without a parent it is a trace's
        first. `span_id` is chosen where not empty."""
        self._ids.chosen = int(span_id, 16) if span_id else 0
        linked = [
            Link(trace.get_current_span(self.spanned(one)).get_span_context()) for one in links
        ]
        return self._tracer.start_span(
            name,
            parent if parent is not None else Context(),
            kind,
            attributes,
            linked,
            start_time=start_ns,
        )

    def feed(self, name: str, batch: Batch) -> FeedTrace | None:
        """Follow a fetched batch; None where nothing in it is followed."""
        followed: dict[int, Context | None] = {}
        for raw in batch.records:
            context = self.read(raw.headers) if raw.headers else None
            if context is not None or self.begins():
                followed[int(raw.offset)] = context
        return FeedTrace(self, name, batch, followed) if followed else None

    def step(self, partition: int, waiting: Iterable[Waiting]) -> StepTrace | None:
        """Follow a session's step over these messages; None where nothing in it is followed."""
        if any(isinstance(one.message, Records) and one.message.traces for one in waiting):
            return StepTrace(self, partition)
        return None


class _ChosenIds(RandomIdGenerator):
    """Random ids, but for a span whose id is `chosen` (0: none is)."""

    chosen = 0

    def generate_span_id(self) -> int:
        """The chosen id, once."""
        chosen, self.chosen = self.chosen, 0
        return chosen or super().generate_span_id()


class _Root(Sampler):
    """Whether a trace that begins here is sampled: always where its first span is linked to
    sampled ones or begun on purpose, else by a ratio."""

    def __init__(self, ratio: float) -> None:
        self._by_ratio = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        """As the SDK asks."""
        ours = kind is not SpanKind.SERVER
        chosen = ALWAYS_ON if ours else self._by_ratio
        return chosen.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        """For the SDK's own messages."""
        return f"FlashfeedRoot{{{self._by_ratio.get_description()}}}"


class _Batches(BatchSpanProcessor):
    """The SDK's queue to the exporter. What clients write behind a path stays out."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """As the SDK calls it."""
        if span.attributes and "url.query" in span.attributes:
            span.set_attribute("url.query", "REDACTED")
        super().on_start(span, parent_context)


def _exporter(traces: TracesConfig) -> SpanExporter:
    if not traces.endpoint:
        return OTLPSpanExporter()  # by OTEL_EXPORTER_OTLP_*
    return OTLPSpanExporter(endpoint=traces.endpoint.rstrip("/") + TRACES_PATH)


def _resource(group: str) -> Resource:
    """What makes the spans: named by OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, or
    after the worker's group."""
    ours = {
        SERVICE_NAME: group,
        "service.version": version("flashfeed"),
        "service.instance.id": f"{os.uname().nodename}-{os.getpid()}",
    }
    named = OTELResourceDetector().detect().attributes
    return Resource.create({**ours, **named})


def _text(value: bytes | None) -> str:
    """A header as text; "" for what is too long to be one."""
    if not value or len(value) > HEADER_BYTES_MAX:
        return ""
    return value.decode("latin-1")
