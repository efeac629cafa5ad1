"""The identity of a session spec: what, with the model, decides an answer."""

from __future__ import annotations

import hashlib

import msgspec
import orjson

from .session import FlashQuery, SessionSpec


def spec_hash(spec: SessionSpec) -> str:
    """16 hex digits over the spec's canonical JSON (keys sorted, defaults left out).

    What is made of a question's answers afterwards (heads/verdict.py) is not in it: who asks
    for more confidence, having seen the score, keeps the head and the snapshots.
    """
    asked = msgspec.structs.replace(spec, flash=tuple(map(_asked, spec.flash)))
    canonical = orjson.dumps(msgspec.to_builtins(asked), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()[:16]


def _asked(query: FlashQuery) -> FlashQuery:
    return msgspec.structs.replace(query, min_confidence=0.0, hysteresis=0.0, publish="all")
