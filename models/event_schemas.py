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


def event_header_schema(
    name: str, content_type: str = "application/json", traced: bool = False
) -> dict[str, Any]:
    """The schema of the headers of an event of `flashfeed.<name>`, as text; `traced`: they may
    say whose trace it belongs to."""
    headers: dict[str, Any] = {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {
            "type": "string",
            "pattern": "^[0-9a-f]{32}$",
            "description": "The same cause has the same id: a consumer drops a repeat by it.",
        },
        "ce_source": {"type": "string"},
        "ce_type": {"const": f"flashfeed.{name}"},
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_subject": {"type": "string", "description": "The session's key."},
        "ce_partitionkey": {"type": "string", "description": "The session's key."},
        "ce_sequence": {
            "type": "string",
            "pattern": "^[0-9]{20}$",
            "description": "The data version, so wide that texts compare as numbers do.",
        },
        "content-type": {"const": content_type},
    }
    required = list(headers)
    if traced:
        followed = "W3C Trace Context, where records of the version are followed."
        headers["traceparent"] = {"type": "string", "description": followed}
        headers["tracestate"] = {"type": "string"}
    return {"type": "object", "properties": headers, "required": required}


def event_schema_components(ref_template: str) -> dict[str, dict[str, Any]]:
    """The schemas of the event types and of what is in them, by the type's name; they
    refer to one another by `ref_template`."""
    _, components = msgspec.json.schema_components(EVENT_TYPES.values(), ref_template=ref_template)
    for described in components.values():
        for field, bounds in _BOUNDS.items():
            if field in described["properties"]:
                described["properties"][field] |= bounds
    return components


def event_schema(name: str) -> dict[str, Any]:
    """The schema of the value of `flashfeed.<name>`."""
    kind = EVENT_TYPES[name]
    components = event_schema_components("#/$defs/{name}")
    own = components[kind.__name__]
    _, used = msgspec.json.schema_components([kind], ref_template="{name}")
    components = {part: components[part] for part in used if part != kind.__name__}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"flashfeed.{name}",
        **own,
        "$defs": components,
    }
