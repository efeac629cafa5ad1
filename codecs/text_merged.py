r"""What a line says where it stands for several records: behind the codec's own line.

    122.00 down 6.4 merged 12                            12 candles, as one coarser candle
    181 -3 merged 12 min 68 low mean 178.5 max 190       the last reading, and what was before
    hr 87 spo2 95 merged 12 hr 80..131 spo2 86..97 worst voice
    13.5 -4.5 0 1.2 up E merged 12 path 15.2 top 3.4m/s
    login_failed auth-db sev 4 x37 merged 12             the sum of the counts, the worst severity

It is the same for every text codec. Numbers have the precision of the type's own line. A
vital sign has a range where it had more than one value, and consciousness a worst where that
is not the last.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..models.merged import Merged
from ..models.records import Iot, Record, Spatial, StreamType, Vitals
from . import text_vitals
from .text import (
    NUMBER,
    TextCodec,
    Written,
    fixed_text,
    fixed_tolerance,
    number_text,
    tolerance,
)

_PATH_PLACES: Final = 2
_SIGNS: Final = ("hr", "bp_s", "bp_d", "spo2", "temp", "rr", "o2")
_LEGENDS: Final[dict[StreamType, str]] = {
    "ohlcv": "one coarser candle",
    "iot": "the last reading, with the min, mean and max of all",
    "vitals": "the last values, with the range of each sign and the worst consciousness",
    "spatial": "the last position, with the path's length in metres and the top speed",
    "event": "the counts' sum and the highest severity",
}
_WORST: Final = "|".join(text_vitals.WORDS.values())
_MERGED: Final = re.compile(
    r" merged (?P<n>\d+)"
    rf"(?: min (?P<least_val>{NUMBER})(?: (?:low|high))? mean (?P<mean>{NUMBER})"
    rf" max (?P<most_val>{NUMBER})(?: (?:low|high))?)?"
    + "".join(
        rf"(?: {name} (?P<least_{name}>{NUMBER})\.\.(?P<most_{name}>{NUMBER}))?" for name in _SIGNS
    )
    + rf"(?: worst (?P<worst>{_WORST}))?"
    rf"(?: path (?P<path>{NUMBER}) top (?P<most_spd>{NUMBER})m/s)?\n"
)


def merged_legend(record_type: StreamType) -> str:
    """One sentence on such lines, for a prompt."""
    return f"A line with `merged N` stands for N records: {_LEGENDS[record_type]}."


def render_line(codec: TextCodec, record: Record, memory: Any, merged: Merged | None) -> str:
    """The line of a record, or of several."""
    line = codec.render(record, memory)
    return line if merged is None else line.removesuffix("\n") + _merged_text(record, merged)


def parse_merged(line: str) -> tuple[str, dict[str, float | str]]:
    """The codec's own line, and what stands behind it; nothing where nothing was merged."""
    match = _MERGED.search(line)
    if match is None:
        return line, {}
    fields: dict[str, float | str] = {}
    for name, text in match.groupdict().items():
        if text is not None:
            fields[name] = text_vitals.LETTERS[text] if name == "worst" else float(text)
    return line[: match.start()] + "\n", fields


def written_merged(record: Record, merged: Merged) -> dict[str, Written]:
    """What the text of a merged line must say: what `parse_merged` is checked against."""
    written = {"n": Written(merged.n)}
    if isinstance(record, Iot) and merged.mean is not None:
        for name, value in (
            ("least_val", merged.least["val"]),
            ("mean", merged.mean),
            ("most_val", merged.most["val"]),
        ):
            written[name] = Written(value, tolerance(value))
    elif isinstance(record, Vitals):
        for name in _ranged(merged):
            for which, values in (("least", merged.least), ("most", merged.most)):
                value = values[name]
                within = fixed_tolerance(value, text_vitals.PLACES)
                written[f"{which}_{name}"] = Written(value, within)
        if merged.worst not in ("", record.avpu):
            written["worst"] = Written(merged.worst)
    elif isinstance(record, Spatial):
        for name, value in (("path", merged.path), ("most_spd", merged.most["spd"])):
            written[name] = Written(value, fixed_tolerance(value, _PATH_PLACES))
    return written


def _merged_text(record: Record, merged: Merged) -> str:
    parts = [f" merged {merged.n}"]
    if isinstance(record, Iot) and merged.mean is not None:
        least, most = merged.least["val"], merged.most["val"]
        parts += ["min", number_text(least), *_limit(record, least)]
        parts += ["mean", number_text(merged.mean)]
        parts += ["max", number_text(most), *_limit(record, most)]
    elif isinstance(record, Vitals):
        for name in _ranged(merged):
            least, most = merged.least[name], merged.most[name]
            parts += [
                name,
                f"{fixed_text(least, text_vitals.PLACES)}..{fixed_text(most, text_vitals.PLACES)}",
            ]
        if merged.worst not in ("", record.avpu):
            parts += ["worst", text_vitals.WORDS[merged.worst]]
    elif isinstance(record, Spatial):
        parts += ["path", fixed_text(merged.path, _PATH_PLACES)]
        parts += ["top", f"{fixed_text(merged.most['spd'], _PATH_PLACES)}m/s"]
    return " ".join(parts) + "\n"


def _ranged(merged: Merged) -> list[str]:
    return [
        name for name in _SIGNS if name in merged.least and merged.least[name] != merged.most[name]
    ]


def _limit(record: Iot, value: float) -> list[str]:
    """As the line of the last reading has it, by that one's limits."""
    if record.hi is not None and value > record.hi:
        return ["high"]
    return ["low"] if record.lo is not None and value < record.lo else []
