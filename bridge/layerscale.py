"""The LayerScale dialects 0.3 and 0.8, side by side: what is under /v1/sessions.

One server answers both clients. They have paths of their own and paths in common; a body
that both read has the fields of both (WIRE.md, section 1).

layerscale_sessions.py  create, list, look at, end            | *_requests.py  what is sent
layerscale_data.py      push, status, statistics              | *_shapes.py    what is read
layerscale_flash.py     standing questions                    | *_bodies.py    how it is filled
layerscale_answers.py   generate, warm, events, the WebSocket (layerscale_socket.py)
"""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.security import HTTPBearer

from . import layerscale_answers, layerscale_data, layerscale_flash, layerscale_sessions

# The gate checks keys, for WebSockets too; this only describes them in OpenAPI.
_described = HTTPBearer(auto_error=False, description="needed where API keys are set")

router = APIRouter(prefix="/v1")
_http = APIRouter(dependencies=[Depends(_described)])
_http.include_router(layerscale_sessions.router)
_http.include_router(layerscale_data.router)
_http.include_router(layerscale_flash.router)
_http.include_router(layerscale_answers.router)
router.include_router(_http)
router.include_router(layerscale_answers.sockets)
