"""The messages on `flashfeed.outcomes`: what an answer's true answer turned out to be.

A JSON object: `session_id`, `tenant` ("" for none), `query` (the question's name or id), the
answer by `data_version` or by `event_id` (ce_id of its flash_ready; exactly one of the two),
`label` (one of the choices), and `time`, when it came true, where that is known.

The topic has every outcome, however it came: one that flashfeed itself applied, by a rule or
as it was asked over HTTP, is written there with `by`, in its step's transaction.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from .errors import DecodeFault, RequestError
from .messages import Asked, Outcome
from .tenant import TENANT_PATTERN, TENANT_RULE, check_session_id, session_key

EVENT_ID_PATTERN = "^[0-9a-f]{32}$"
Label = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
QueryName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class OutcomeReport(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One outcome as a user sends it; `time` is in seconds since 1970."""

    query: int | QueryName
    label: Label
    data_version: Annotated[int, msgspec.Meta(ge=1)] | None = None
    event_id: Annotated[str, msgspec.Meta(pattern=EVENT_ID_PATTERN)] | None = None
    time: float | None = None

    def __post_init__(self) -> None:
        if (self.data_version is None) == (self.event_id is None):
            raise ValueError("expected exactly one of data_version, event_id")


class SentOutcome(OutcomeReport, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A message of `flashfeed.outcomes`. `by` is empty where it is sent to flashfeed; `http`
    and `rule` are of flashfeed's own hand, and are applied already."""

    session_id: str = ""
    tenant: str = ""
    by: Literal["", "http", "rule"] = ""
    v: Literal[1] = 1


_decoder = msgspec.json.Decoder(SentOutcome)


def decode_outcome(value: bytes | None) -> SentOutcome:
    """The outcome in a Kafka value; raises DecodeFault, naming the path, where it is none."""
    if not value:
        raise DecodeFault("expected an outcome, got an empty value")
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message, _, path = str(error).partition(" - at `")
        raise DecodeFault(f"not an outcome: {message}", path.rstrip("`") or "$") from None


def outcome_message(
    report: OutcomeReport, asked: Asked | None = None, idempotency_key: str = ""
) -> Outcome:
    """The outcome as a message of its session's history."""
    return Outcome(
        query=report.query,
        label=report.label,
        data_version=report.data_version or 0,
        event_id=report.event_id or "",
        time=report.time,
        asked=asked,
        idempotency_key=idempotency_key,
    )


def outcome_key(sent: SentOutcome) -> str:
    """The key of the outcome's session. Raises RequestError."""
    check_session_id(sent.session_id)
    if sent.tenant and re.fullmatch(TENANT_PATTERN, sent.tenant) is None:
        raise RequestError(f"tenant: expected {TENANT_RULE}, got {sent.tenant[:80]!r}")
    return session_key(sent.tenant, sent.session_id)
