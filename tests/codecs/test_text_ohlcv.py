"""A candle in words: what is said, against what it is computed from."""

from __future__ import annotations

import pytest

from flashfeed.codecs.text_facts import with_sums_of, without_sums
from flashfeed.codecs.text_ohlcv import OhlcvLine
from flashfeed.models.records import Ohlcv


def bar(
    c: float, v: float = 100.0, spread: float = 1.0, sym: str | None = "AAPL", top: float = 0.0
) -> Ohlcv:
    return Ohlcv(o=c, h=c + top, l=c + top - spread, c=c, v=v, sym=sym)


def lines(*candles: Ohlcv) -> list[str]:
    codec, memory, written = OhlcvLine(), None, []
    for candle in candles:
        written.append(codec.render(candle, memory))
        memory = codec.remember(memory, candle)
    return written


def test_it_says_what_moved_and_which_way() -> None:
    assert lines(
        bar(130.31),
        bar(122.0, v=200.0, spread=9.0),
        bar(125.0, v=149.0, spread=2.0),
        bar(125.0, v=150.0, spread=2.0),
        bar(125.01, v=148.0, spread=2.5),
    ) == [
        "AAPL 130.31\n",
        "122.00 down 6.4 high wide\n",
        "125.00 up 2.5 low narrow\n",  # its volume is below 150, the mean of the two before
        "125.00 same 0.0 high same\n",
        "125.01 up 0.0 low wide\n",  # up by less than is written
    ]


def test_each_symbol_has_its_own_course_and_is_named_where_it_is_another() -> None:
    assert lines(bar(10.0), bar(5.0, sym="a b"), bar(11.0, v=99.0), bar(4.0, sym="a b")) == [
        "AAPL 10.00\n",
        '"a b" 5.00\n',
        "AAPL 11.00 up 10.0 low same\n",
        '"a b" 4.00 down 20.0 low same\n',
    ]


def test_where_no_percentage_is_it_says_the_direction_alone() -> None:
    assert lines(bar(0.0), bar(1.5)) == ["AAPL 0.00\n", "1.50 up low same\n"]
    assert lines(bar(10.0), bar(-37.63), bar(-40.1))[2] == "-40.10 down low same\n"


def test_the_volume_and_range_of_another_time_are_not_held_against_others() -> None:
    codec = OhlcvLine()
    before = codec.remember(codec.remember(None, bar(10.0)), bar(11.0, v=300.0, spread=2.0))
    several = bar(12.0, v=1_000.0, spread=9.0)
    assert codec.render(several, without_sums(before)) == "12.00 up 9.1\n"
    after = with_sums_of(before, codec.remember(before, several))
    # The close moves on, and the mean volume and the range are those of single candles.
    assert codec.render(bar(11.0, v=201.0, spread=1.5), after) == "11.00 down 8.3 high narrow\n"
    first = with_sums_of(None, codec.remember(None, several))
    assert codec.render(bar(13.0), first) == "13.00 up 8.3\n"


def test_only_a_memory_of_facts_has_sums() -> None:
    assert without_sums(None) is None and with_sums_of(None, None) is None
    assert without_sums(bar(1.0)) == with_sums_of(None, bar(1.0)) == bar(1.0)


def test_what_it_says_comes_back() -> None:
    codec = OhlcvLine()
    memory = codec.remember(None, bar(130.31))
    line = codec.render(bar(122.0), memory)
    assert codec.parse(line, memory) == {
        "c": 122.0,
        "change": -6.4,
        "direction": "down",
        "volume": "low",
        "range": "same",
    }


@pytest.mark.parametrize(
    "line",
    ["", "122.00", "122.00 2.8M\n", "122.00 6.4 high wide\n", "122.00 falls 6.4 high wide\n"],
)
def test_what_is_not_a_line_of_it_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a line of this codec"):
        OhlcvLine().parse(line, None)
