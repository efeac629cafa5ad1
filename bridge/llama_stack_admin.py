"""What a Llama Stack client asks of the server itself: its routes, providers and tools.

All of it is what runs. flashfeed has no tools, tool groups and shields of its own, and
says so with empty lists; what it has nothing of at all (datasets, vector stores, safety,
...) is an unknown route.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from flashfeed.agents.service import SessionService
from flashfeed.models.errors import FlashfeedError, ModelUnknown
from flashfeed.models.views import ModelView

from .bounds import ModelName
from .caller import Sessions
from .llama_stack_requests import Body, shown
from .llama_stack_words import Words
from .model_body import PROVIDER, model_body

VERSION: Final = importlib.metadata.version("flashfeed")
PROVIDER_TYPE: Final = "inline::flashfeed"
APIS: Final = ("inference", "agents", "inspect")

router = APIRouter(tags=["llama stack"])

ApiFilter = Annotated[Literal["v1", "v1alpha", "v1beta", "deprecated"] | None, Query()]


class ProviderUnknown(FlashfeedError):
    """No provider of that id."""

    status = 404
    code = "provider_not_found"


class ModelsConfigured(FlashfeedError):
    """Which models there are is for the worker's configuration to say."""

    status = 403
    code = "models_are_configured"


class ModelBody(Body):
    """A model to register."""

    model_config = shown({"model_id": "packaged"})

    model_id: ModelName


@router.get("/v1/version")
@router.get("/v1alpha/admin/version", include_in_schema=False)
async def version() -> dict[str, str]:
    """flashfeed's version."""
    return {"version": VERSION}


@router.get("/v1/health", responses={503: {"description": "not ready"}})
@router.get("/v1alpha/admin/health", include_in_schema=False)
async def health(sessions: Sessions) -> Response:
    """Whether the worker serves its sessions, in Llama Stack's words; LayerScale's client
    of 0.3, which asks here too, reads the status alone."""
    if sessions.ready:
        return JSONResponse(_health(sessions))
    return JSONResponse(_health(sessions), 503, {"Retry-After": "1"})


@router.get("/v1/inspect/routes")
@router.get("/v1alpha/admin/inspect/routes", include_in_schema=False)
async def routes(request: Request, api_filter: ApiFilter = None) -> dict[str, list[Words]]:
    """Every route of this bridge. `api_filter` names a version; nothing is deprecated."""
    listed = sorted(_routes(request.app.routes), key=lambda one: (one["route"], one["method"]))
    wanted = {None: "/", "deprecated": None}.get(api_filter, f"/{api_filter}/")
    return {"data": [one for one in listed if wanted and one["route"].startswith(wanted)]}


@router.get("/v1/providers")
@router.get("/v1alpha/admin/providers", include_in_schema=False)
async def providers(sessions: Sessions) -> dict[str, list[Words]]:
    """What answers each API: the worker itself."""
    return {"data": _providers(sessions)}


@router.get("/v1/providers/{provider_id}")
@router.get("/v1alpha/admin/providers/{provider_id}", include_in_schema=False)
async def provider(provider_id: str, sessions: Sessions) -> dict[str, Any]:
    """A provider by its id."""
    if provider_id != PROVIDER:
        raise ProviderUnknown(f"no provider {provider_id}; there is {PROVIDER}")
    return _providers(sessions)[0]


@router.get("/v1/tools")
@router.get("/v1/toolgroups")
@router.get("/v1/tool-runtime/list-tools")
@router.get("/v1/shields")
async def nothing() -> dict[str, list[Words]]:
    """flashfeed runs no tools and has no shields: a client's tools are the client's."""
    return {"data": []}


@router.post("/v1/models")
async def register_model(body: ModelBody, sessions: Sessions) -> dict[str, Any]:
    """A model that is there already; others are named in the worker's configuration."""
    return model_body(_model(sessions, body.model_id))


@router.delete("/v1/models/{model_id:path}", response_class=Response)
async def unregister_model(model_id: str, sessions: Sessions) -> None:
    """Refused: the configuration says which models there are."""
    _model(sessions, model_id)
    raise ModelsConfigured(f"model {model_id} is the configuration's; take it out of there")


@router.get("/models/list")
async def list_models_named(sessions: Sessions) -> dict[str, Any]:
    """The models as 0.0.35 reads them: its answer is one, so it is the default one; all
    are under `models`."""
    views = [_serving(view) for view in sessions.models()]
    return {**views[0], "models": views}


@router.get("/models/get")
async def get_model_named(core_model_id: str, sessions: Sessions) -> dict[str, Any] | None:
    """A model as 0.0.35 asks for it: null where there is none."""
    try:
        return _serving(_model(sessions, core_model_id))
    except ModelUnknown:
        return None


def _serving(view: ModelView) -> Words:
    return {
        "llama_model": {"core_model_id": view.id, "max_seq_length": view.context_tokens},
        "provider_config": {"provider_id": PROVIDER, "config": {}},
    }


def _model(service: SessionService, name: str) -> ModelView:
    views = service.models()
    for view in views:
        if view.id.casefold() == name.casefold():
            return view
    names = ", ".join(view.id for view in views)
    raise ModelUnknown(f"no model {name}; known: {names}")


def _health(service: SessionService) -> dict[str, str]:
    return {"status": "OK" if service.ready else "Error"}


def _providers(service: SessionService) -> list[Words]:
    config = {
        "models": [view.id for view in service.models()],
        "sessions_max": service.sessions_max,
    }
    return [
        {
            "api": api,
            "provider_id": PROVIDER,
            "provider_type": PROVIDER_TYPE,
            "config": config,
            "health": _health(service),
        }
        for api in APIS
    ]


def _routes(listed: Sequence[BaseRoute]) -> Iterator[Words]:
    # The app holds included routers as they are: their routes are not in its own list.
    for route in iter_route_contexts(listed):
        if isinstance(route.original_route, APIRoute):
            for method in sorted(route.methods or ()):
                yield {
                    "route": route.path_format,
                    "method": method,
                    "provider_types": [PROVIDER_TYPE],
                }
