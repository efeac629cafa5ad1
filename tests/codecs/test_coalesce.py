"""Records merged into fewer: totals and extremes are never lost, and a line says of how many."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.coalesce import CONSCIOUSNESS, Line, coalesce, merge, merge_key
from flashfeed.codecs.registry import text_codec
from flashfeed.codecs.text_merged import merged_legend, parse_merged, render_line, written_merged
from flashfeed.models.records import STREAM_TYPES, Event, Iot, Ohlcv, Record, make_record

price = st.floats(0.01, 1e6)
names = st.sampled_from(["a", "b c", "7"])
FIELDS: dict[str, Any] = {
    "ohlcv": st.builds(
        lambda o, a, b, c, v, sym: {
            "o": o, "h": max(a, b), "l": min(a, b), "c": c, "v": v, "sym": sym,
        },
        price, price, price, price, st.floats(0, 1e9), names,
    ),
    "iot": st.builds(
        lambda sid, val: {"sid": sid, "val": val, "lo": 0.0, "hi": 100.0},
        names, st.floats(-1e308, 1e308),
    ),
    "vitals": st.dictionaries(
        st.sampled_from(["hr", "bp_s", "bp_d", "spo2", "temp", "rr", "o2"]),
        st.floats(0, 300), min_size=1,
    ).flatmap(lambda d: st.sampled_from(["", *CONSCIOUSNESS]).map(
        lambda a: {**d, "avpu": a} if a else d)),
    "spatial": st.fixed_dictionaries(
        {name: st.floats(-1e4, 1e4) for name in ("x", "y", "z", "spd", "hdg")}
    ),
    "event": st.fixed_dictionaries(
        {"src": names, "cat": names, "sev": st.integers(0, 9), "cnt": st.integers(1, 2**51)}
    ),
}  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[dict[str, Any] | None]]:
    kind = draw(st.sampled_from(STREAM_TYPES))
    rows = draw(st.lists(st.one_of(FIELDS[kind], st.just(None)), max_size=40))
    return kind, [row and {**row, "timestamp": float(place)} for place, row in enumerate(rows)]


def keyed(kind: str, rows: list[dict[str, Any] | None]) -> list[tuple[Hashable, Record] | None]:
    return [row and (merge_key(kind, row), make_record(kind, row)) for row in rows]


@given(streams(), st.integers(1, 20))
def test_every_record_is_in_one_line_and_none_moves_past_what_is_no_record(
    stream: tuple[str, list[dict[str, Any] | None]], lines_max: int
) -> None:
    kind, rows = stream
    groups = coalesce(keyed(kind, rows), lines_max)
    places = sorted(place for group in groups for place in group.places)
    assert places == [place for place, row in enumerate(rows) if row is not None]
    assert [g.places[-1] for g in groups] == sorted(g.places[-1] for g in groups)
    texts = [place for place, row in enumerate(rows) if row is None]
    for group in groups:
        assert not any(group.places[0] < text < group.places[-1] for text in texts)
        assert list(group.places) == sorted(group.places)
        merged = group.line.merged
        assert (merged.n if merged else 1) == len(group.places)
        if merged is None:
            assert group.line.record == make_record(kind, rows[group.places[0]] or {})


@given(streams(), st.integers(1, 20))
def test_totals_and_extremes_are_kept_whatever_is_merged(
    stream: tuple[str, list[dict[str, Any] | None]], lines_max: int
) -> None:
    kind, rows = stream
    before: defaultdict[Hashable, list[Record]] = defaultdict(list)
    after: defaultdict[Hashable, list[Line]] = defaultdict(list)
    came = keyed(kind, rows)
    for one in came:
        if one is not None:
            before[one[0]].append(one[1])
    for group in coalesce(came, lines_max):
        first = came[group.places[0]]
        assert first is not None
        after[first[0]].append(group.line)
    assert before.keys() == after.keys()
    for key, records in before.items():
        CHECKS[kind](records, after[key])


def _candles(records: list[Any], lines: list[Line]) -> None:
    whole: list[Any] = [line.record for line in lines]
    assert math.isclose(sum(r.v for r in records), sum(r.v for r in whole), abs_tol=1e-6)
    assert max(r.h for r in records) == max(r.h for r in whole)
    assert min(r.l for r in records) == min(r.l for r in whole)
    assert (records[0].o, records[-1].c) == (whole[0].o, whole[-1].c)
    assert records[0].timestamp == whole[0].timestamp
    assert lines[-1].merged is None or lines[-1].merged.until == records[-1].timestamp


def _readings(records: list[Any], lines: list[Line]) -> None:
    assert records[-1] == lines[-1].record
    assert min(r.val for r in records) == min(_least(line, "val") for line in lines)
    assert max(r.val for r in records) == max(_most(line, "val") for line in lines)
    count = len(records)
    mean = math.fsum(r.val / count for r in records)
    merged = math.fsum(
        (one.merged.mean if one.merged and one.merged.mean is not None else one.record.val)  # type: ignore[union-attr]
        * ((one.merged.n if one.merged else 1) / count)
        for one in lines
    )
    assert math.isclose(mean, merged, rel_tol=1e-9, abs_tol=1e-9 * max(abs(r.val) for r in records))


def _vitals(records: list[Any], lines: list[Line]) -> None:
    for name in ("hr", "bp_s", "bp_d", "spo2", "temp", "rr", "o2"):
        known = [value for r in records if (value := getattr(r, name)) is not None]
        left = [line for line in lines if getattr(line.record, name) is not None]
        assert bool(known) == bool(left)
        if known:
            assert min(known) == min(_least(line, name) for line in left)
            assert max(known) == max(_most(line, name) for line in left)
            assert getattr(left[-1].record, name) == known[-1]
    worst = max((CONSCIOUSNESS.index(r.avpu) for r in records if r.avpu), default=-1)
    told = [(line.merged and line.merged.worst) or line.record.avpu for line in lines]  # type: ignore[union-attr]
    assert worst == max((CONSCIOUSNESS.index(letter) for letter in told if letter), default=-1)


def _positions(records: list[Any], lines: list[Line]) -> None:
    assert records[-1] == lines[-1].record
    assert max(r.spd for r in records) == max(_most(line, "spd") for line in lines)


def _events(records: list[Any], lines: list[Line]) -> None:
    whole: list[Any] = [line.record for line in lines]
    assert sum(r.cnt for r in records) == sum(r.cnt for r in whole)
    assert max(r.sev for r in records) == max(r.sev for r in whole)


def _least(line: Line, name: str) -> float:
    value: float = line.merged.least[name] if line.merged else getattr(line.record, name)
    return value


def _most(line: Line, name: str) -> float:
    value: float = line.merged.most[name] if line.merged else getattr(line.record, name)
    return value


CHECKS = {
    "ohlcv": _candles,
    "iot": _readings,
    "vitals": _vitals,
    "spatial": _positions,
    "event": _events,
}


@given(streams(), st.integers(1, 20))
def test_there_are_as_few_lines_as_wanted_where_the_keys_allow_it(
    stream: tuple[str, list[dict[str, Any] | None]], lines_max: int
) -> None:
    kind, rows = stream
    came = keyed(kind, [row for row in rows if row is not None])
    keys = {one[0] for one in came if one is not None}
    lines = len(coalesce(came, lines_max))
    if len(came) <= lines_max:
        assert lines == len(came)  # nothing is merged without need
    elif kind != "event":  # whose counts may not fit together
        assert lines <= max(lines_max, len(keys))


@given(st.sampled_from(STREAM_TYPES).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(FIELDS[kind], min_size=2, max_size=9))
))  # fmt: skip
def test_a_merged_line_says_so_and_reads_back(case: tuple[str, list[dict[str, Any]]]) -> None:
    kind, rows = case
    line = merge([make_record(kind, {**row, **_one_key(kind)}) for row in rows])
    if line is None or line.merged is None:
        return  # counts that do not fit together
    codec = text_codec("", kind)  # type: ignore[arg-type]
    text = render_line(codec, line.record, None, line.merged)
    own, said = parse_merged(text)
    assert own == codec.render(line.record, None)
    assert f" merged {len(rows)}" in text and text.endswith("\n") and text.count("\n") == 1
    written = written_merged(line.record, line.merged)
    assert said.keys() == written.keys()
    for name, one in written.items():
        if isinstance(one.value, str):
            assert said[name] == one.value
        else:
            assert abs(float(said[name]) - one.value) <= one.within
    assert parse_merged(own) == (own, {})


def _one_key(kind: str) -> dict[str, Any]:
    return {"ohlcv": {"sym": "A"}, "iot": {"sid": "a"}, "event": {"src": "s", "cat": "c"}}.get(
        kind, {}
    )


@pytest.mark.parametrize(
    ("kind", "rows", "line"),
    [
        (
            "ohlcv",
            [
                {"o": 10, "h": 12, "l": 9, "c": 11, "v": 500},
                {"o": 11, "h": 15, "l": 10, "c": 14, "v": 700},
            ],
            "14.00 merged 2\n",
        ),
        (
            "iot",
            [
                {"sid": "glucose", "val": 68, "lo": 70, "hi": 180},
                {"sid": "glucose", "val": 182, "lo": 70, "hi": 180},
                {"sid": "glucose", "val": 110, "lo": 70, "hi": 180},
            ],
            "glucose 110 merged 3 min 68 low mean 120 max 182 high\n",
        ),
        (
            "vitals",
            [{"hr": 131, "avpu": "P"}, {"hr": 80, "spo2": 86}, {"spo2": 95, "avpu": "A"}],
            "hr 80 spo2 95 alert merged 3 hr 80..131 spo2 86..95 worst pain\n",
        ),
        (
            "spatial",
            [
                {"x": 0, "y": 0, "z": 0, "spd": 3, "hdg": 90},
                {"x": 3, "y": 4, "z": 0, "spd": 2, "hdg": 90},
            ],
            "3 4 0 2 E merged 2 path 5 top 3m/s\n",
        ),
        (
            "event",
            [
                {"src": "db", "cat": "login", "sev": 5, "cnt": 2},
                {"src": "db", "cat": "login", "sev": 3, "cnt": 4},
            ],
            "login db sev 5 x6 merged 2\n",
        ),
    ],
)
def test_what_the_model_reads(kind: Any, rows: list[dict[str, Any]], line: str) -> None:
    merged = merge([make_record(kind, row) for row in rows])
    assert merged is not None
    assert render_line(text_codec("", kind), merged.record, None, merged.merged) == line
    assert "merged N" in merged_legend(kind)


def test_what_has_no_room_in_a_field_stays_apart() -> None:
    events = [Event(src="s", cat="c", sev=1, cnt=2**53) for _ in range(3)]
    assert merge(events) is None
    groups = coalesce([("k", one) for one in events], 1)
    assert [group.line for group in groups] == [Line(one) for one in events]
    candle = Ohlcv(o=1, h=1, l=1, c=1, v=1.5e308)
    assert [g.line.merged for g in coalesce([("k", candle)] * 2, 1)] == [None, None]
    reading = Iot(sid="s", val=1.5e308)
    line = merge([reading, reading])
    assert line is not None and line.merged is not None and line.merged.mean == 1.5e308
