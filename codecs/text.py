r"""What a text codec is, and what all of them share: how numbers and names are written.

A codec turns one record into one line for the model's context, and back. Both ways are
pure, a line ends in "\n" and holds no other line break or control character, whatever the
data says.

What a line may refer to is the codec's memory: a value, None at the start of a block
(models/window.py), and from there on what `remember` makes of it and each record, so that
it follows from the block's records alone. It is of bounded size, and never changed in
place. Most codecs remember the record before, and no more.

Code computes, the model reads: a line may say what follows exactly from its record and the
memory (a change, a limit crossed), so that the model never does arithmetic.

Precision: a number is written with 5 significant digits, but never with fewer than 2
decimals or more than 20: 130.31, 27.81, 1.0835, 0.00012346, 67123.45. Trailing zeros are
dropped (prices keep 2 decimals). From 1e15 on it is written as 1.2346e+15 (and from
1e300 on, where rounding can overflow, it need not come back).
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, Protocol

import msgspec

from ..models.records import StreamType

SIGNIFICANT_DIGITS: Final = 5
DECIMALS_MIN: Final = 2
DECIMALS_MAX: Final = 20
_SCIENTIFIC_FROM: Final = 1e15
_FEWEST_DECIMALS_FROM: Final = 10.0 ** (SIGNIFICANT_DIGITS - 1 - DECIMALS_MIN)
_ONE_MORE_FROM: Final = _FEWEST_DECIMALS_FROM / 10
_SUFFIXES: Final = ("", "K", "M", "B", "T")

_ENDINGS: Final = {
    f"{3 * group + zeros:+03d}": "." * (not zeros) + "0" * (zeros - 1) + suffix
    for group, suffix in enumerate(_SUFFIXES)
    for zeros in range(3)
}
"""What follows the two digits of a number by its exponent; "." where the point stays."""


class Written(msgspec.Struct, frozen=True):
    """What a line says of one field: the exact value, and how far the text may be from it."""

    value: float | str
    within: float = 0.0


class TextCodec(Protocol):
    """One way to write a record type.

    `legend` says in a sentence what a line holds, for a prompt; `precision` how exactly
    each field is written, for a person; `leaves_out` what a line does not say.
    """

    @property
    def name(self) -> str:
        """The codec's name in a session's spec."""

    @property
    def record_type(self) -> StreamType:
        """The record type it writes."""

    @property
    def legend(self) -> str:
        """One sentence on what a line holds."""

    @property
    def precision(self) -> dict[str, str]:
        """Of each field that may be written, how exactly."""

    @property
    def leaves_out(self) -> str:
        """What a line does not say."""

    def remember(self, memory: Any, record: Any) -> Any:
        """What the next line may refer to, after this record."""

    def render(self, record: Any, memory: Any) -> str:
        """The record's line."""

    def parse(self, line: str, memory: Any) -> dict[str, float | str]:
        """The fields a line says; raises ValueError for a line that is not the codec's."""

    def written(self, record: Any, memory: Any) -> dict[str, Written]:
        """The fields the record's line must say: what `parse` is checked against."""


class RefersToPrevious:
    """A codec whose lines refer to the record before, at most."""

    def remember(self, memory: Any, record: Any) -> Any:
        """The record itself."""
        return record


def decimals(value: float) -> int:
    """How many decimals a number of this size is written with."""
    if value == 0 or abs(value) >= _FEWEST_DECIMALS_FROM:
        return DECIMALS_MIN
    if value >= _ONE_MORE_FROM:
        return DECIMALS_MIN + 1
    magnitude = math.floor(math.log10(abs(value)))
    return min(DECIMALS_MAX, max(DECIMALS_MIN, SIGNIFICANT_DIGITS - 1 - magnitude))


def tolerance(value: float) -> float:
    """How far a number's text may be from it: half of the last decimal."""
    if abs(value) >= _SCIENTIFIC_FROM:
        return rounding(abs(value) * 10.0 ** (1 - SIGNIFICANT_DIGITS), value)
    return rounding(10.0 ** -decimals(value), value)


def rounding(unit: float, value: float) -> float:
    """Half a unit, and the float arithmetic's own error beside it."""
    return 0.5 * unit * (1 + 1e-9) + 4 * math.ulp(value)


def number_text(value: float, decimals_kept: int = 0) -> str:
    """A number at the stated precision, trailing zeros dropped down to so many decimals."""
    if decimals_kept == DECIMALS_MIN and _ONE_MORE_FROM <= value < _SCIENTIFIC_FROM:
        # Most prices: nothing to count, and one zero to drop at most.
        if value >= _FEWEST_DECIMALS_FROM:
            return f"{value:.{DECIMALS_MIN}f}"
        text = f"{value:.{DECIMALS_MIN + 1}f}"
        return text[:-1] if text[-1] == "0" else text
    if abs(value) >= _SCIENTIFIC_FROM:
        return f"{value:.{SIGNIFICANT_DIGITS - 1}e}"
    return _trim(f"{value:.{decimals(value)}f}", decimals_kept)


def fixed_text(value: float, places: int, sign: str = "") -> str:
    """A number with at most so many decimals, zeros dropped; `sign` "+" always signs it."""
    if abs(value) >= _SCIENTIFIC_FROM:
        return f"{value:{sign}.{SIGNIFICANT_DIGITS - 1}e}"
    return _trim(f"{value:{sign}.{places}f}", 0)


def fixed_tolerance(value: float, places: int) -> float:
    """How far `fixed_text` may be from the value."""
    if abs(value) >= _SCIENTIFIC_FROM:
        return tolerance(value)
    return rounding(10.0**-places, value)


def short_text(value: float) -> str:
    """A count to two significant digits with K, M, B, T: 950, 1.2K, 36M. Not negative."""
    if value < 1:
        return f"{value:.2g}"
    text = f"{value:.1e}"  # "2.8e+06"
    ending = _ENDINGS.get(text[4:])
    if ending is None:
        return text
    return text[:3] + ending[1:] if ending[:1] == "." else text[0] + text[2] + ending


def short_tolerance(value: float) -> float:
    """How far `short_text` may be from the value: half of its second digit."""
    if value == 0:
        return 0.0
    return rounding(10.0 ** (math.floor(math.log10(value)) - 1), value)


def short_value(text: str) -> float:
    """What `short_text` wrote."""
    if text[-1:] in _SUFFIXES[1:]:
        return float(text[:-1]) * 1000.0 ** _SUFFIXES.index(text[-1])
    return float(text)


def _trim(text: str, decimals_kept: int) -> str:
    whole, point, fraction = text.partition(".")
    if point:
        fraction = fraction[:decimals_kept] + fraction[decimals_kept:].rstrip("0")
        text = f"{whole}.{fraction}" if fraction else whole
    # A negative number that rounds to nothing is nothing.
    if text[:1] == "-" and not text.strip("-0."):
        return text[1:]
    return text


_PLAIN_NAME: Final = re.compile(r'[^\W\d][^\s"\\]*')
_ESCAPE: Final = re.compile(r"\\(u[0-9a-f]{4}|U[0-9a-f]{8}|.)")

NAME: Final = r'(?:"(?:[^"\\]|\\.)*"|[^\W\d][^\s"\\]*)'
"""A name in a line, as a regular expression."""

NUMBER: Final = r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?"
"""A number in a line, as a regular expression."""

SIGNED: Final = r"[+-]\d+(?:\.\d+)?(?:e[+-]\d+)?"
"""A number that always has a sign, as a regular expression."""

SHORT: Final = r"\d+(?:\.\d+)?(?:e[+-]\d+|[KMBT])?"
"""What `short_text` writes, as a regular expression."""


def name_text(name: str) -> str:
    """A name from the data: as it is, or quoted where it has spaces or starts like a number.

    Control characters, line separators and what else does not print are escaped, so that
    no data can start a line.
    """
    if name.isprintable() and _PLAIN_NAME.fullmatch(name):
        return name
    return '"' + "".join(map(_escaped, name)) + '"'


def name_value(text: str) -> str:
    """The name that `name_text` wrote."""
    if not text.startswith('"'):
        return text
    return _ESCAPE.sub(lambda m: m[1] if len(m[1]) == 1 else chr(int(m[1][1:], 16)), text[1:-1])


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def match_line(pattern: re.Pattern[str], line: str) -> dict[str, str]:
    """The named groups of a line that took part; ValueError where it does not match."""
    match = pattern.fullmatch(line)
    if match is None:
        raise ValueError(f"not a line of this codec: {line!r}")
    return {name: text for name, text in match.groupdict().items() if text is not None}
