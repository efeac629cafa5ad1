"""The bridge as an ASGI app: the gate, the dialects, health and metrics."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.websockets import WebSocket

from flashfeed.agents.service import SessionService

from . import anthropic_messages, errors, events, layerscale, llama_stack, openai
from .caller import Sessions, tenant_of
from .gate import Gate
from .health import health_response
from .limits import Allowances
from .metrics import BridgeMetrics
from .request_ids import HEADERS as REQUEST_ID_HEADERS
from .request_ids import RequestIds
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
    app.state.settings = settings
    app.state.keys = settings.keys
    app.state.allowances = allowances = Allowances(settings.limits, settings.tenant_limits)
    app.state.service = service
    app.state.heartbeat_s = settings.heartbeat_s
    app.state.body_bytes_max = settings.body_bytes_max
    app.state.metrics = BridgeMetrics()
    errors.install(app)
    app.add_middleware(Gate, settings=settings, service=service, allowances=allowances)
    if settings.cors_origins:  # outside of the gate: a preflight has no key, a refusal is read
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After", *REQUEST_ID_HEADERS],
        )
    app.add_middleware(RequestIds)  # the last one added is the first one asked
    _add_worker_routes(app, service)
    app.include_router(llama_stack.router)
    app.include_router(layerscale.router)
    app.include_router(anthropic_messages.router)
    app.include_router(openai.router)
    # Llama Stack's clients of 2025 look for OpenAI's routes there.
    app.include_router(openai.router, prefix="/v1/openai", include_in_schema=False)
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
    async def metrics(request: Request, sessions: Sessions) -> Response:
        """The worker's metrics and the bridge's in Prometheus' text format; to a tenant, its
        own."""
        text = await sessions.metrics()
        if not tenant_of(request):
            own: BridgeMetrics = app.state.metrics
            text += own.render()
        return Response(text, headers={"Content-Type": METRICS_TYPE})


def _add_unknown_socket(app: FastAPI) -> None:
    """Comes last: a WebSocket on no dialect's path is a JSON 404, as over HTTP."""

    @app.websocket("/{path:path}")
    async def unknown(websocket: WebSocket, path: str) -> None:
        message = f"no WebSocket at /{path}"
        refusal = errors.error_response(404, "route_not_found", message)
        await websocket.send_denial_response(refusal)
