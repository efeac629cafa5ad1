"""OpenAI's embeddings: texts as vectors of length 1, by a model that gives them."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from .bounds import Count, Text
from .caller import Sessions
from .errors import InvalidField, Unsupported
from .openai_bodies import Json
from .openai_fields import Body, ModelName

router = APIRouter(prefix="/v1", tags=["OpenAI"])

INPUTS_MAX: Final = 2048


class EmbeddingBody(Body):
    """Texts to embed. `dimensions` keeps the first so many numbers, at length 1 again."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": ["The trend is up."], "model": "my-bert"}]}
    )

    input: Text | Annotated[list[Any], Field(max_length=INPUTS_MAX)] = Field(
        description="a text, or a list of texts"
    )
    model: ModelName = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = Field(default=None, ge=1)
    user: Annotated[str, Field(max_length=512)] = ""

    def texts(self) -> list[str]:
        """The texts. Raises InvalidField, or Unsupported for tokens."""
        given = [self.input] if isinstance(self.input, str) else self.input
        if not given:
            raise InvalidField(f"input: expected 1 to {INPUTS_MAX} texts, got none", "input")
        for place, text in enumerate(given):
            param = f"input.{place}"
            if not isinstance(text, str):
                raise Unsupported(f"{param}: expected a text; tokens are not supported", param)
        return given


@router.post("/embeddings")
async def create_embeddings(body: EmbeddingBody, sessions: Sessions) -> dict[str, Any]:
    """Texts as vectors."""
    embedded = await sessions.embed(body.texts(), body.model)
    return {
        "object": "list",
        "model": embedded.model,
        "data": [
            {
                "object": "embedding",
                "index": place,
                "embedding": encoded(shortened(vector, body.dimensions), body.encoding_format),
            }
            for place, vector in enumerate(embedded.vectors)
        ],
        "usage": _usage(embedded.n_tokens),
    }


def shortened(vector: Sequence[float], dimensions: int | None) -> Sequence[float]:
    """The first `dimensions` numbers, brought to length 1; all of them for None. Raises
    InvalidField where there are not so many."""
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        message = f"dimensions: expected at most {len(vector)}, the model's own, got {dimensions}"
        raise InvalidField(message, "dimensions")
    kept = vector[:dimensions]
    length = math.hypot(*kept)
    return [number / length for number in kept] if length else kept


def encoded(vector: Sequence[float], form: Literal["float", "base64"]) -> list[float] | str:
    """Numbers as JSON, or as base64 of little-endian 32-bit floats."""
    if form == "float":
        return list(vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def _usage(n_tokens: int) -> Json:
    return {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
