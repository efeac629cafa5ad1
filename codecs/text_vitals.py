r"""A patient's vitals as a line: what is known, and which way what changed went.

    hr 82 bp 120/80 spo2 97 temp 36.8 rr 16 air alert
    hr 87 up bp 118/- spo2 95 down o2 2 confused

A field that the record does not have is left out (of a blood pressure, a dash stands for
the missing half). Directions are against the record before, and left out where nothing changed
at the written precision: a change in digits cost more and was read less well
(docs/CONFIDENCE.md).
Consciousness is a word: alert, confused, voice, pain, unresponsive; `air` is no oxygen.
"""

from __future__ import annotations

import re
from typing import Final

from ..models.records import StreamType, Vitals
from .text import (
    NUMBER,
    RefersToPrevious,
    Written,
    fixed_text,
    fixed_tolerance,
    match_line,
)
from .text_facts import DOWN, UP

PLACES: Final = 1
_CHANGING: Final = ("hr", "spo2", "temp", "rr")
WORDS: Final = {"A": "alert", "C": "confused", "V": "voice", "P": "pain", "U": "unresponsive"}
LETTERS: Final = {word: letter for letter, word in WORDS.items()}


def _changing(name: str) -> str:
    return rf"(?:{name} (?P<{name}>{NUMBER})(?: (?P<{name}_direction>{UP}|{DOWN}))? )?"


_LINE: Final = re.compile(
    _changing("hr")
    + rf"(?:bp (?:(?P<bp_s>{NUMBER})|-)/(?:(?P<bp_d>{NUMBER})|-) )?"
    + "".join(map(_changing, ("spo2", "temp", "rr")))
    + rf"(?:(?P<air>air) |o2 (?P<o2>{NUMBER}) )?"
    + rf"(?:(?P<avpu>{'|'.join(LETTERS)}) )?\n"
)


class VitalsLine(RefersToPrevious):
    """Every vital that the record has."""

    name = "vitals"
    record_type: StreamType = "vitals"
    legend = (
        "Each line is one set of vitals: hr heart rate, bp blood pressure, spo2 %, temp Celsius, "
        "rr respiratory rate, oxygen in L/min or air, consciousness; up and down are "
        "against the line before."
    )
    leaves_out = "the time; which way blood pressure and oxygen went"
    precision: Final = {
        **dict.fromkeys(("hr", "bp_s", "bp_d", "spo2", "temp", "rr", "o2"), "1 decimal"),
        **{f"{name}_direction": "exact" for name in _CHANGING},
        "avpu": "exact",
    }

    def render(self, record: Vitals, previous: Vitals | None) -> str:
        """The record's line."""
        parts = [*self._changing("hr", record, previous)]
        if record.bp_s is not None or record.bp_d is not None:
            parts.append(f"bp {_or_dash(record.bp_s)}/{_or_dash(record.bp_d)}")
        for name in ("spo2", "temp", "rr"):
            parts += self._changing(name, record, previous)
        if record.o2 is not None:
            parts.append("air" if record.o2 == 0 else f"o2 {fixed_text(record.o2, PLACES)}")
        if record.avpu is not None:
            parts.append(WORDS[record.avpu])
        return " ".join(parts) + "\n"

    def parse(self, line: str, previous: Vitals | None) -> dict[str, float | str]:
        """The fields a line says."""
        if not line.endswith("\n"):
            raise ValueError(f"not a line of this codec: {line!r}")
        fields: dict[str, float | str] = {}
        for name, text in match_line(_LINE, line[:-1] + " \n").items():
            if name == "air":
                fields["o2"] = 0.0
            elif name == "avpu":
                fields["avpu"] = LETTERS[text]
            else:
                fields[name] = text if name.endswith("_direction") else float(text)
        return fields

    def written(self, record: Vitals, previous: Vitals | None) -> dict[str, Written]:
        """The fields the record's line must say."""
        written = {}
        for name in ("hr", "bp_s", "bp_d", "spo2", "temp", "rr", "o2"):
            value = getattr(record, name)
            if value is not None:
                written[name] = Written(value, fixed_tolerance(value, PLACES))
        for name in _CHANGING:
            direction = _direction(name, record, previous)
            if direction is not None:
                written[f"{name}_direction"] = Written(direction)
        if record.avpu is not None:
            written["avpu"] = Written(record.avpu)
        return written

    def _changing(self, name: str, record: Vitals, previous: Vitals | None) -> list[str]:
        value = getattr(record, name)
        if value is None:
            return []
        parts = [f"{name} {fixed_text(value, PLACES)}"]
        direction = _direction(name, record, previous)
        if direction is not None:
            parts.append(direction)
        return parts


def _direction(name: str, record: Vitals, previous: Vitals | None) -> str | None:
    """Which way a vital went, None where it did not at the written precision."""
    value = getattr(record, name)
    before = None if previous is None else getattr(previous, name)
    if value is None or before is None:
        return None
    change = value - before
    if fixed_text(change, PLACES).strip("-") == "0":
        return None
    return UP if change > 0 else DOWN


def _or_dash(value: float | None) -> str:
    return "-" if value is None else fixed_text(value, PLACES)
