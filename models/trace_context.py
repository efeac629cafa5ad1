"""Whose trace a record belongs to, as it travels with it (W3C Trace Context). Pure.

A record that is followed brings its context to `flashfeed.records`, into its session's step,
and so to the events of the version that it is in. Only what is sampled is carried at all. The
spans themselves are agents/tracing.py's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
PENDING_MAX: Final = 32
"""How many traces a session remembers of records that are in no version yet."""


class TraceContext(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The span that something was made in: a `traceparent` of version 00, and what the
    tracing systems on its way say of it ("": nothing)."""

    traceparent: str
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return self.traceparent[36:52]


class Followed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The records of a message that came from a source offset, and what they were sent in."""

    offset: int
    context: TraceContext


def parent_of(causes: Sequence[TraceContext]) -> TraceContext | None:
    """What work with these causes is a part of: the first, where all are of one trace. With
    causes in several traces it is part of none of them, and is linked to each."""
    if causes and all(one.trace_id == causes[0].trace_id for one in causes):
        return causes[0]
    return None


def sent_in(step: TraceContext, topic: str) -> TraceContext:
    """The span in which a step's events of one topic are sent. Its id is made of the step's,
    so that a version that is published again after a crash says the same."""
    span_id = hashlib.sha256(f"{step.traceparent} {topic}".encode()).hexdigest()[:16]
    flags = step.traceparent[53:55]
    return TraceContext(f"00-{step.trace_id}-{span_id}-{flags}", step.tracestate)


def trace_headers(context: TraceContext) -> list[tuple[str, bytes]]:
    """The context as headers of a Kafka record."""
    headers = [(TRACEPARENT, context.traceparent.encode())]
    if context.tracestate:
        headers.append((TRACESTATE, context.tracestate.encode()))
    return headers
