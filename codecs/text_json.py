r"""Any record as a line of JSON: every field that it has, exact.

{"o":127,"h":127.94,"l":120.69,"c":122,"v":2779100,"sym":"AAPL"}
"""

from __future__ import annotations

import json
from typing import Any, Final

from ..models.records import Record, StreamType
from .text import RefersToPrevious, Written
from .text_fields import NOUNS, columns, escaped, exact_fields, legend_of


class JsonLine(RefersToPrevious):
    """The record's fields under their names."""

    name = "json"
    leaves_out = "nothing"

    def __init__(self, record_type: StreamType) -> None:
        self.record_type: StreamType = record_type
        self._columns: Final = columns(record_type)
        self.legend = (
            f"Each line is one {NOUNS[record_type]} in JSON: "
            f"{legend_of(record_type, self._columns)}."
        )
        self.precision = {one.name: "exact" for one in self._columns}

    def render(self, record: Record, memory: Any) -> str:
        """The record's line."""
        fields = exact_fields(record)
        return escaped(json.dumps(fields, ensure_ascii=False, separators=(",", ":"))) + "\n"

    def parse(self, line: str, memory: Any) -> dict[str, float | str]:
        """The fields a line says."""
        if not line.endswith("\n"):
            raise ValueError(f"not a line of this codec: {line!r}")
        fields = json.loads(line)
        known = {one.name: one.kind for one in self._columns}
        if not isinstance(fields, dict) or not fields.keys() <= known.keys():
            raise ValueError(f"not a line of this codec: {line!r}")
        for name, value in fields.items():
            wanted = str if known[name] == "text" else (int, float)
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise ValueError(f"not a line of this codec: {line!r}")
        return fields

    def written(self, record: Record, memory: Any) -> dict[str, Written]:
        """The fields the record's line must say."""
        return {name: Written(value) for name, value in exact_fields(record).items()}
