"""A fetched batch's records that are followed, from their topic to `flashfeed.records`.

Each stays in its own trace, however many are packed together: `process TOPIC` is a child of
the span that it was sent in, and of that is `send flashfeed.records` for each message that has
something of it. The message carries the latter's context (models/trace_context.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context

from flashfeed.models.trace_context import Followed

from .kafka_writer import Written
from .transport import Batch

if TYPE_CHECKING:
    from .feeds import ReadBatch
    from .tracing import Tracing


class _Sent(NamedTuple):
    """A message's place among those of its batch, and a span of it being sent."""

    message: int
    span: Span


class FeedTrace:
    """The spans of a batch. `followed` are the contexts of its records by their offsets; None
    begins a trace. A trace that is never `written` leaves nothing."""

    def __init__(
        self,
        tracing: Tracing,
        feed: str,
        batch: Batch,
        followed: Mapping[int, Context | None],
    ) -> None:
        self._tracing = tracing
        self._feed = feed
        self._batch = batch
        self._followed = followed
        self._began_ns = time.time_ns()
        self._records: dict[int, Span] = {}
        self._sent: list[_Sent] = []

    def carry(self, read: ReadBatch) -> None:
        """Give the batch's messages the contexts of what is followed in them."""
        now_ns = time.time_ns()
        for offset, parent in self._followed.items():
            self._records[offset] = self._process(offset, parent)
        for place, (session, message) in enumerate(read.messages):
            traces = []
            for offset in dict.fromkeys(record.offset for record in message.records):
                if offset in self._records:
                    span = self._send(self._records[offset], now_ns)
                    self._sent.append(_Sent(place, span))
                    traces.append(Followed(offset, self._tracing.context_of(span)))
            if traces:
                carried = msgspec.structs.replace(message, traces=tuple(traces))
                read.messages[place] = session, carried

    def written(self, read: ReadBatch, places: Sequence[Written]) -> None:
        """The batch is acknowledged; `places` are those of its messages."""
        for sent in self._sent:
            written = places[sent.message]
            sent.span.set_attribute("messaging.destination.partition.id", str(written.partition))
            sent.span.set_attribute("messaging.kafka.offset", written.offset)
            sent.span.end()
        refused = {letter.offset: letter.reason for letter in read.dead_letters}
        for offset, span in self._records.items():
            if offset in refused:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", refused[offset])
            span.end()

    def _process(self, offset: int, parent: Context | None) -> Span:
        attributes: dict[str, Any] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": self._batch.topic,
            "messaging.destination.partition.id": str(self._batch.partition),
            "messaging.consumer.group.name": self._tracing.group,
            "messaging.kafka.offset": offset,
            "flashfeed.feed": self._feed,
        }
        name = f"process {self._batch.topic}"
        return self._tracing.start(name, SpanKind.CONSUMER, parent, self._began_ns, attributes)

    def _send(self, process: Span, now_ns: int) -> Span:
        topic = self._tracing.records_topic
        attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": topic,
        }
        parent = set_span_in_context(process)
        return self._tracing.start(f"send {topic}", SpanKind.PRODUCER, parent, now_ns, attributes)
