from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.casts import BadValue, hl7_time
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.registry import codec
from flashfeed.models.errors import DecodeFault
from flashfeed.models.feed import MappingSpec

from codec_samples import ORU, outside, source

READ = codec("hl7", {}, outside())


def read(text: str) -> Any:
    return READ(text.encode(), source())


def test_segments_fields_and_components() -> None:
    (message,) = read(ORU)
    assert message["MSH"][0]["1"] == {"1": "|"}
    assert message["MSH"][0]["2"] == {"1": "^~\\&"}
    assert message["MSH"][0]["9"] == {"1": "ORU", "2": "R01", "3": "ORU_R01"}
    patient = message["PID"][0]
    assert patient["3"]["1"] == "12345"
    assert patient["3"]["~"] == [{"1": "99", "4": "NAT", "5": "NI"}]
    assert patient["5"] == {"1": "Müller", "2": "Jörg&Co"}
    heart, temperature, note = message["OBX"]
    assert (heart["3"]["1"], heart["5"]["1"], heart["6"]["1"]) == ("8867-4", "82", "/min")
    assert "7" not in temperature  # HL7's null
    assert heart["OBR"]["7"] == {"1": "20240102030400"}
    assert note["3"] == {"1": "NOTE", "2": "a", "2&2": "b", "3": "L"}
    # \H\ and the like are left as they are; \X41\ is an A, \.br\ a line break.
    assert note["5"] == {"1": "pain\n5|10 A"}


def test_mapped_to_readings() -> None:
    mapping = Mapping(
        MappingSpec(
            model="iot",
            key="^PID[0].3.1",
            each="OBX[]",
            when={"2.1": "NM"},
            time="14.1|OBR.7.1:hl7",
            map={"sid": "3.1", "val": "5.1"},
        )
    )
    (message,) = read(ORU)
    mapped = mapping(message, source())
    assert not mapped.faults and mapped.skipped == 1
    assert [
        (one.key, one.record.sid, one.record.val, one.record.timestamp) for one in mapped.records
    ] == [
        ("12345", "8867-4", 82.0, 1704164641.0),
        ("12345", "8310-5", 37.2, 1704164640.0),
    ]


@pytest.mark.parametrize("line_break", ["\r", "\n", "\r\n"])
def test_line_breaks_and_mllp(line_break: str) -> None:
    text = ORU.replace("\r", line_break)
    assert read(text) == read(ORU) == read(f"\x0b{text}\x1c\r")


def test_a_batch_is_a_value_for_each_message() -> None:
    batch = f"FHS|^~\\&|A\rBHS|^~\\&|A\r{ORU}MSH|\r{ORU}BTS|2\rFTS|1\r"
    first, bad, last = read(batch)
    assert first == last == read(ORU)[0]
    assert type(bad) is DecodeFault and bad.path == "$[1]"
    # MLLP frames one behind the other.
    assert read(f"\x0b{ORU}\x1c\r\x0b{ORU}\x1c\r") == [first, first]


def test_other_delimiters_and_another_character_set() -> None:
    text = "MSH#*@$%#A#B#C#D#1##ORU*R01#1#P#2.3######8859/1\rPID###1*2%3@4##M$S$ü\r"
    (message,) = READ(text.encode("latin-1"), source())
    assert message["PID"][0]["3"] == {"1": "1", "2": "2", "2&2": "3", "~": [{"1": "4"}]}
    assert message["PID"][0]["5"] == {"1": "M*ü"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PID|1\r", "expected a segment MSH first"),
        ('{"a": 1}', "expected a segment MSH first"),
        ("\x0b\x1c\r", "expected a segment MSH, got none"),
    ],
)
def test_what_is_no_message(text: str, said: str) -> None:
    with pytest.raises(DecodeFault, match=said):
        read(text)


@pytest.mark.parametrize("head", ["MSH|^^\\&|A", "MSH|", "MSH", "MSH|^~\\&|A\rpid|1", "MSHA^~"])
def test_what_is_no_good_head(head: str) -> None:
    (bad,) = read(head)
    assert type(bad) is DecodeFault


def test_bytes_of_another_character_set_are_a_fault() -> None:
    with pytest.raises(DecodeFault, match="MSH-18"):
        READ(ORU.encode("latin-1"), source())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024", 1704067200.0),
        ("202402", 1706745600.0),
        ("20240102030405", 1704164645.0),
        ("20240102030405.25-0500", 1704182645.25),
        ("202401020304+0100", 1704161040.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert hl7_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "24", "20241301", "2024-01-02", "202401020304050", 2024, None]
)
def test_what_is_no_time(text: Any) -> None:
    with pytest.raises(BadValue):
        hl7_time(text)


_SIGNS = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\n": "\\.br\\"}


@given(
    st.text(
        st.characters(exclude_characters="\r\x0b\x1c", exclude_categories=["Cs"]), min_size=1
    ).filter(lambda text: text != '""')
)
def test_an_escaped_text_comes_back(text: str) -> None:
    escaped = "".join(_SIGNS.get(sign, sign) for sign in text)
    (message,) = read(f"MSH|^~\\&|A\rOBX|1|ST|x||a^{escaped}^b|c\r")
    assert message["OBX"][0]["5"] == {"1": "a", "2": text, "3": "b"}
    assert message["OBX"][0]["6"] == {"1": "c"}
