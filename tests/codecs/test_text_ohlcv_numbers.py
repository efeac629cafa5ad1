from __future__ import annotations

import pytest

from flashfeed.codecs.text_ohlcv_numbers import OhlcvFull, OhlcvNumbers
from flashfeed.models.records import Ohlcv


def bar(c: float, v: float = 9616100, sym: str | None = "AAPL", **prices: float) -> Ohlcv:
    fields = {"o": c, "h": c, "l": c, **prices}
    return Ohlcv(c=c, v=v, sym=sym, **fields)


FIRST = bar(130.31, o=118.56, h=132.06, l=118.5)
SECOND = bar(122.0, 2779100, o=127.0, h=127.94, l=120.69)


@pytest.mark.parametrize(
    ("record", "previous", "line"),
    [
        (FIRST, None, "AAPL 130.31 9.6M\n"),
        (SECOND, FIRST, "122.00 -6.4 2.8M\n"),
        (FIRST, SECOND, "130.31 +6.8 9.6M\n"),
        (SECOND, SECOND, "122.00 +0.0 2.8M\n"),
        (bar(129.9999), bar(130.0), "130.00 +0.0 9.6M\n"),
        (bar(0.00012346, 5), bar(0.0001), "0.00012346 +23.5 5.0\n"),
        (bar(1.5, sym=None), None, "1.50 9.6M\n"),
        (bar(1.5, sym=None), FIRST, "1.50 -98.8 9.6M\n"),
        (bar(1.5, sym="IBM"), FIRST, "IBM 1.50 9.6M\n"),
        (bar(1.5, sym="IBM"), bar(1.5, sym=None), "IBM 1.50 +0.0 9.6M\n"),
        (bar(1.5), bar(0.0), "1.50 9.6M\n"),
        (bar(1.5, sym="a\nb 7"), None, '"a\\u000ab 7" 1.50 9.6M\n'),
        (bar(-37.63), bar(10.0), "-37.63 -476.3 9.6M\n"),
    ],
)
def test_short(record: Ohlcv, previous: Ohlcv | None, line: str) -> None:
    assert OhlcvNumbers().render(record, previous) == line


@pytest.mark.parametrize(
    ("record", "previous", "line"),
    [
        (FIRST, None, "AAPL 130.31 o-1175 h+175 l-1181 9.6M\n"),
        (SECOND, FIRST, "122.00 -6.4% o+500 h+594 l-131 2.8M\n"),
        (bar(1.5), bar(1.5), "1.50 +0.0% o+0 h+0 l+0 9.6M\n"),
        # The last digit of the close is the unit, as many decimals as one of the four needs.
        (bar(27.8, l=27.795), bar(27.8), "27.800 +0.0% o+0 h+0 l-5 9.6M\n"),
        (bar(0.00012346, h=0.00013), None, "AAPL 0.00012346 o+0 h+654 l+0 9.6M\n"),
        (bar(-37.63, l=-40), bar(10.0), "-37.63 -476.3% o+0 h+0 l-237 9.6M\n"),
        (bar(0.0, l=-0.5), None, "AAPL 0.00 o+0 h+0 l-50 9.6M\n"),
        (bar(-0.4), None, "AAPL -0.40 o+0 h+0 l+0 9.6M\n"),
    ],
)
def test_full(record: Ohlcv, previous: Ohlcv | None, line: str) -> None:
    assert OhlcvFull().render(record, previous) == line


def test_full_gives_back_all_five() -> None:
    codec = OhlcvFull()
    assert codec.parse(codec.render(SECOND, FIRST), FIRST) == {
        "o": 127.0,
        "h": 127.94,
        "l": 120.69,
        "c": 122.0,
        "v": 2_800_000.0,
        "change": -6.4,
    }


@pytest.mark.parametrize(
    "line", ["", "122.00\n", "122.00 2.8M", "122.00 -6.4 2.8M\nx\n", "a b c\n"]
)
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a line"):
        OhlcvNumbers().parse(line, None)
