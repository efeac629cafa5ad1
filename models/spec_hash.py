"""The identity of a session spec: what, with the model, decides an answer."""

from __future__ import annotations

import hashlib

import msgspec
import orjson

from .session import SessionSpec


def spec_hash(spec: SessionSpec) -> str:
    """16 hex digits over the spec's canonical JSON (keys sorted, defaults left out)."""
    canonical = orjson.dumps(msgspec.to_builtins(spec), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()[:16]
