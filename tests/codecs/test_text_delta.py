from __future__ import annotations

import pytest

from flashfeed.codecs.text import tolerance
from flashfeed.codecs.text_delta import NAMES_MAX, DeltaLine
from flashfeed.models.records import Event, Iot, Ohlcv, Record, StreamType, Vitals


def lines(record_type: StreamType, records: list[Record]) -> list[str]:
    codec = DeltaLine(record_type)
    memory, written = None, []
    for record in records:
        written.append(codec.render(record, memory).rstrip("\n"))
        memory = codec.remember(memory, record)
    return written


def bar(o: float, h: float, l: float, c: float, v: float, sym: str | None = "AAPL") -> Ohlcv:
    return Ohlcv(o=o, h=h, l=l, c=c, v=v, sym=sym)


def test_candles() -> None:
    first = bar(118.56, 132.06, 118.5, 130.31, 9616100)
    second = bar(127.0, 127.94, 120.69, 122.0, 2779100)
    other = bar(1.0, 1.0, 1.0, 1.0, 5.0, "IBM")
    assert lines("ohlcv", [first, second, second, other, first]) == [
        "sym=AAPL o=118.56 h=132.06 l=118.5 c=130.31 v=9.6M",
        "o+8.44 h-4.12 l+2.19 c-8.31 v=2.8M",
        "same",
        "sym=IBM o=1 h=1 l=1 c=1 v=5.0",
        "sym=AAPL o-8.44 h+4.12 l-2.19 c+8.31 v=9.6M",
    ]


def test_a_value_that_no_longer_fits_is_written_again() -> None:
    values = [0.00012346, 0.00012351, 0.0, 1.5, 1.25, 2e15]
    assert lines("iot", [Iot(sid="t", val=value) for value in values]) == [
        "sid=t val=0.00012346",
        "val+0.00000005",
        "val-0.00012351",
        "val=1.5",
        "val-0.25",
        "val=2.0000e+15",
    ]


def test_what_is_no_longer_there_is_said() -> None:
    assert lines("vitals", [Vitals(hr=70.0, avpu="A"), Vitals(hr=71.5), Vitals(temp=37.0)]) == [
        "hr=70 avpu=A",
        "hr+1.5 avpu=-",
        "hr=- temp=37",
    ]


def test_events() -> None:
    events: list[Record] = [
        Event(src="db", sev=3, cat="login failed", cnt=5),
        Event(src="db", sev=4, cat="login failed", cnt=1),
    ]
    assert lines("event", events) == ['src=db sev=3 cat="login failed" cnt=5', "sev+1 cnt-4"]


@pytest.mark.parametrize("value", [0.1, 130.31, 67123.45, 0.00012346])
def test_a_thousand_changes_add_up_to_the_value(value: float) -> None:
    codec = DeltaLine("iot")
    memory, said = None, 0.0
    for step in range(1000):
        reading = Iot(sid="t", val=value * (1 + 0.001 * (step * 7919 % 13)))
        line = codec.render(reading, memory)
        text = line.split("val")[1]
        said = float(text[1:]) if text[0] == "=" else said + float(text)
        memory = codec.remember(memory, reading)
        assert abs(said - reading.val) <= tolerance(reading.val) + 1e-9 * value


def test_the_memory_is_bounded() -> None:
    codec = DeltaLine("iot")
    memory = None
    for number in range(3 * NAMES_MAX):
        memory = codec.remember(memory, Iot(sid=f"s{number}", val=1.0))
    assert memory is not None and len(memory.said) == NAMES_MAX


@pytest.mark.parametrize(
    "line", ["", "same", "c+1\n", "x=1\n", "c=1 c=2\n", "c=1  o=2\n", "c=one\n", "c+-\n", "c=1 \n"]
)
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not a line|no value"):
        DeltaLine("ohlcv").parse(line, None)
