"""How many tokens does a record cost, and does every written field come back?

Every text codec renders real records (four symbols' daily candles, a glucose monitor);
each line is tokenised on its own with the packaged model's vocabulary, without special
tokens. Then each line is parsed, and every field it must say is compared with the
record at the codec's stated precision, over all records. Exit 1 where a field does not
come back or a mean is over its budget. The last line printed is one JSON object.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import orjson

from flashfeed.cli.sample_data import SYMBOLS, candles, glucose
from flashfeed.codecs.registry import text_codec
from flashfeed.codecs.text import TextCodec
from flashfeed.engine.packaged_model import find_packaged_model
from flashfeed.engine.token_count import TokenCount
from flashfeed.models.records import Iot, Ohlcv, Record

BUDGETS = {"ohlcv": 15.0, "ohlcv_full": 31.0, "iot": 8.0}
LINES_SHOWN = 4
# The range that clinicians aim at, mg/dL.
GLUCOSE_LOW, GLUCOSE_HIGH = 70.0, 180.0


def candle_records(symbol: str) -> Iterator[Record]:
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


def glucose_records() -> Iterator[Record]:
    for row in glucose():
        yield Iot(
            sid="glucose",
            val=row["glucose"],
            lo=GLUCOSE_LOW,
            hi=GLUCOSE_HIGH,
            timestamp=row["timestamp"],
        )


def in_session(records: Iterable[Record]) -> Iterator[tuple[Record, Record | None]]:
    """Each record of one session with the one before it."""
    listed = list(records)
    yield listed[0], None
    for previous, record in pairwise(listed):
        yield record, previous


def lost_fields(codec: TextCodec, record: Record, previous: Record | None, line: str) -> list[str]:
    """The fields that the line does not give back at the stated precision."""
    if not line.endswith("\n") or line.count("\n") != 1:
        return [f"{line!r} is not one line"]
    read = codec.parse(line, previous)
    written = codec.written(record, previous)
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


def measure(
    count_tokens: TokenCount, codec: TextCodec, sessions: list[list[Record]]
) -> dict[str, Any]:
    counts: list[int] = []
    lost: list[str] = []
    shown: list[str] = []
    fields = 0
    for session in sessions:
        for record, previous in in_session(session):
            line = codec.render(record, previous)
            counts.append(count_tokens(line))
            lost += lost_fields(codec, record, previous, line)
            fields += len(codec.written(record, previous))
            if len(shown) < LINES_SHOWN:
                shown.append(line)
    counts.sort()
    return {
        "codec": codec.name,
        "records": len(counts),
        "mean": round(statistics.fmean(counts), 3),
        "median": statistics.median_low(counts),
        "p99": counts[int(0.99 * (len(counts) - 1))],
        "max": counts[-1],
        "budget": BUDGETS[codec.name],
        "fields_checked": fields,
        "fields_lost": len(lost),
        "lines": shown,
        "lost": lost[:LINES_SHOWN],
    }


def main() -> int:
    count_tokens = TokenCount(find_packaged_model())
    stocks = [list(candle_records(symbol)) for symbol in SYMBOLS]
    readings = [list(glucose_records())]
    results = [
        measure(count_tokens, text_codec("ohlcv", "ohlcv"), stocks),
        measure(count_tokens, text_codec("ohlcv_full", "ohlcv"), stocks),
        measure(count_tokens, text_codec("iot", "iot"), readings),
    ]
    print("tokens a record (SmolLM2 vocabulary, each line on its own)\n")
    print(
        f"{'codec':<12}{'records':>9}{'mean':>8}{'median':>8}{'p99':>6}{'max':>6}{'budget':>8}"
        f"{'fields lost':>18}"
    )
    for row in results:
        share = f"{row['fields_lost']} of {row['fields_checked']}"
        print(
            f"{row['codec']:<12}{row['records']:>9}{row['mean']:>8.2f}{row['median']:>8}"
            f"{row['p99']:>6}{row['max']:>6}{row['budget']:>8.0f}{share:>18}"
        )
    for row in results:
        print(f"\n{row['codec']}, first lines:")
        for line in row.pop("lines"):
            print(f"  {line}", end="")
        for fault in row.pop("lost"):
            print(f"  LOST {fault}")
    good = all(row["mean"] <= row["budget"] and not row["fields_lost"] for row in results)
    print()
    print(orjson.dumps({"bench": "tokens", "pass": good, "codecs": results}).decode())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
