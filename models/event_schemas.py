"""JSON Schemas (2020-12) of the output events, derived from the event types.

The files in `schemas/` beside this one are what consumers read; `make schemas` writes
them again and a test compares them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .events import DataUpdated, FlashReady

EVENT_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    "flash_ready": FlashReady,
    "data_updated": DataUpdated,
}
_BOUNDS: Final[dict[str, dict[str, Any]]] = {
    "confidence": {"minimum": 0, "maximum": 1},
    "logit_gap": {"minimum": 0},
    "data_version": {"minimum": 1},
    "evaluated_at": {"format": "date-time"},
    "updated_at": {"format": "date-time"},
}


def event_schema(name: str) -> dict[str, Any]:
    """The schema of the value of `flashfeed.<name>`."""
    kind = EVENT_TYPES[name]
    _, components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    own: dict[str, Any] = components.pop(kind.__name__)
    for described in (own, *components.values()):
        for field, bounds in _BOUNDS.items():
            if field in described["properties"]:
                described["properties"][field] |= bounds
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"flashfeed.{name}",
        **own,
        "$defs": components,
    }
