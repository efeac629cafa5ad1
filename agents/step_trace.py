"""A session's step, as the traces of its records see it.

    process flashfeed.records     a record's wait and its step, in the record's own trace
    └ flashfeed step              one for all: a child where all its causes are of one trace,
      ├ flashfeed plan            else a trace of its own, linked to each cause and each to it
      ├ flashfeed decode
      ├ send flashfeed.flash_ready
      └ send flashfeed.data_updated

The context of the step stands in the session's head before anything of it is written, and the
ids of the two sends are made of it: a version that is published again says the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context

from flashfeed.engine import Update
from flashfeed.models.messages import Records
from flashfeed.models.trace_context import TraceContext, parent_of, sent_in

from .session_step import Step, Waiting

if TYPE_CHECKING:
    from .tracing import Tracing


class _Process(NamedTuple):
    """A followed record's own span at its owner, and which record it is of."""

    span: Span
    message: Records
    offset: int


class StepTrace:
    """The spans of one step, whose own is active inside `with`. A trace that is never
    `published` leaves nothing: what it would have followed is taken again, by itself."""

    def __init__(self, tracing: Tracing, partition: int) -> None:
        self._tracing = tracing
        self._topic = tracing.records_topic
        self._partition = partition
        self._began_ns = time.time_ns()
        self._planned_ns = self._decoded_ns = self._began_ns
        self._processes: dict[TraceContext, _Process] = {}
        self._step: Span | None = None
        self._token: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            otel_context.detach(self._token)
            self._token = None

    @property
    def context(self) -> TraceContext | None:
        """What the step's events are caused by; None where nothing in it is followed."""
        return self._tracing.context_of(self._step) if self._step is not None else None

    def planned(self, step: Step) -> None:
        """The step's causes are known: its span is active from now on."""
        self._planned_ns = time.time_ns()
        for one in step.messages:
            if isinstance(one.message, Records):
                for followed in one.message.traces:
                    span = self._process(one, followed.context)
                    self._processes[followed.context] = _Process(span, one.message, followed.offset)
        causes = [self._cause(one) for one in step.causes]
        if not causes:
            return
        parent = parent_of(causes)
        self._step = self._tracing.start(
            "flashfeed step",
            SpanKind.INTERNAL,
            self._tracing.spanned(parent) if parent is not None else None,
            self._began_ns,
            {"flashfeed.type": step.head.spec.type, "flashfeed.messages": len(step.messages)},
            causes[1:] if parent is not None else causes,
        )
        own = self._step.get_span_context()
        for cause in step.causes:
            process = self._processes.get(cause)
            if process is not None and process.span.get_span_context().trace_id != own.trace_id:
                process.span.add_link(own)
        self._token = otel_context.attach(set_span_in_context(self._step))

    def decoded(self) -> None:
        """The engine is done."""
        self._decoded_ns = time.time_ns()

    def published(self, step: Step, update: Update, topics: Iterable[str]) -> None:
        """The step is durable, its events (one for each of `topics`) are out."""
        refused = {(id(one.message), one.record.offset): one.reason for one in step.refused}
        if self._step is not None:
            self._children(self._step, step, update, topics)
            if step.refused and not step.moves:
                _failed(self._step, step.refused[0].reason)
            self._step.set_attribute("flashfeed.records", step.taken)
            self._step.set_attribute("flashfeed.data_version", step.head.version)
            self._step.end()
        for cause, process in self._processes.items():
            process.span.set_attribute("flashfeed.applied", cause in step.causes)
            reason = refused.get((id(process.message), process.offset))
            if reason is not None:
                _failed(process.span, reason)
            process.span.end()

    def _cause(self, context: TraceContext) -> TraceContext:
        process = self._processes.get(context)
        return self._tracing.context_of(process.span) if process is not None else context

    def _process(self, one: Waiting, context: TraceContext) -> Span:
        attributes: dict[str, Any] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": self._topic,
            "messaging.destination.partition.id": str(self._partition),
            "messaging.consumer.group.name": self._tracing.group,
            "messaging.kafka.offset": one.offset,
        }
        parent = self._tracing.spanned(context)
        began_ns = min(one.arrived_ns or self._began_ns, self._began_ns)
        name = f"process {self._topic}"
        return self._tracing.start(name, SpanKind.CONSUMER, parent, began_ns, attributes)

    def _children(self, parent: Span, step: Step, update: Update, topics: Iterable[str]) -> None:
        within = set_span_in_context(parent)
        start, now_ns = self._tracing.start, time.time_ns()
        start("flashfeed plan", SpanKind.INTERNAL, within, self._began_ns, {}).end(self._planned_ns)
        tokens = {
            "flashfeed.tokens.ingest": update.ingest_tokens,
            "flashfeed.tokens.questions": update.question_tokens,
            "flashfeed.tokens.generated": update.generated_tokens,
            "flashfeed.questions": len(step.queries),
            "flashfeed.decode_seconds": update.decode_s,
        }
        start("flashfeed decode", SpanKind.INTERNAL, within, self._planned_ns, tokens).end(
            self._decoded_ns
        )
        for topic, count in Counter(topics).items():
            attributes: dict[str, Any] = {
                "messaging.system": "kafka",
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": topic,
            }
            if count > 1:
                attributes["messaging.batch.message_count"] = count
            span_id = sent_in(self._tracing.context_of(parent), topic).span_id
            name = f"send {topic}"
            start(
                name, SpanKind.PRODUCER, within, self._decoded_ns, attributes, span_id=span_id
            ).end(now_ns)


def _failed(span: Span, reason: str) -> None:
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", reason)
