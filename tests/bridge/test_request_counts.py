"""Requests are counted by what they were answered with, and streams while they are open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flashfeed.bridge.metrics import BridgeMetrics
from flashfeed.bridge.request_counts import RequestCounts

HTTP = {"type": "http", "method": "GET"}
WEBSOCKET = {"type": "websocket"}
SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]


def start(status: int, headers: Sequence[Any] = ()) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def samples(metrics: BridgeMetrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(value for _, value in sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for one in family.samples
        if one.name == name and one.value
    }


class Served(NamedTuple):
    """The counts after a request, and the streams that were open before its end."""

    metrics: BridgeMetrics
    streams: dict[tuple[str, ...], float]


async def served(scope: dict[str, Any], *messages: dict[str, Any]) -> Served:
    """A request that an app answers so."""
    metrics = BridgeMetrics()
    streams: dict[tuple[str, ...], float] = {}

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for one in messages:
            await send(one)
        streams.update(samples(metrics, "flashfeed_bridge_streams"))

    await RequestCounts(app, metrics)(scope, nothing, nothing)
    return Served(metrics, streams)


async def nothing(*_: Any) -> Any:
    """Receives, and sends, nothing."""


@pytest.mark.parametrize(
    ("scope", "messages", "labels"),
    [
        (HTTP, [start(200)], ("200", "GET", "none")),
        (HTTP, [start(404)], ("404", "GET", "none")),
        (HTTP, [], ("499", "GET", "none")),
        ({**HTTP, "method": "BREW"}, [start(405)], ("405", "other", "none")),
        (WEBSOCKET, [{"type": "websocket.accept"}], ("101", "WEBSOCKET", "none")),
        (WEBSOCKET, [{"type": "websocket.close"}], ("403", "WEBSOCKET", "none")),
        (
            WEBSOCKET,
            [{**start(401), "type": "websocket.http.response.start"}],
            ("401", "WEBSOCKET", "none"),
        ),
        (
            WEBSOCKET,
            [{"type": "websocket.accept"}, {"type": "websocket.close"}],
            ("101", "WEBSOCKET", "none"),
        ),
    ],
)
async def test_a_request_counts_once_by_its_first_answer(
    scope: dict[str, Any], messages: list[Any], labels: tuple[str, ...]
) -> None:
    metrics, _ = await served(scope, *messages)
    assert samples(metrics, "flashfeed_bridge_requests_total") == {labels: 1}


@pytest.mark.parametrize(
    ("scope", "message", "kind"),
    [(HTTP, start(200, SSE), "sse"), (WEBSOCKET, {"type": "websocket.accept"}, "websocket")],
)
async def test_a_stream_counts_while_it_is_open(
    scope: dict[str, Any], message: dict[str, Any], kind: str
) -> None:
    metrics, streams = await served(scope, message)
    assert streams == {(kind,): 1}
    assert samples(metrics, "flashfeed_bridge_streams") == {}


async def test_what_fails_is_a_500_and_no_stream_stays_open() -> None:
    metrics = BridgeMetrics()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await RequestCounts(app, metrics)(HTTP, nothing, nothing)
    requests = samples(metrics, "flashfeed_bridge_requests_total")
    assert requests == {("500", "GET", "none"): 1}
