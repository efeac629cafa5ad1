"""flashfeed's own route for what answers' true answers turned out to be."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from flashfeed.models.outcomes import EVENT_ID_PATTERN, OutcomeReport

from .bounds import INTEGER_MAX
from .caller import Sessions

router = APIRouter(prefix="/flashfeed/v1", tags=["outcomes"])

TIME_MAX_S: Final = 253_402_300_799.0
_EXAMPLE: JsonDict = {"query": "trend", "data_version": 41, "label": "bullish"}


class OutcomeBody(BaseModel):
    """The true answer to a question at one data version; the answer is named by that, or by
    the event id (ce_id) of its flash_ready."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, json_schema_extra={"examples": [_EXAMPLE]}
    )

    query: (
        Annotated[str, Field(min_length=1, max_length=200)]
        | Annotated[int, Field(ge=1, le=INTEGER_MAX)]
    ) = Field(description="the question's name, or its id")
    label: str = Field(min_length=1, max_length=100, description="one of its choices")
    data_version: int | None = Field(default=None, ge=1, le=2**53)
    event_id: str | None = Field(default=None, pattern=EVENT_ID_PATTERN)
    time: float | None = Field(
        default=None, ge=0, le=TIME_MAX_S, description="when it came true, in seconds since 1970"
    )

    @model_validator(mode="after")
    def _names_one_answer(self) -> OutcomeBody:
        if (self.data_version is None) == (self.event_id is None):
            raise ValueError("expected exactly one of data_version, event_id")
        return self

    def report(self) -> OutcomeReport:
        """The outcome as the session service takes it."""
        return OutcomeReport(**self.model_dump())


class OutcomeTaken(TypedDict):
    """An outcome that is applied: now, or before."""

    session_id: str
    query: str | int
    label: str


_TAKEN: dict[str, Any] = {"session_id": "AAPL", "query": "trend", "label": "bullish"}


@router.post(
    "/sessions/{session_id}/outcomes",
    responses={200: {"content": {"application/json": {"example": _TAKEN}}}},
)
async def report_outcome(session_id: str, body: OutcomeBody, sessions: Sessions) -> OutcomeTaken:
    """Say what the true answer turned out to be; answered when it is applied, which the same
    outcome is once. 404 where no such answer waits for its outcome any more, 409 where another
    outcome of it was applied before: the first stands."""
    await sessions.outcome(session_id, body.report())
    return {"session_id": session_id, "query": body.query, "label": body.label}
