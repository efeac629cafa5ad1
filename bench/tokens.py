"""How many tokens does a record cost, and does every written field come back?

Every text codec renders real records (four symbols' daily candles, a glucose monitor) in
blocks of BLOCK lines, as a session's window has them; each line is tokenised on its own,
without special tokens, with the packaged model's vocabulary and, where Node is there, with
those of Llama 3, GPT-4o (o200k) and Claude 2, which come with npm packages. Then each line is
parsed, and every field it must say is compared with the record at the codec's stated
precision, over all records. Exit 1 where a field does not come back or a mean is over its
budget. The last line printed is one JSON object.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from flashfeed.cli.sample_data import SYMBOLS, candles, glucose
from flashfeed.codecs.registry import text_codec, text_codec_names
from flashfeed.codecs.text import TextCodec
from flashfeed.engine.packaged_model import find_packaged_model
from flashfeed.engine.token_count import TokenCount
from flashfeed.models.records import Iot, Ohlcv, Record
from flashfeed.models.session import WindowSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from client_packages import node_modules

BUDGETS = {"ohlcv": 15.0, "ohlcv_numbers": 15.0, "ohlcv_full": 31.0, "iot": 8.0}
LINES_SHOWN = 4
BLOCK = WindowSpec().items
COMPUTED = {
    "ohlcv": "format:{c:.2f} {change:+.1f}% {streak:+} z {zscore:+.1f} {v:.2s}",
    "iot": "format:{val} {change:+.0f} {limit} {streak:+} z {zscore:+.1f}",
}
OTHER_TOKENIZERS = ("llama3", "o200k", "claude2")
NODE_TIMEOUT_S = 300
# The range that clinicians aim at, mg/dL.
GLUCOSE_LOW, GLUCOSE_HIGH = 70.0, 180.0


def candle_records(symbol: str) -> Iterator[Ohlcv]:
    for row in candles(symbol):
        yield Ohlcv(
            o=row["open"],
            h=row["high"],
            l=row["low"],
            c=row["close"],
            v=row["volume"],
            sym=symbol,
            timestamp=row["start"],
        )


def glucose_records() -> Iterator[Iot]:
    for row in glucose():
        yield Iot(
            sid="glucose",
            val=row["glucose"],
            lo=GLUCOSE_LOW,
            hi=GLUCOSE_HIGH,
            timestamp=row["timestamp"],
        )


def in_session(codec: TextCodec, records: list[Record]) -> Iterator[tuple[Record, Any]]:
    """Each record of one session with what its line may refer to."""
    memory: Any = None
    for place, record in enumerate(records):
        if place % BLOCK == 0:
            memory = None
        yield record, memory
        memory = codec.remember(memory, record)


def lost_fields(codec: TextCodec, record: Record, memory: Any, line: str) -> list[str]:
    """The fields that the line does not give back at the stated precision."""
    if not line.endswith("\n") or line.count("\n") != 1:
        return [f"{line!r} is not one line"]
    read = codec.parse(line, memory)
    written = codec.written(record, memory)
    lost = [f"{name} in {line!r}" for name in written.keys() ^ read.keys()]
    for name in written.keys() & read.keys():
        wanted, got = written[name], read[name]
        if isinstance(wanted.value, str) or isinstance(got, str):
            same = wanted.value == got
        else:
            same = abs(wanted.value - got) <= wanted.within
        if not same:
            lost.append(f"{name}: {wanted.value!r} came back as {got!r} from {line!r}")
    return lost


class Rendered(NamedTuple):
    """A codec's lines over all records, and what they lost."""

    codec: TextCodec
    lines: list[str]
    fields: int
    lost: list[str]


def render(codec: TextCodec, sessions: list[list[Record]]) -> Rendered:
    """Every record as a line, read back."""
    lines: list[str] = []
    lost: list[str] = []
    fields = 0
    for session in sessions:
        for record, memory in in_session(codec, session):
            line = codec.render(record, memory)
            lines.append(line)
            lost += lost_fields(codec, record, memory, line)
            fields += len(codec.written(record, memory))
    return Rendered(codec, lines, fields, lost)


def other_counts(rendered: list[Rendered]) -> dict[str, list[list[int]]]:
    """Of each other tokenizer the tokens of each codec's lines; nothing without Node."""
    if shutil.which("node") is None:
        return {}
    done = subprocess.run(
        ["node", str(Path(__file__).with_suffix(".mjs")), str(node_modules().parent)],
        input=orjson.dumps([line for one in rendered for line in one.lines]),
        check=True,
        stdout=subprocess.PIPE,
        timeout=NODE_TIMEOUT_S,
    )
    found: dict[str, list[list[int]]] = {}
    for name, counts in orjson.loads(done.stdout).items():
        rest = iter(counts)
        found[name] = [[next(rest) for _ in one.lines] for one in rendered]
    return found


def figures(
    count_tokens: TokenCount, rendered: Rendered, others: dict[str, list[int]]
) -> dict[str, Any]:
    counts = sorted(map(count_tokens, rendered.lines))
    name, kind = rendered.codec.name, rendered.codec.record_type
    name = "computed" if name.startswith("format:") else name
    return {
        "type": kind,
        "codec": name,
        "records": len(counts),
        "mean": round(statistics.fmean(counts), 3),
        "median": statistics.median_low(counts),
        "p99": counts[int(0.99 * (len(counts) - 1))],
        "max": counts[-1],
        "budget": BUDGETS.get(name),
        **{other: round(statistics.fmean(tokens), 3) for other, tokens in others.items()},
        "fields_checked": rendered.fields,
        "fields_lost": len(rendered.lost),
    }


def main() -> int:
    count_tokens = TokenCount(find_packaged_model())
    data = {
        "ohlcv": [list(candle_records(symbol)) for symbol in SYMBOLS],
        "iot": [list(glucose_records())],
    }
    rendered = [
        render(text_codec(name, kind), sessions)
        for kind, sessions in data.items()
        for name in (*text_codec_names(kind), COMPUTED[kind])
    ]
    others = other_counts(rendered)
    results = [
        figures(count_tokens, one, {name: counts[place] for name, counts in others.items()})
        for place, one in enumerate(rendered)
    ]
    print("mean tokens a record, each line on its own; median to max are SmolLM2's\n")
    titles = "".join(f"{name:>9}" for name in others)
    print(
        f"{'type':<7}{'codec':<12}{'records':>9}{'SmolLM2':>9}{titles}{'median':>8}{'p99':>6}"
        f"{'max':>6}{'budget':>8}{'fields lost':>18}"
    )
    for row in results:
        share = f"{row['fields_lost']} of {row['fields_checked']}"
        means = "".join(f"{row[name]:>9.2f}" for name in others)
        print(
            f"{row['type']:<7}{row['codec']:<12}{row['records']:>9}{row['mean']:>9.2f}{means}"
            f"{row['median']:>8}{row['p99']:>6}{row['max']:>6}{row['budget'] or '':>8}{share:>18}"
        )
    for one in rendered:
        print(f"\n{one.codec.record_type} {one.codec.name}, first lines:")
        for line in one.lines[:LINES_SHOWN]:
            print(f"  {line}", end="")
        for fault in one.lost[:LINES_SHOWN]:
            print(f"  LOST {fault}")
    if not others:
        print(f"\nno Node.js: {', '.join(OTHER_TOKENIZERS)} were left out")
    good = all(
        not row["fields_lost"] and row["mean"] <= (row["budget"] or row["mean"]) for row in results
    )
    print()
    print(orjson.dumps({"bench": "tokens", "pass": good, "codecs": results}).decode())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
