"""The bridge as an ASGI app: the gate, the dialects, health and metrics."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.responses import Response
from starlette.websockets import WebSocket

from flashfeed.agents.service import SessionService

from . import errors, events
from .gate import Gate
from .layerscale_v03 import health_response, layerscale_v03
from .metrics import BridgeMetrics
from .settings import BridgeSettings

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def create_app(service: SessionService, settings: BridgeSettings | None = None) -> FastAPI:
    """The app over a session service. `app.state.closing` is the event that ends its
    streams; whoever serves the app sets it before it stops."""
    settings = settings or BridgeSettings()
    closing = asyncio.Event()
    app = FastAPI(
        title="flashfeed bridge",
        description="Live sessions over HTTP, server-sent events and WebSocket.",
        # A path with a slash too many is an unknown route, not a redirect that drops a body.
        redirect_slashes=False,
    )
    app.state.closing = closing
    app.state.heartbeat_s = settings.heartbeat_s
    app.state.body_bytes_max = settings.body_bytes_max
    app.state.stalled_s = settings.stalled_s
    app.state.metrics = BridgeMetrics()
    errors.install(app)
    app.add_middleware(Gate, settings=settings, service=service)
    _add_worker_routes(app, service)
    app.include_router(layerscale_v03(service, settings.heartbeat_s, closing))
    app.include_router(events.router)
    _add_unknown_socket(app)
    return app


def _add_worker_routes(app: FastAPI, service: SessionService) -> None:
    @app.get("/health", tags=["server"], responses={503: {"description": "not ready"}})
    @app.get("/healthz", include_in_schema=False)
    async def health() -> Response:
        """Whether the worker serves its sessions."""
        return health_response(service)

    @app.get("/metrics", tags=["server"])
    async def metrics() -> Response:
        """The worker's metrics, and the bridge's, in Prometheus' text format."""
        own: BridgeMetrics = app.state.metrics
        text = await service.metrics() + own.render()
        return Response(text, headers={"Content-Type": METRICS_TYPE})


def _add_unknown_socket(app: FastAPI) -> None:
    """Comes last: a WebSocket on no dialect's path is a JSON 404, as over HTTP."""

    @app.websocket("/{path:path}")
    async def unknown(websocket: WebSocket, path: str) -> None:
        message = f"no WebSocket at /{path}"
        refusal = errors.error_response(404, "route_not_found", message)
        await websocket.send_denial_response(refusal)
