"""Lists in OpenAI's words: a page of entries, and where the next one begins. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Query

from .errors import InvalidField

After = Annotated[str, Query(max_length=256, description="the id that the page begins after")]
Limit = Annotated[int, Query(ge=1, le=100)]
Order = Annotated[Literal["asc", "desc"], Query(description="by the time they were written")]


def page(
    entries: Sequence[dict[str, Any]], after: str, limit: int, order: Literal["asc", "desc"]
) -> dict[str, Any]:
    """A page of entries that are given oldest first, each with an `id`. Raises
    InvalidField where `after` is none of them."""
    ordered = list(entries) if order == "asc" else list(reversed(entries))
    if after:
        ids = [entry["id"] for entry in ordered]
        if after not in ids:
            raise InvalidField(f"after: no entry {after!r} in this list", "after")
        ordered = ordered[ids.index(after) + 1 :]
    shown = ordered[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(ordered) > limit,
    }
