"""How a job speaks to the scheduler.

A job is a generator: it plans, yields an ask, is sent what the asked runs decoded, and
settles. The ask may be served in several passes, together with other jobs' asks; the
job is resumed when all of it is decoded. `None` means "not yet": the job is resumed
after the next step. A pass that failed is thrown into every job that had a part in it,
and each puts its own sequences back (inv. 5, 6).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from .context import Decoded
from .turns import Ask

T = TypeVar("T")
Steps: TypeAlias = Generator[Ask | None, Decoded, T]
