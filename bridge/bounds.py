"""Bounds on the values of a request that every dialect has, as types for its models.

What a value means is the dialect's to check; here nothing comes in without a bound.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from pydantic import Field

from flashfeed.models.chat import CONTENT_CHARS_MAX, MESSAGES_MAX, TOOLS_MAX
from flashfeed.models.generation import (
    GRAMMAR_CHARACTERS_MAX,
    SEED_MAX,
    STOP_CHARACTERS_MAX,
    STOP_STRINGS_MAX,
)

INTEGER_MAX: Final = 2**31 - 1
NAME_CHARS_MAX: Final = 256
MODEL_CHARS_MAX: Final = 1024
NAMES_MAX: Final = 64
DESCRIPTION_CHARS_MAX: Final = 10_000

Count: TypeAlias = Annotated[int, Field(le=INTEGER_MAX)]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=SEED_MAX)]
Name: TypeAlias = Annotated[str, Field(max_length=NAME_CHARS_MAX)]
Names: TypeAlias = Annotated[list[Name], Field(max_length=NAMES_MAX)]
ModelName: TypeAlias = Annotated[str, Field(max_length=MODEL_CHARS_MAX)]
Description: TypeAlias = Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX)]
Grammar: TypeAlias = Annotated[str, Field(max_length=GRAMMAR_CHARACTERS_MAX)]
Text: TypeAlias = Annotated[str, Field(max_length=CONTENT_CHARS_MAX)]
StopText: TypeAlias = Annotated[str, Field(max_length=STOP_CHARACTERS_MAX)]
StopTexts: TypeAlias = Annotated[list[StopText], Field(max_length=STOP_STRINGS_MAX)]
Object: TypeAlias = dict[str, Any]
"""Any JSON object: the gate bounds its size and depth, who reads it the rest."""
Messages: TypeAlias = Annotated[list[Object], Field(max_length=MESSAGES_MAX)]
Tools: TypeAlias = Annotated[list[Object], Field(max_length=TOOLS_MAX)]
