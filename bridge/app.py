"""The bridge as an ASGI app: the gate, the dialects, health and metrics."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from flashfeed.agents.service import Ownership, SessionService
from flashfeed.models.health import Health

from . import (
    anthropic_messages,
    errors,
    events,
    layerscale,
    llama_stack,
    openai,
    outcomes,
    realm_socket,
)
from .caller import Sessions, Tenant
from .cluster import ClusterDoor, cluster_router
from .forward import Forward
from .gate import Gate
from .health import ServiceHealth, checks_response, health_response
from .limits import Allowances
from .metrics import BridgeMetrics
from .openapi_examples import add_examples
from .peers import ClusterPeers
from .request_counts import RequestCounts
from .request_ids import HEADERS as REQUEST_ID_HEADERS
from .request_ids import RequestIds
from .settings import BridgeSettings

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNTRACED = frozenset({"/health", "/healthz", "/livez", "/readyz", "/metrics"})


@dataclass(frozen=True)
class Cluster:
    """What a bridge needs to pass requests on, and to take those that others pass on."""

    ownership: Ownership
    peers: ClusterPeers


def create_app(
    service: SessionService,
    settings: BridgeSettings | None = None,
    cluster: Cluster | None = None,
    health: Health | None = None,
    tracer_provider: Any = None,
) -> FastAPI:
    """The app over a session service. `app.state.closing` is the event that ends its
    streams; whoever serves the app sets it before it stops. Without a cluster no request
    goes from one worker to another. FastAPI itself makes the requests' spans, where there is
    an OpenTelemetry `tracer_provider`."""
    settings = settings or BridgeSettings()
    closing = asyncio.Event()
    app = FastAPI(
        title="flashfeed bridge",
        description="Live sessions over HTTP, server-sent events and WebSocket.",
        # A path with a slash too many is an unknown route, not a redirect that drops a body.
        redirect_slashes=False,
        telemetry=_telemetry(tracer_provider) if tracer_provider is not None else None,
    )
    app.state.closing = closing
    app.state.settings = settings
    app.state.keys = settings.keys
    app.state.allowances = allowances = Allowances(settings.limits, settings.tenant_limits)
    app.state.service = service
    app.state.peers = cluster.peers if cluster is not None else None
    app.state.started_s = time.monotonic()
    app.state.heartbeat_s = settings.heartbeat_s
    app.state.body_bytes_max = settings.body_bytes_max
    app.state.stalled_s = settings.stalled_s
    app.state.metrics = BridgeMetrics()
    errors.install(app)
    body_max = settings.body_bytes_max
    # The last that is added is the first that a request comes to.
    if cluster is not None:
        _pass_on(app, cluster, closing, body_max)
    app.add_middleware(Gate, settings=settings, service=service, allowances=allowances)
    if cluster is not None:
        _take_in(app, cluster, body_max)
    if settings.cors_origins:  # outside of the gate: a preflight has no key, a refusal is read
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After", *REQUEST_ID_HEADERS],
        )
    app.add_middleware(RequestIds)
    app.add_middleware(RequestCounts, metrics=app.state.metrics)
    _add_worker_routes(app, service)
    _add_probes(app, health or ServiceHealth(service), reasons=not settings.keys)
    app.include_router(llama_stack.router)
    app.include_router(layerscale.router)
    app.include_router(anthropic_messages.router)
    app.include_router(openai.router)
    # Llama Stack's clients of 2025 look for OpenAI's routes there.
    app.include_router(openai.router, prefix="/v1/openai", include_in_schema=False)
    app.include_router(events.router)
    app.include_router(outcomes.router)
    app.include_router(realm_socket.router)
    _add_unknown_socket(app)
    add_examples(app)
    return app


def _telemetry(tracer_provider: Any) -> TelemetryConfig:
    """Spans of requests and nothing else. A WebSocket has none, it is open for hours; nor has
    what probes and Prometheus ask for all the time."""
    return {
        "tracer_provider": tracer_provider,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["type"] != "http" or scope["path"] in UNTRACED,
    }


def _pass_on(app: FastAPI, cluster: Cluster, closing: asyncio.Event, body_max: int) -> None:
    app.add_middleware(
        Forward,
        ownership=cluster.ownership,
        peers=cluster.peers,
        closing=closing,
        body_bytes_max=body_max,
    )


def _take_in(app: FastAPI, cluster: Cluster, body_max: int) -> None:
    app.add_middleware(
        ClusterDoor,
        secret=cluster.peers.secret,
        ownership=cluster.ownership,
        body_bytes_max=body_max,
    )
    app.include_router(cluster_router(cluster.ownership))


def _add_worker_routes(app: FastAPI, service: SessionService) -> None:
    @app.get("/health", tags=["server"], responses={503: {"description": "not ready"}})
    @app.get("/healthz", include_in_schema=False)
    async def health() -> Response:
        """Whether the worker serves its sessions."""
        return health_response(service)

    @app.get("/metrics", tags=["server"], response_class=PlainTextResponse)
    async def metrics(sessions: Sessions, tenant: Tenant) -> Response:
        """The worker's metrics, and the bridge's, in Prometheus' text format; to a tenant,
        its own."""
        own: BridgeMetrics = app.state.metrics
        text = await sessions.metrics() + (b"" if tenant else own.render())
        return Response(text, headers={"Content-Type": METRICS_TYPE})


def _add_probes(app: FastAPI, health: Health, *, reasons: bool) -> None:
    @app.get("/livez", tags=["server"], responses={503: {"description": "a restart is due"}})
    async def livez() -> Response:
        """Whether the worker goes on; where it does not, only a restart helps."""
        return checks_response(health.alive(), reasons=reasons)

    @app.get("/readyz", tags=["server"], responses={503: {"description": "not ready"}})
    async def readyz() -> Response:
        """Whether a broker answers, partitions are assigned, their sessions are there, every
        partition is read and the engine runs. The reasons are given where no keys are set."""
        return checks_response(health.ready(), reasons=reasons)


def _add_unknown_socket(app: FastAPI) -> None:
    """Comes last: a WebSocket on no dialect's path is a JSON 404, as over HTTP."""

    @app.websocket("/{path:path}")
    async def unknown(websocket: WebSocket, path: str) -> None:
        message = f"no WebSocket at /{path}"
        refusal = errors.error_response(404, "route_not_found", message)
        await websocket.send_denial_response(refusal)
