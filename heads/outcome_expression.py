r"""The closed language that says what an answer's label is, as text to a function.

    label       yes if close > close@0 else no
                up if close > close@0 else down if close < close@0 else flat
    name        a word, or any text in "quotes"; it has to be one of the question's choices
    condition   comparisons (< <= > >= == !=), `and`, `or`, `not`, parentheses
    value       numbers, + - * /, abs(...), a field, mean min max first last of a field
    field       close        of the last record of the outcome
                close@0      of the record that was answered; @3 three records later, @-5
                             five earlier
                mean(volume@-20..-1)   over the records from there to there, both in; all of
                             them must be there. max(close@1..end): `end` is the outcome's last

Fields are those of the record type, and for candles also open, high, low, close, volume,
for readings also value. Nothing else is there: no names of Python's, no calls, no strings
but labels. The text is parsed into a tree of our own and that into functions; nothing of
it is ever evaluated as code. Where a record or a field is not there, or a division has no
result, the label is unknown, which is None and not a choice.

Every fault is a ConfigError that quotes the text and says what was expected where.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from flashfeed.models.errors import ConfigError
from flashfeed.models.records import RECORD_TYPES, Record, StreamType

TEXT_CHARS_MAX: Final = 500
TOKENS_MAX: Final = 200
NESTED_MAX: Final = 20
PLACE_MAX: Final = 100
"""So many records back, or ahead, a field may ask for."""

LONG_NAMES: Final[dict[str, dict[str, str]]] = {
    "ohlcv": {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"},
    "iot": {"value": "val"},
}

Value = float | str


class Unknown(Exception):
    """What a label would need is not there."""


class Course:
    """The records that an expression is about: `record(0)` was answered, `end` is the last
    place of the outcome."""

    def __init__(self, records: Sequence[Record], answered: int, end: int) -> None:
        self._records = records
        self._answered = answered
        self.end = end

    def field(self, name: str, place: int) -> Value:
        """A field of the record at a place; raises Unknown."""
        at = self._answered + place
        if not 0 <= at < len(self._records) or place > self.end:
            raise Unknown
        value: Value | None = getattr(self._records[at], name)
        if value is None:
            raise Unknown
        return value


Compiled = Callable[[Course], Any]


class LabelRule:
    """A compiled label expression. `earliest` is how many records before the answered one
    it looks back at, `latest` how many after it at fixed places."""

    def __init__(self, text: str, record_type: StreamType, choices: Sequence[str]) -> None:
        parser = _Parser(text, record_type, tuple(choices))
        self._label = parser.label()
        parser.expect_end()
        self.earliest = max(0, -parser.earliest)
        self.latest = max(0, parser.latest)

    def label(self, course: Course) -> int | None:
        """The place of the label among the choices; None where it cannot be known."""
        try:
            found: int = self._label(course)
        except (Unknown, ZeroDivisionError, OverflowError):
            return None
        return found


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d{1,3})?)|(?P<word>[A-Za-z_]\w*)"
    r'|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<sign>\.\.|<=|>=|==|!=|[-+*/()<>@,]))'
)
_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
_OVER: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "mean": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
}
_RESERVED: Final = {"if", "else", "and", "or", "not", "end", "abs", *_OVER}


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise Unknown
    return number


class _Parser:
    """Recursive descent; each method gives a function of a Course."""

    def __init__(self, text: str, record_type: StreamType, choices: tuple[str, ...]) -> None:
        if len(text) > TEXT_CHARS_MAX:
            raise ConfigError(f"outcome: expected a label of at most {TEXT_CHARS_MAX} characters")
        self.text = text
        self.choices = choices
        self.record_type = record_type
        own = RECORD_TYPES[record_type].__struct_fields__
        self.fields = {name: name for name in own} | LONG_NAMES.get(record_type, {})
        self.earliest = self.latest = 0
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise self._wrong(at, "a name, a number or a sign of the language")
            self.tokens.append(
                (match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
            )
            at = match.end()
        self.at = 0
        self._check_size()

    def _check_size(self) -> None:
        """Parser and result call themselves once for what is nested: no text may go so deep
        that Python's own stack ends it."""
        depth = 0
        for _, text, at in self.tokens:
            depth += (text == "(") - (text == ")")
            if depth > NESTED_MAX:
                raise self._wrong(at, f"parentheses at most {NESTED_MAX} deep")
        if len(self.tokens) > TOKENS_MAX:
            raise self._wrong(self.tokens[TOKENS_MAX][2], f"at most {TOKENS_MAX} words and signs")

    # -- tokens ---------------------------------------------------------------------

    def _wrong(self, at: int, expected: str) -> ConfigError:
        return ConfigError(f"outcome {self.text!r}: expected {expected} at character {at + 1}")

    def _fail(self, expected: str) -> NoReturn:
        at = self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)
        raise self._wrong(at, expected)

    def _peek(self) -> str:
        if self.at == len(self.tokens):
            return ""
        kind, text, _ = self.tokens[self.at]
        return text if kind in ("sign", "word") else kind

    def _take(self, *wanted: str) -> str | None:
        """The next token's text where it is one of these."""
        if self.at < len(self.tokens) and self.tokens[self.at][0] in ("sign", "word"):
            text = self.tokens[self.at][1]
            if text in wanted:
                self.at += 1
                return text
        return None

    def _expect(self, wanted: str) -> None:
        if self._take(wanted) is None:
            self._fail(f"`{wanted}`")

    def expect_end(self) -> None:
        """Nothing may be left."""
        if self.at < len(self.tokens):
            self._fail("the end")

    # -- labels ---------------------------------------------------------------------

    def label(self) -> Compiled:
        """choice, or choice if condition else label."""
        choice = self._choice()
        if self._take("if") is None:
            return lambda course: choice
        condition = self._or()
        self._expect("else")
        other = self.label()
        return lambda course: choice if condition(course) else other(course)

    def _choice(self) -> int:
        if self.at == len(self.tokens) or self.tokens[self.at][0] not in ("word", "quoted"):
            self._fail(f"one of the choices {', '.join(self.choices)}")
        kind, text, _ = self.tokens[self.at]
        name = re.sub(r"\\(.)", r"\1", text[1:-1]) if kind == "quoted" else text
        if name not in self.choices:
            self._fail(f"one of the choices {', '.join(self.choices)}, got {name!r}")
        self.at += 1
        return self.choices.index(name)

    # -- conditions -----------------------------------------------------------------

    def _or(self) -> Compiled:
        parts = [self._and()]
        while self._take("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda course: any(one(course) for one in parts)

    def _and(self) -> Compiled:
        parts = [self._not()]
        while self._take("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda course: all(one(course) for one in parts)

    def _not(self) -> Compiled:
        if self._take("not"):
            inner = self._not()
            return lambda course: not inner(course)
        start = self.at
        if self._take("("):
            # A condition in parentheses, or a value that a comparison goes on with.
            try:
                condition = self._or()
                self._expect(")")
                if self._peek() not in (*_COMPARISONS, "+", "-", "*", "/"):
                    return condition
            except ConfigError:
                pass
            self.at = start
        return self._comparison()

    def _comparison(self) -> Compiled:
        left = self._sum()
        sign = self._take(*_COMPARISONS)
        if sign is None:
            self._fail("a comparison")
        compare, right = _COMPARISONS[sign], self._sum()
        return lambda course: compare(_finite(left(course)), _finite(right(course)))

    # -- values ---------------------------------------------------------------------

    def _sum(self) -> Compiled:
        value = self._term()
        while sign := self._take("+", "-"):
            value = self._both(sign, value, self._term())
        return value

    def _term(self) -> Compiled:
        value = self._factor()
        while sign := self._take("*", "/"):
            value = self._both(sign, value, self._factor())
        return value

    @staticmethod
    def _both(sign: str, a: Compiled, b: Compiled) -> Compiled:
        if sign == "+":
            return lambda course: a(course) + b(course)
        if sign == "-":
            return lambda course: a(course) - b(course)
        if sign == "*":
            return lambda course: a(course) * b(course)
        return lambda course: a(course) / b(course)

    def _factor(self) -> Compiled:
        if self._take("-"):
            inner = self._factor()
            return lambda course: -inner(course)
        if self._take("("):
            value = self._sum()
            self._expect(")")
            return value
        if self.at == len(self.tokens):
            self._fail("a number or a field")
        kind, text, _ = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            number = float(text)
            return lambda course: number
        if kind != "word":
            self._fail("a number or a field")
        if self._take("abs"):
            self._expect("(")
            value = self._sum()
            self._expect(")")
            return lambda course: abs(value(course))
        if over := self._take(*_OVER):
            return self._over(_OVER[over])
        return self._field()

    def _field(self) -> Compiled:
        name = self._field_name(numbers=True)
        if self._take("@") is None:
            return lambda course: course.field(name, course.end)
        place = self._place()
        if place is None:
            return lambda course: course.field(name, course.end)
        return lambda course: course.field(name, place)

    def _over(self, gather: Callable[[list[Any]], Any]) -> Compiled:
        self._expect("(")
        name = self._field_name(numbers=True)
        self._expect("@")
        start = self._place()
        self._expect("..")
        end = self._place()
        self._expect(")")
        if start is not None and end is not None and start > end:
            self._fail(f"places in order, got {start}..{end}")

        def value(course: Course) -> Any:
            low = course.end if start is None else start
            high = course.end if end is None else end
            if low > high:
                raise Unknown
            return gather([course.field(name, place) for place in range(low, high + 1)])

        return value

    def _field_name(self, numbers: bool) -> str:
        kind, text, _ = self.tokens[self.at] if self.at < len(self.tokens) else ("", "", 0)
        if kind != "word" or text in _RESERVED or text not in self.fields:
            known = ", ".join(sorted(self.fields))
            self._fail(f"a field of {self.record_type} records ({known})")
        name = self.fields[text]
        if numbers and not self._is_number(name):
            self._fail(f"a field with numbers, {text} has none,")
        self.at += 1
        return name

    def _is_number(self, name: str) -> bool:
        annotation = str(RECORD_TYPES[self.record_type].__annotations__[name])
        return "float" in annotation or "Int" in annotation

    def _place(self) -> int | None:
        """A whole number of records; None for `end`."""
        if self._take("end"):
            return None
        sign = -1 if self._take("-") else 1
        kind, text, _ = self.tokens[self.at] if self.at < len(self.tokens) else ("", "", 0)
        if kind != "number" or not text.isdigit() or int(text) > PLACE_MAX:
            self._fail(f"a whole number up to {PLACE_MAX}, or `end`")
        self.at += 1
        place = sign * int(text)
        self.earliest, self.latest = min(self.earliest, place), max(self.latest, place)
        return place
