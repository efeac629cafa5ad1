"""InfluxDB line protocol: each line an object {name, tags, fields, timestamp}.

    measurement[,tag=value...] field=value[,field=value...] [timestamp]

That is the shape of Telegraf's JSON, so one mapping reads both; the timestamp is the
line's integer (nanoseconds unless the writer was told otherwise) and absent where the line
has none. Fields are floats, integers (`1i`, `1u`), booleans or "quoted" texts. A bad line is
at fault alone. Grammar: InfluxDB's line protocol reference, its escapes included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from ..models.errors import DecodeFault
from .codec import Codec, Options, Outside
from .parts import Source

# Each alternative begins with another character, so none of these can backtrack far.
_MEASUREMENT: Final = re.compile(r"(?:[^,\\ \n]|\\.)+")
_TAG: Final = re.compile(r",((?:[^,=\\ \n]|\\.)+)=((?:[^,=\\ \n]|\\.)+)")
_FIELD: Final = re.compile(
    r'((?:[^,=\\ \n]|\\.)+)=(?:"((?:[^"\\]|\\.)*)"|([^", \n\r]+))', re.DOTALL
)
_INTEGER: Final = re.compile(r"([+-]?\d{1,20})[iu]", re.ASCII)
_FLOAT: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TIME: Final = re.compile(r" +([+-]?\d{1,20})(?=\s|$)", re.ASCII)
_REST: Final = re.compile(r"[ \r]*(?:\n|$)")
_ESCAPED: Final = re.compile(r"\\([,= ])")
_ESCAPED_TEXT: Final = re.compile(r'\\(["\\])')
_WORDS: Final = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}


class InfluxOptions(Options, frozen=True, kw_only=True):
    """None."""


def build(options: InfluxOptions, outside: Outside) -> Codec:
    """A codec of a line a value."""
    return _decode


class _Bad(Exception):
    """What was expected, and where."""


def _decode(payload: bytes | None, source: Source) -> Sequence[Any]:
    try:
        text = (payload or b"").decode()
    except UnicodeDecodeError as bad:
        raise DecodeFault(f"expected UTF-8 text: {bad}") from None
    values: list[Any] = []
    at = 0
    while at < len(text):
        if text[at] in "\n\r ":
            at += 1
        elif text[at] == "#":
            at = _next_line(text, at)
        else:
            try:
                value, at = _line(text, at)
                values.append(value)
            except _Bad as bad:
                line = text[at : at + 40].partition("\n")[0]
                values.append(
                    DecodeFault(f"expected {bad.args[0]} in {line!a}", f"$[{len(values)}]")
                )
                at = _next_line(text, at)
    return values


def _next_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _line(text: str, at: int) -> tuple[dict[str, Any], int]:
    match = _MEASUREMENT.match(text, at)
    if match is None:
        raise _Bad("a measurement")
    name, at = _plain(match[0]), match.end()
    tags: dict[str, str] = {}
    while text.startswith(",", at):
        match = _TAG.match(text, at)
        if match is None:
            raise _Bad("`,tag=value`")
        tags[_plain(match[1])] = _plain(match[2])
        at = match.end()
    fields: dict[str, Any] = {}
    separator = " "
    while text.startswith(separator, at):
        at += 1
        while separator == " " and text.startswith(" ", at):
            at += 1
        match = _FIELD.match(text, at)
        if match is None:
            raise _Bad("`field=value`")
        key, quoted, bare = match.groups()
        fields[_plain(key)] = _ESCAPED_TEXT.sub(r"\1", quoted) if bare is None else _value(bare)
        at = match.end()
        separator = ","
    if not fields:
        raise _Bad("a space and `field=value`")
    value: dict[str, Any] = {"name": name, "tags": tags, "fields": fields}
    match = _TIME.match(text, at)
    if match is not None:
        value["timestamp"] = int(match[1])
        at = match.end()
    match = _REST.match(text, at)
    if match is None:
        raise _Bad("an integer timestamp, or the line's end")
    return value, match.end()


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def _value(text: str) -> Any:
    if _FLOAT.fullmatch(text):
        value = float(text)
        if value - value == 0.0:
            return value
        raise _Bad("a finite number")
    whole = _INTEGER.fullmatch(text)
    if whole is not None:
        return int(whole[1])
    if text in _WORDS:
        return _WORDS[text]
    raise _Bad("a number, an integer with `i` or `u`, true, false or a quoted text")
