"""Spans in memory, as the SDK's own exporter keeps them, and a small OTLP collector."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from flashfeed.agents.tracing import Tracing
from flashfeed.models.config import Config, TracesConfig

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"


def traceparent(number: int = 1, flags: str = "01") -> str:
    """A traceparent of a trace of its own."""
    return f"00-{number:032x}-{number:016x}-{flags}"


class Spans:
    """A Tracing whose spans stay here."""

    def __init__(self, ratio: float = 0.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(Config(), TracesConfig(sample_ratio=ratio), self.exporter)

    def all(self) -> list[ReadableSpan]:
        """What is exported so far, oldest first."""
        self.tracing.provider.force_flush()
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of that name."""
        return [one for one in self.all() if one.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only one of that name."""
        [span] = self.named(name)
        return span


def ids(context: Any) -> tuple[str, str]:
    """Trace and span as hex."""
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether the one is the other's child."""
    return span.parent is not None and ids(span.parent) == ids(parent.context)


@dataclass
class Collector:
    """What came to an OTLP/HTTP endpoint."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            self.resources.append(
                {one.key: one.value.string_value for one in group.resource.attributes}
            )
            for scope in group.scope_spans:
                self.spans += scope.spans

    def of_trace(self, trace_id: str) -> dict[str, Span]:
        """A trace's spans by name; the first, where a message was read again."""
        return {one.name: one for one in reversed(self.spans) if one.trace_id.hex() == trace_id}

    def wait(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Until it holds."""
        ends = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends, sorted(one.name for one in self.spans)
            time.sleep(0.05)


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a free port."""
    collected = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            assert self.headers["content-type"] == "application/x-protobuf"
            collected.headers.append(dict(self.headers.items()))
            collected.take(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collected.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collected
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
