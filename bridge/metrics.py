"""The bridge's own metrics; `/metrics` renders them behind the worker's."""

from __future__ import annotations

from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

Connection: TypeAlias = Literal["http", "websocket"]


class BridgeMetrics:
    """Every series that the bridge exports, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "flashfeed_bridge_requests",
            "Requests and WebSockets that ended, by route and code.",
            ["method", "route", "code"],
            registry=self._registry,
        )
        self._streams = Gauge(
            "flashfeed_bridge_streams",
            "Event streams and WebSockets that are open.",
            ["kind"],
            registry=self._registry,
        )
        self._slow_clients = Counter(
            "flashfeed_bridge_slow_clients_dropped",
            "Connections cut because the client did not read, by kind.",
            ["kind"],
            registry=self._registry,
        )
        for kind in ("http", "websocket"):
            self._slow_clients.labels(kind)
        for kind in ("sse", "websocket"):
            self._streams.labels(kind)

    def answered(self, method: str, route: str, code: int) -> None:
        """A request ended."""
        self._requests.labels(method, route, str(code)).inc()

    def stream(self, kind: str, more: int) -> None:
        """A stream more, or less, is open."""
        self._streams.labels(kind).inc(more)

    def slow_client_dropped(self, kind: Connection) -> None:
        """A client that did not read was cut off."""
        self._slow_clients.labels(kind).inc()

    def render(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self._registry)
