"""What is known of a line that stands for several records, beside the record that it says.

The merging is done in codecs/coalesce.py.
"""

from __future__ import annotations

import msgspec


class Merged(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of how many records a line is made (`n`), and what its one record cannot say.

    `until` is the newest event time in it (s). `least` and `most` are the extremes by field,
    `mean` the mean of readings; `worst` is the worst consciousness of vitals; `path` the
    distance travelled (m).
    """

    n: int
    until: float | None = None
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    mean: float | None = None
    worst: str = ""
    path: float = 0.0
