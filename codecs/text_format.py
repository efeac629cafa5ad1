r"""A line of the user's own: `format:{c} {v:.2s}`.

After `format:` stands literal text and fields in braces: the record's own, and what code
computes of it (text_facts.py), such as `{change:+.1f}`, `{streak:+}`, `{zscore:+.1f}`, a
reading's `{limit}` and `{to_high}`, a patient's `{band}`. Each has an optional format:
`.2f` decimals, `.3g` or `.3e` significant digits, `,` thousands, `+` a sign always, `.2s`
two significant digits with K, M, B, T; for texts none. {{ and }} are braces. Reading such
a line back is best effort: text like `1` or `.5` beside a field can be taken for a part of
it. Nothing else of Python's templates is there: no attributes, places, conversions or
widths. Two fields need text between them. An absent field is written as `-`.

A band or a score of vitals is only there beside `{missing}` or `{band_confidence}`, and no
template calls it NEWS2: `{score_name}` does, where all seven parameters are there.

Everything wrong is a ConfigError when the codec is made, which names what is known.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import Any, Final

import msgspec

from ..models.errors import ConfigError
from ..models.records import Record, StreamType
from .early_warning import COMPLETE_NAME
from .nearest import nearest
from .text import (
    NAME,
    Written,
    match_line,
    name_text,
    name_value,
    number_text,
    short_text,
    short_tolerance,
    short_value,
    tolerance,
)
from .text_facts import Fact, FactsMemory, fact, fact_kinds, remembered
from .text_fields import columns

PREFIX: Final = "format:"
TEMPLATE_CHARS_MAX: Final = 500

_SCORES: Final = {"score", "band"}
_SAYS_MISSING: Final = {"missing", "band_confidence"}

_FLOAT_SPEC: Final = re.compile(r"(\+?)(,?)(?:\.(\d{1,2}))?([feg])")
_SHORT_SPEC: Final = re.compile(r"\.2s")
_INT_SPEC: Final = re.compile(r"\+?,?d?")
_VALUE: Final = rf"-|{NAME}|[+-]?[\d,]+(?:\.\d+)?(?:e[+-]?\d+|[KMBT])?"
_SAMPLE: Final = -1234.5


class _Slot(msgspec.Struct, frozen=True):
    """A field in the template."""

    field: str
    spec: str
    kind: str
    computed: bool


class FormatLine:
    """A codec made of a user's template."""

    leaves_out = "what the template does not name"

    def __init__(self, name: str, record_type: StreamType) -> None:
        self.name = name
        self.record_type: StreamType = record_type
        template = name.removeprefix(PREFIX)
        self._parts = _parse(template, record_type)
        slots = [part for part in self._parts if isinstance(part, _Slot)]
        self._computes = any(slot.computed for slot in slots)
        _check_band(template, self._parts)
        self.legend = "Each line is " + template.replace("{", "").replace("}", "") + "."
        self.precision = {
            slot.field: slot.spec
            or ("5 significant digits, at least 2 decimals" if slot.kind == "number" else "exact")
            for slot in slots
        }
        self._line = re.compile(
            "".join(
                re.escape(part) if isinstance(part, str) else f"(?P<f{place}>{_VALUE})"
                for place, part in enumerate(self._parts)
            )
            + r"\n"
        )

    def remember(self, memory: FactsMemory | None, record: Record) -> FactsMemory | None:
        """What the computed fields look back at; nothing where the template has none."""
        if not self._computes:
            return None
        return remembered(memory, record, self.record_type)

    def render(self, record: Record, memory: FactsMemory | None) -> str:
        """The record's line."""
        return (
            "".join(
                part if isinstance(part, str) else _write(part, self._value(part, record, memory))
                for part in self._parts
            )
            + "\n"
        )

    def _value(self, slot: _Slot, record: Record, memory: FactsMemory | None) -> Fact:
        if slot.computed:
            return fact(slot.field, record, memory, self.record_type)
        value: Fact = getattr(record, slot.field)
        return value

    def parse(self, line: str, memory: FactsMemory | None) -> dict[str, float | str]:
        """The fields a line says; a field that stands twice is read where it stands last."""
        fields: dict[str, float | str] = {}
        for group, text in match_line(self._line, line).items():
            slot = self._parts[int(group[1:])]
            assert isinstance(slot, _Slot)
            if text == "-":
                continue
            if slot.kind == "text":
                fields[slot.field] = name_value(text)
            elif slot.kind == "integer":
                fields[slot.field] = int(text.replace(",", ""))
            else:
                fields[slot.field] = short_value(text.replace(",", ""))
        return fields

    def written(self, record: Record, memory: FactsMemory | None) -> dict[str, Written]:
        """The fields the record's line must say."""
        written = {}
        for slot in self._parts:
            if isinstance(slot, _Slot):
                value = self._value(slot, record, memory)
                if value is not None:
                    within = 0.0 if isinstance(value, str) else _within(slot, value)
                    written[slot.field] = Written(value, within)
        return written


def _parse(template: str, record_type: StreamType) -> tuple[str | _Slot, ...]:
    if not template or len(template) > TEMPLATE_CHARS_MAX:
        raise ConfigError(f"text format: expected 1 to {TEMPLATE_CHARS_MAX} characters")
    if not template.isprintable():
        raise ConfigError(f"text format {template!r}: expected printable characters on one line")
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"text format {template!r}: {error}") from None
    parts: list[str | _Slot] = []
    for literal, field, spec, conversion in pieces:
        if literal:
            # A doubled brace splits a literal in two.
            if parts and isinstance(parts[-1], str):
                parts[-1] += literal
            else:
                parts.append(literal)
        if field is not None:
            if parts and isinstance(parts[-1], _Slot):
                raise ConfigError(f"text format {template!r}: expected text before {{{field}}}")
            if conversion:
                raise ConfigError(f"text format {template!r}: expected no `!{conversion}`")
            parts.append(_slot(template, field, spec or "", record_type))
    return tuple(parts)


def _slot(template: str, field: str, spec: str, record_type: StreamType) -> _Slot:
    facts = fact_kinds(record_type)
    own = {one.name: one.kind for one in columns(record_type)}
    known = own | facts
    if field not in known:
        raise ConfigError(
            f"text format {template!r}: {record_type} has no field {field!r}{nearest(field, known)}"
        )
    kind = known[field]
    if kind == "number":
        good = not spec or any(p.fullmatch(spec) for p in (_FLOAT_SPEC, _SHORT_SPEC))
        wanted = "a format like .2f, .3g, +.1f or .2s"
    elif kind == "integer":
        good = _INT_SPEC.fullmatch(spec) is not None
        wanted = "a format like + or ,"
    else:
        good = not spec
        wanted = "no format for a text"
    if not good:
        raise ConfigError(f"text format {template!r}: expected {wanted}, got {spec!r}")
    if kind == "number" and spec and not _SHORT_SPEC.fullmatch(spec):
        try:
            format(_SAMPLE, spec)
        except ValueError as error:
            raise ConfigError(f"text format {template!r}: {error}") from None
    return _Slot(field, spec, kind, field not in own)


def _check_band(template: str, parts: tuple[str | _Slot, ...]) -> None:
    """A score of some parameters must say that it is one (early_warning.py)."""
    named = {part.field for part in parts if isinstance(part, _Slot) and part.computed}
    if not named & _SCORES:
        return
    if not named & _SAYS_MISSING:
        raise ConfigError(
            f"text format {template!r}: expected {{missing}} beside the score or its band, which "
            "says what it is made without"
        )
    if any(isinstance(part, str) and COMPLETE_NAME in part.upper() for part in parts):
        raise ConfigError(
            f"text format {template!r}: expected {{score_name}}, which says {COMPLETE_NAME} only "
            "where all seven parameters are there"
        )


def _write(slot: _Slot, value: Any) -> str:
    if value is None:
        return "-"
    if slot.kind == "text":
        return name_text(value)
    if slot.kind == "integer":
        return format(value, slot.spec)
    if not slot.spec:
        return number_text(value)
    if not slot.spec.endswith("s"):
        # 309 digits of a number say no more than its leading ones.
        return format(value, slot.spec if abs(value) < 1e15 else ".4e")
    return short_text(value) if value >= 0 else "-" + short_text(-value)


def _within(slot: _Slot, value: float) -> float:
    if slot.kind == "integer":
        return 0.0
    if not slot.spec or (slot.spec[-1] != "s" and abs(value) >= 1e15):
        return tolerance(value)
    if slot.spec.endswith("s"):
        return short_tolerance(abs(value))
    # What Python's own formatting gives is right to half of the last digit it writes.
    return abs(float(format(value, slot.spec).replace(",", "")) - value)
