"""JSON's own values as a grammar's nodes. Pure.

A number has at most 15 digits before and after the point, so that it is read as written.
"""

from __future__ import annotations

from typing import Final

from .grammar_nodes import Alt, Chars, Node, Repeat, Seq, Text, except_chars

SPACE: Final = Repeat(Text(" "), 0, 1)
_DIGIT: Final = Chars(((0x30, 0x39),))
_NATURAL: Final = Alt((Text("0"), Seq((Chars(((0x31, 0x39),)), Repeat(_DIGIT, 0, 14)))))
INTEGER: Final = Seq((Repeat(Text("-"), 0, 1), _NATURAL))
_EXPONENT: Final = Seq(
    (
        Chars(((0x45, 0x45), (0x65, 0x65))),
        Repeat(Chars(((0x2B, 0x2B), (0x2D, 0x2D))), 0, 1),
        Repeat(_DIGIT, 1, 2),
    )
)
_NUMBER: Final = Seq(
    (
        INTEGER,
        Repeat(Seq((Text("."), Repeat(_DIGIT, 1, 15))), 0, 1),
        Repeat(_EXPONENT, 0, 1),
    )
)
_HEX: Final = Chars(((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)))


def _hex(n: int) -> Node:
    return Repeat(_HEX, n, n)


CHARACTER: Final = Alt(
    (
        # DEL and the C1 controls are legal JSON, and never wanted.
        except_chars(((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x9F))),
        Seq((Text("\\"), Chars(tuple((ord(one), ord(one)) for one in '"\\/bfnrt')))),
        # A surrogate alone is no character: \uD800 to \uDFFF are left out.
        Seq((Text("\\u"), Chars(((0x30, 0x39), (0x41, 0x43), (0x61, 0x63))), *[_HEX] * 3)),
        Seq((Text("\\u"), Chars(((0x44, 0x44), (0x64, 0x64))), Chars(((0x30, 0x37),)), _HEX, _HEX)),
        Seq((Text("\\u"), Chars(((0x45, 0x46), (0x65, 0x66))), *[_HEX] * 3)),
    )
)


def _two_digits(least: int, most: int) -> Node:
    """A number of two digits from least to most."""
    return Alt(tuple(Text(f"{n:02}") for n in range(least, most + 1)))


def _days(months: tuple[int, ...], days: int) -> Node:
    """The month and day of a date."""
    return Seq((Alt(tuple(Text(f"{n:02}") for n in months)), Text("-"), _two_digits(1, days)))


_DATE: Final = Seq(
    (
        Repeat(_DIGIT, 4, 4),
        Text("-"),
        # The 29th of February is left out: not every year has it.
        Alt((_days((1, 3, 5, 7, 8, 10, 12), 31), _days((4, 6, 9, 11), 30), _days((2,), 28))),
    )
)
_HOUR: Final = _two_digits(0, 23)
_SIXTY: Final = _two_digits(0, 59)
_OFFSET: Final = Alt(
    (Text("Z"), Seq((Chars(((0x2B, 0x2B), (0x2D, 0x2D))), _HOUR, Text(":"), _SIXTY)))
)
_TIME: Final = Seq(
    (
        Seq((_HOUR, Text(":"), _SIXTY, Text(":"), _SIXTY)),
        Repeat(Seq((Text("."), Repeat(_DIGIT, 1, 6))), 0, 1),
        _OFFSET,
    )
)
FORMATS: Final[dict[str, Node]] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": Seq((_DATE, Text("T"), _TIME)),
    "uuid": Seq((_hex(8), *[Seq((Text("-"), _hex(n))) for n in (4, 4, 4, 12)])),
}

STRING: Final = Seq((Text('"'), Repeat(CHARACTER, 0, None), Text('"')))
BUILT_IN: Final[dict[str, Node]] = {
    "string": STRING,
    "number": _NUMBER,
    "integer": INTEGER,
    "boolean": Alt((Text("true"), Text("false"))),
    "null": Text("null"),
}
