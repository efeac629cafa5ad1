"""The bridge's own metrics; `/metrics` renders them behind the worker's."""

from __future__ import annotations

from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, generate_latest

Connection: TypeAlias = Literal["http", "websocket"]


class BridgeMetrics:
    """Every series that the bridge exports, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._slow_clients = Counter(
            "flashfeed_bridge_slow_clients_dropped",
            "Connections cut because the client did not read, by kind.",
            ["kind"],
            registry=self._registry,
        )
        for kind in ("http", "websocket"):
            self._slow_clients.labels(kind)

    def slow_client_dropped(self, kind: Connection) -> None:
        """A client that did not read was cut off."""
        self._slow_clients.labels(kind).inc()

    def render(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self._registry)
