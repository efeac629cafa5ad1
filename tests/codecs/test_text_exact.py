"""JSON and CSV lines: every field, exact, whatever the texts hold."""

from __future__ import annotations

import csv
import json

import pytest

from flashfeed.codecs.registry import text_codec
from flashfeed.models.records import Event, Iot, Ohlcv, Record, Vitals

BAR = Ohlcv(o=127.0, h=127.94, l=120.69, c=122.0, v=2779100.0, sym="AAPL", timestamp=1.7e9)


@pytest.mark.parametrize(
    ("record", "as_json", "as_csv"),
    [
        (
            BAR,
            '{"o":127,"h":127.94,"l":120.69,"c":122,"v":2779100,"sym":"AAPL",'
            '"timestamp":1700000000}',
            "127,127.94,120.69,122,2779100,AAPL,1700000000",
        ),
        (Iot(sid='a "b", c', val=0.1), '{"sid":"a \\"b\\", c","val":0.1}', '"a ""b"", c",0.1,,,'),
        (Iot(sid="x\ny\u2028", val=1.0), '{"sid":"x\\ny\\u2028","val":1}', "x\\u000ay\\u2028,1,,,"),
        (Iot(sid="C:\\n", val=1.0), '{"sid":"C:\\\\n","val":1}', "C:\\\\n,1,,,"),
        (Vitals(hr=70.0, avpu="A"), '{"hr":70,"avpu":"A"}', "70,,,,,,,A,"),
        (
            Event(src="", sev=-1, cat="c", cnt=2),
            '{"src":"","sev":-1,"cat":"c","cnt":2}',
            '"",-1,c,2,',
        ),
    ],
)
def test_lines(record: Record, as_json: str, as_csv: str) -> None:
    kind = type(record).__name__.lower()
    lines = text_codec("json", kind), text_codec("csv", kind)  # type: ignore[arg-type]
    assert lines[0].render(record, None) == as_json + "\n"
    assert lines[1].render(record, None) == as_csv + "\n"


def test_other_programs_read_them() -> None:
    assert json.loads(text_codec("json", "ohlcv").render(BAR, None))["h"] == 127.94
    line = text_codec("csv", "iot").render(Iot(sid='a "b", c', val=0.1), None)
    assert next(csv.reader([line])) == ['a "b", c', "0.1", "", "", ""]


def test_the_legend_names_the_columns_in_order() -> None:
    assert text_codec("csv", "iot").legend == (
        "Each line is one reading in CSV, with these columns: sid sensor, val value, lo low limit, "
        "hi high limit, timestamp time in seconds since 1970."
    )


@pytest.mark.parametrize("name", ["json", "csv"])
@pytest.mark.parametrize(
    "line", ["", "{}", "[1]\n", '{"val":"1"}\n', '{"x":1}\n', '{"val":true}\n', "a\n", "a,b,,,\n"]
)
def test_other_lines_are_refused(name: str, line: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        text_codec(name, "iot").parse(line, None)
