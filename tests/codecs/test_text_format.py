from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.text_format import FormatLine
from flashfeed.models.errors import ConfigError
from flashfeed.models.records import Event, Ohlcv, Record, StreamType

BAR = Ohlcv(o=1.0, h=1234.5, l=0.5, c=122.0, v=2779100.0, sym="a b", timestamp=60.0)


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{c} {v:.2s}", "122 2.8M\n"),
        ("{sym} closed at {c:.2f}", '"a b" closed at 122.00\n'),
        ("{h:,.1f}|{l:+.1e}", "1,234.5|+5.0e-01\n"),
        ("{{{c:.4g}}}", "{122}\n"),
        ("t={timestamp:.0f}", "t=60\n"),
        ("<|im_end|> {c}", "<|im_end|> 122\n"),
    ],
)
def test_lines(template: str, line: str) -> None:
    assert FormatLine("format:" + template, "ohlcv").render(BAR, None) == line


def test_an_absent_field_is_a_dash() -> None:
    codec = FormatLine("format:{sym} {c}", "ohlcv")
    record = Ohlcv(o=1.0, h=1.0, l=1.0, c=1.0, v=1.0)
    assert codec.render(record, None) == "- 1\n"
    assert codec.parse("- 1\n", None) == {"c": 1.0}


def test_integers_and_names() -> None:
    codec = FormatLine("format:{src} {sev:+} {cnt:,}", "event")
    record = Event(src="x\ny", sev=2, cat="c", cnt=12345)
    assert codec.render(record, None) == '"x\\u000ay" +2 12,345\n'
    assert codec.parse(codec.render(record, None), None) == {"src": "x\ny", "sev": 2, "cnt": 12345}


@pytest.mark.parametrize(
    ("template", "record_type", "said"),
    [
        ("", "ohlcv", "1 to 500 characters"),
        ("{c}" + "x" * 500, "ohlcv", "1 to 500 characters"),
        ("{close}", "ohlcv", "no field 'close'"),
        ("{}", "ohlcv", "no field ''"),
        ("{0}", "ohlcv", "no field '0'"),
        ("{c.__class__}", "ohlcv", "no field"),
        ("{c[0]}", "ohlcv", "no field"),
        ("{__class__}", "ohlcv", "no field"),
        ("{c!r}", "ohlcv", "no `!r`"),
        ("{c:{v}}", "ohlcv", "expected a format like"),
        ("{c:1000000000}", "ohlcv", "expected a format like"),
        ("{c:>99999999.2f}", "ohlcv", "expected a format like"),
        ("{c:.999f}", "ohlcv", "expected a format like"),
        ("{c:.3s}", "ohlcv", "expected a format like"),
        ("{sym:s}", "ohlcv", "no format for a text"),
        ("{sev:.2f}", "event", "expected a format like"),
        ("{c}{v}", "ohlcv", "expected text before {v}"),
        ("{c", "ohlcv", "expected '}'"),
        ("c}", "ohlcv", "Single '}'"),
        ("{band}", "vitals", "expected {missing} beside the score or its band"),
        ("{score} of {hr}", "vitals", "expected {missing} beside the score or its band"),
        ("News2 {score} no {missing}", "vitals", "expected {score_name}"),
        ("{streak:.1f}", "ohlcv", "expected a format like + or ,"),
        ("{zscor}", "ohlcv", "did you mean 'zscore'"),
        ("{c}\n{v}", "ohlcv", "printable characters on one line"),
        ("{c}\u2028", "ohlcv", "printable characters on one line"),
    ],
)
def test_bad_templates_are_config_errors(template: str, record_type: StreamType, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FormatLine("format:" + template, record_type)
    assert said in str(caught.value)


@given(st.text(alphabet="{}c v:.2sf!r,+o[]\n", max_size=14))
def test_any_template_works_or_is_refused(template: str) -> None:
    record: Record = BAR
    try:
        codec = FormatLine("format:" + template, "ohlcv")
    except ConfigError:
        return
    line = codec.render(record, None)
    assert line.endswith("\n") and len(line.splitlines()) == 1 and len(line) < 2000
