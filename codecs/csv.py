"""CSV: each line an object of texts by column.

The columns are named by the configuration, or by the first line of each message. An empty
field is absent. Quoting is RFC 4180's; a field may hold line breaks within its quotes. A
line with too few or too many fields is at fault alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from ..models.errors import ConfigError, DecodeFault
from .codec import Codec, Options, Outside
from .parts import Source

_Char = Annotated[str, msgspec.Meta(min_length=1, max_length=1)]


class CsvOptions(Options, frozen=True, kw_only=True):
    """`columns`: their names; empty where each message begins with a line of them.
    `delimiter`: one character. `quote`: the character around fields that hold delimiters.
    `encoding`: of the text, as Python names it."""

    columns: tuple[str, ...] = ()
    delimiter: _Char = ","
    quote: _Char = '"'
    encoding: str = "utf-8"


def build(options: CsvOptions, outside: Outside) -> Codec:
    """A codec of a line a value."""
    if len(set(options.columns)) != len(options.columns) or "" in options.columns:
        raise ConfigError("columns: expected different names, none of them empty")
    if options.delimiter == options.quote or {options.delimiter, options.quote} & set("\r\n"):
        raise ConfigError("delimiter: expected it to differ from quote, and no line break")
    try:
        "a".encode(options.encoding).decode(options.encoding)
    except (LookupError, UnicodeError):
        raise ConfigError(f"encoding: no text encoding called {options.encoding!r}") from None

    def decode(payload: bytes | None, source: Source) -> Sequence[Any]:
        if not payload:
            return ()
        try:
            text = payload.decode(options.encoding)
        except UnicodeError as bad:
            raise DecodeFault(f"expected {options.encoding} text: {bad}") from None
        lines = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=options.delimiter,
            quotechar=options.quote,
            strict=True,
        )
        return _rows(lines, options.columns)

    return decode


def _rows(lines: Any, columns: tuple[str, ...]) -> Sequence[Any]:
    values: list[Any] = []
    try:
        for fields in lines:
            if not fields:
                continue
            if not columns:
                columns = tuple(name.strip() for name in fields)
                if len(set(columns)) != len(columns):
                    raise DecodeFault("expected different names in the first line")
                continue
            if len(fields) != len(columns):
                place = len(values)
                values.append(
                    DecodeFault(
                        f"expected {len(columns)} fields, got {len(fields)} "
                        f"in line {lines.line_num}",
                        f"$[{place}]",
                    )
                )
                continue
            values.append(
                {name: field for name, field in zip(columns, fields, strict=True) if field}
            )
    except csv.Error as bad:
        # What follows cannot be told from what is quoted.
        values.append(DecodeFault(f"line {lines.line_num}: {bad}", f"$[{len(values)}]"))
    return values
