r"""Any record as a line of CSV, the columns in the type's own order, every field exact.

    127,127.94,120.69,122,2779100,AAPL,1704067200

Nothing between two commas is a field that the record does not have. Texts are quoted as
RFC 4180 has it where they hold a comma, a quote or nothing; in all of them a backslash is
doubled, and what does not print is written as JSON writes it, so that a record is a line.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from ..models.records import Record, StreamType
from .text import NUMBER, RefersToPrevious, Written, match_line
from .text_fields import NOUNS, Column, columns, escaped, exact_fields, legend_of

_PLAIN_TEXT: Final = re.compile(r'[^",\s][^",]*')
_TEXT: Final = r'"(?:[^"]|"")*"|[^",\s][^",]*'
_INTEGER: Final = r"-?\d+"
_EXACT: Final = rf"{NUMBER}|-?\d(?:\.\d+)?e[+-]?\d+"


class CsvLine(RefersToPrevious):
    """The record's fields in columns."""

    name = "csv"
    leaves_out = "nothing"

    def __init__(self, record_type: StreamType) -> None:
        self.record_type: StreamType = record_type
        self._columns: Final = columns(record_type)
        self.legend = (
            f"Each line is one {NOUNS[record_type]} in CSV, with these columns: "
            f"{legend_of(record_type, self._columns)}."
        )
        self.precision = {one.name: "exact" for one in self._columns}
        self._line: Final = re.compile(",".join(map(_pattern, self._columns)) + r"\n")

    def render(self, record: Record, memory: Any) -> str:
        """The record's line."""
        fields = exact_fields(record)
        return ",".join(_cell(fields.get(one.name)) for one in self._columns) + "\n"

    def parse(self, line: str, memory: Any) -> dict[str, float | str]:
        """The fields a line says."""
        kinds = {one.name: one.kind for one in self._columns}
        return {
            name: _value(text, kinds[name]) for name, text in match_line(self._line, line).items()
        }

    def written(self, record: Record, memory: Any) -> dict[str, Written]:
        """The fields the record's line must say."""
        return {name: Written(value) for name, value in exact_fields(record).items()}


def _pattern(column: Column) -> str:
    value = {"text": _TEXT, "integer": _INTEGER, "number": _EXACT}[column.kind]
    return f"(?P<{column.name}>{value}){'' if column.required else '?'}"


def _cell(value: float | int | str | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    text = escaped(value.replace("\\", "\\\\"))
    if _PLAIN_TEXT.fullmatch(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _value(text: str, kind: str) -> float | str:
    if kind != "text":
        return int(text) if kind == "integer" else float(text)
    if text.startswith('"'):
        text = text[1:-1].replace('""', '"')
    quoted = text.replace('"', '\\"')
    try:
        value: str = json.loads(f'"{quoted}"')
    except ValueError:
        raise ValueError(f"not a text of this codec: {text!r}") from None
    return value
