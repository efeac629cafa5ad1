"""The shapes of questions and answers as LayerScale clients read them, for type checks and
OpenAPI. Of clients 0.3 and 0.8: where both read one body, it has the fields of both.

layerscale_answer_bodies.py fills them and says what the fields mean.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class FlashEntry(TypedDict):
    """A standing question with its latest answer (0.3). `evaluated_at`: ms since 1970."""

    id: int
    query: str
    name: str
    choices: list[str]
    max_tokens: int
    n_tokens: int
    has_answer: bool
    value: str
    data_version: int
    confidence: float
    abstained: bool
    evaluated_at: int


class FlashQuery(TypedDict):
    """A standing question (0.8). `evaluated_at`: seconds since 1970. The answer's fields
    are absent where there is none."""

    id: int
    object: Literal["flash.query"]
    query: str
    max_tokens: int
    tokens: int
    fresh: bool
    value: NotRequired[str]
    data_version: NotRequired[int]
    confidence: NotRequired[float]
    abstained: NotRequired[bool]
    evaluated_at: NotRequired[int]


class FlashAdded(FlashQuery):
    """The answer to a new standing question."""

    n_tokens: int
    total_flash_queries: int
    name: str
    choices: list[str]


class FlashList(TypedDict):
    """All standing questions of a session: `flash_queries` for 0.3, `data` for 0.8."""

    flash_queries: list[FlashEntry]
    count: int
    current_data_version: int
    object: Literal["list"]
    data: list[FlashQuery]
    data_version: int


class FlashRemoved(TypedDict):
    """The answer to the removal of a standing question."""

    success: bool
    remaining: int
    id: int
    object: Literal["flash.query.deleted"]
    deleted: bool


class CachedTokens(TypedDict):
    """How many of the prompt's tokens the session held already."""

    cached_tokens: int


class Usage(TypedDict):
    """A generation's tokens (0.8). Of an answer that took no generation both counts are 0
    and the others absent."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: NotRequired[int]
    prompt_tokens_details: NotRequired[CachedTokens]


class CalledFunction(TypedDict):
    """Which function, and its arguments as the text of a JSON object."""

    name: str
    arguments: str


class CalledTool(TypedDict):
    """One call of a tool."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Generated(TypedDict):
    """A generation's result."""

    id: str
    object: Literal["session.generation"]
    session_id: str
    text: str
    n_tokens: int
    total_tokens: int
    pos_max: int
    finish_reason: str
    data_version: int
    confidence: float
    usage: Usage
    tool_calls: NotRequired[list[CalledTool]]
    flash: NotRequired[bool]
    flash_id: NotRequired[int]
    speculative: NotRequired[bool]
    logit_gap: NotRequired[float]


class WarmedTurn(TypedDict):
    """What became of a warm turn (0.8)."""

    id: str
    object: Literal["session.warm"]
    session_id: str
    finish_reason: Literal["warmed", "covered", "cancelled"]
    prompt_tokens: int
    cached_tokens: int
    prefix_cached_tokens: int
    data_version: int
