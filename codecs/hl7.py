r"""HL7 v2 in ER7, the pipes and hats: each message an object of its segments.

    {"MSH": [{"9": {"1": "ORU", "2": "R01"}, ...}], "PID": [...], "OBX": [{...}, ...]}

A segment's name leads to the list of all segments of that name, a number to its field, a
field's number to its component: the heart rate's code is `3.1` of an OBX, the patient's
number `PID[0].3.1`. Values are texts; what is empty, or HL7's null `""`, is absent. Further
subcomponents of component 4 stand beside it as `4&2`, `4&3`; further repetitions of a field
in its list `~`. An OBX carries its group's OBR as `OBR`. MSH-1 and MSH-2 are the delimiters
themselves. Fields count as the standard counts them (HL7 v2.5.1, chapter 2).

Escapes (\F\ \S\ \T\ \R\ \E\ \.br\ \Xhh\) are resolved, others left as they are. MLLP's bytes
around a message are tolerated, LF and CRLF for CR too. A batch of several MSH is several
values; FHS, BHS, BTS and FTS are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from ..models.errors import DecodeFault
from .codec import Codec, Options, Outside
from .parts import Source

_BREAKS: Final = re.compile(r"\r\n|\r|\n")
_SEGMENT: Final = re.compile(r"[A-Z][A-Z0-9]{2}")
_ENVELOPE: Final = frozenset(("FHS", "BHS", "BTS", "FTS"))
_HEX_CHARS_MAX: Final = 4096
# MSH-18 as HL7 table 0211 writes it; anything else is read as UTF-8.
_ENCODINGS: Final = {
    b"ASCII": "ascii",
    b"UNICODE": "utf-8",
    b"UNICODE UTF-8": "utf-8",
    b"UTF-8": "utf-8",
    **{f"8859/{part}".encode(): f"iso8859-{part}" for part in (*range(1, 12), 13, 14, 15)},
}

Fields = dict[str, Any]


class Hl7Options(Options, frozen=True, kw_only=True):
    """None."""


def build(options: Hl7Options, outside: Outside) -> Codec:
    """A codec of an MSH a value."""
    return _decode


def _decode(payload: bytes | None, source: Source) -> Sequence[Any]:
    if not payload:
        return ()
    framed = payload.strip(b"\x0b\x1c\r\n")
    try:
        text = framed.decode(_encoding(framed))
    except UnicodeDecodeError as bad:
        raise DecodeFault(f"expected {bad.encoding} text (MSH-18): {bad}") from None
    values: list[Any] = []
    batch: list[list[str]] = []
    for line in _BREAKS.split(text):
        segment = line.strip("\x0b\x1c ") if line[:1] in "\x0b\x1c" else line
        if segment.startswith("MSH"):
            batch.append([segment])
        elif segment[:3] in _ENVELOPE or not segment.strip():
            continue
        elif not batch:
            raise DecodeFault(f"expected a segment MSH first, got {segment[:20]!a}")
        else:
            batch[-1].append(segment)
    for place, segments in enumerate(batch):
        try:
            values.append(_message(segments))
        except DecodeFault as fault:
            values.append(DecodeFault(str(fault), f"$[{place}]"))
    if not values:
        raise DecodeFault("expected a segment MSH, got none")
    return values


def _encoding(payload: bytes) -> str:
    # The delimiters are ASCII in every character set that the table has.
    head = re.split(rb"[\r\n]", payload, maxsplit=1)[0]
    start = head.find(b"MSH")
    fields = head[start:].split(head[start + 3 : start + 4] or b"|") if start >= 0 else []
    name = fields[17].split(b"~")[0].strip().upper() if len(fields) > 17 else b""
    return _ENCODINGS.get(name, "utf-8")


def _message(segments: list[str]) -> dict[str, list[Fields]]:
    head = segments[0]
    if len(head) < 5:
        raise DecodeFault(f"expected MSH and its delimiters, got {head!a}")
    bar = head[3]
    signs = head[4:].split(bar, 1)[0]
    # Component, repetition, escape, subcomponent; what is not given is not used.
    hat, tilde, slash, ampersand = tuple((signs + "\x00" * 4)[:4])
    used = [sign for sign in (bar, hat, tilde, slash, ampersand) if sign != "\x00"]
    if not signs or len(set(used)) != len(used) or any(sign.isalnum() for sign in used):
        raise DecodeFault(f"expected different delimiters in MSH-1 and MSH-2, got {head[3:8]!a}")
    read = _reader(hat, tilde, slash, ampersand, bar)
    message: dict[str, list[Fields]] = {}
    order: Fields | None = None
    for segment in segments:
        name, _, rest = segment.partition(bar)
        if not _SEGMENT.fullmatch(name):
            raise DecodeFault(f"expected a segment's name, got {segment[:20]!a}")
        if name == "MSH":
            fields: Fields = {"1": {"1": bar}, "2": {"1": signs}}
            first, rest = 3, rest.partition(bar)[2]
        else:
            fields, first = {}, 1
        for number, text in enumerate(rest.split(bar), start=first):
            if text:
                field = read(text)
                if field:
                    fields[str(number)] = field
        if name == "OBR":
            order = fields
        elif name == "OBX" and order is not None:
            fields["OBR"] = order
        message.setdefault(name, []).append(fields)
    return message


class _FieldReader:
    """Reads fields by one message's delimiters."""

    def __init__(self, hat: str, tilde: str, slash: str, ampersand: str, bar: str) -> None:
        self._hat, self._tilde, self._slash, self._ampersand = hat, tilde, slash, ampersand
        self._signs = {"F": bar, "S": hat, "T": ampersand, "R": tilde, "E": slash, ".br": "\n"}
        sign = re.escape(slash)
        self._escape = re.compile(f"{sign}([^{sign}]*){sign}")
        self._simple = re.compile(f"[{''.join(map(re.escape, (hat, tilde, slash, ampersand)))}]")

    def __call__(self, text: str) -> Fields:
        """A field's components, and its further repetitions."""
        if self._simple.search(text) is None:
            return {} if text == '""' else {"1": text}
        repetitions = [self._components(one) for one in text.split(self._tilde)]
        field = repetitions[0]
        if len(repetitions) > 1:
            field["~"] = repetitions[1:]
        return field

    def _components(self, text: str) -> Fields:
        found: Fields = {}
        for number, component in enumerate(text.split(self._hat), start=1):
            if component and component != '""':
                for place, part in enumerate(component.split(self._ampersand), start=1):
                    if part:
                        key = str(number) if place == 1 else f"{number}&{place}"
                        found[key] = self._plain(part)
        return found

    def _plain(self, text: str) -> str:
        return self._escape.sub(self._resolve, text) if self._slash in text else text

    def _resolve(self, match: re.Match[str]) -> str:
        code = match[1]
        if code in self._signs:
            return self._signs[code]
        if code[:1] == "X" and len(code) <= _HEX_CHARS_MAX:
            try:
                return bytes.fromhex(code[1:]).decode()
            except ValueError:
                return match[0]
        return match[0]


@lru_cache(maxsize=64)
def _reader(hat: str, tilde: str, slash: str, ampersand: str, bar: str) -> _FieldReader:
    """The reader of those delimiters; nearly every message has the same."""
    return _FieldReader(hat, tilde, slash, ampersand, bar)
