from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.presets import mapping_spec
from flashfeed.codecs.registry import codec
from flashfeed.models.errors import DecodeFault

from codec_samples import outside, source

READ = codec("influx", {}, outside())


def read(text: str) -> Any:
    return READ(text.encode(), source())


# The examples of InfluxDB's line protocol reference.
@pytest.mark.parametrize(
    ("line", "value"),
    [
        (
            'myMeasurement,tag1=value1,tag2=value2 fieldKey="fieldValue" 1556813561098000000',
            {
                "name": "myMeasurement",
                "tags": {"tag1": "value1", "tag2": "value2"},
                "fields": {"fieldKey": "fieldValue"},
                "timestamp": 1556813561098000000,
            },
        ),
        (
            "m f=1.0,g=1,h=-1.234456e+78,i=12485903i,u=12485903u,t=T,x=false",
            {
                "name": "m",
                "tags": {},
                "fields": {
                    "f": 1.0,
                    "g": 1.0,
                    "h": -1.234456e78,
                    "i": 12485903,
                    "u": 12485903,
                    "t": True,
                    "x": False,
                },
            },
        ),
        (
            r"my\ Measure\,ment,t\=ag\ Key\,1=tag\ Value1 field\ Key=100",
            {
                "name": "my Measure,ment",
                "tags": {"t=ag Key,1": "tag Value1"},
                "fields": {"field Key": 100.0},
            },
        ),
        (
            r'm f="a \"q\", \\ b=c \x",g="two' + "\n" + 'lines" 5',
            {
                "name": "m",
                "tags": {},
                "fields": {"f": r'a "q", \ b=c \x', "g": "two\nlines"},
                "timestamp": 5,
            },
        ),
        ("m,emoji=🍭 f=1", {"name": "m", "tags": {"emoji": "🍭"}, "fields": {"f": 1.0}}),
    ],
)
def test_lines(line: str, value: dict[str, Any]) -> None:
    assert read(line) == [value]


def test_comments_and_empty_lines_are_passed_over() -> None:
    values = read("# a comment\n\nm f=1 1\r\n  \nm f=2 2\n")
    assert [value["fields"]["f"] for value in values] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("m", "a space and `field=value`"),
        (",t=v f=1", "a measurement"),
        ("m,t= f=1", "`,tag=value`"),
        ("m f=1 soon", "an integer timestamp"),
        ("m f=", "`field=value`"),
        ("m f=1e999", "a finite number"),
        ("m f=NaN", "a number, an integer"),
        ('m f="open', "`field=value`"),
        ('{"json": 1}', "`field=value`"),
    ],
)
def test_a_bad_line_leaves_its_neighbours_alone(line: str, said: str) -> None:
    first, bad, last = read(f"m f=1\n{line}\nm f=2")
    assert (first["fields"], last["fields"]) == ({"f": 1.0}, {"f": 2.0})
    assert type(bad) is DecodeFault and said in str(bad)
    assert bad.path == "$[1]"


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(DecodeFault, match="expected UTF-8 text"):
        READ(b"m f=\xff", source())


def test_telegrafs_preset_reads_both_of_its_formats() -> None:
    mapping = Mapping(mapping_spec("telegraf", {"time": "^timestamp:ns"}))
    (value,) = read('cgm,host=cgm-01 glucose=258i,state="ok" 1269424260000000000')
    mapped = mapping(value, source())
    assert [(one.key, one.record.timestamp) for one in mapped.records] == [("cgm-01", 1269424260.0)]
    assert mapped.skipped == 1


def _escaped(text: str) -> str:
    for sign in ",= ":
        text = text.replace(sign, f"\\{sign}")
    return text


# A backslash at the end of a name cannot be written in this format; a line break neither.
_NAME = st.text(st.characters(exclude_characters='\\\n\r#"', exclude_categories=["Cs"]), min_size=1)


@given(
    _NAME,
    st.dictionaries(_NAME, _NAME, max_size=4),
    st.dictionaries(
        _NAME,
        st.floats(allow_nan=False, allow_infinity=False)
        | st.integers(-(2**63), 2**63 - 1)
        | st.booleans()
        | st.text(st.characters(exclude_categories=["Cs"])),
        min_size=1,
        max_size=4,
    ),
    st.none() | st.integers(-(2**63), 2**63 - 1),
)
def test_what_was_written_is_read(
    name: str, tags: dict[str, str], fields: dict[str, Any], stamp: int | None
) -> None:
    def shown(value: Any) -> str:
        if isinstance(value, str):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{value}i" if type(value) is int else repr(value)

    # "=" needs no escape in a measurement, but may have one.
    head = "".join(f",{_escaped(key)}={_escaped(value)}" for key, value in tags.items())
    body = ",".join(f"{_escaped(key)}={shown(value)}" for key, value in fields.items())
    (value,) = read(f"{_escaped(name)}{head} {body}{'' if stamp is None else f' {stamp}'}")
    assert value == {
        "name": name,
        "tags": tags,
        "fields": fields,
        **({} if stamp is None else {"timestamp": stamp}),
    }
