from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.registry import codec
from flashfeed.models.errors import DecodeFault

from codec_samples import outside, source


def read(data: bytes, **options: Any) -> Any:
    return codec("csv", options, outside())(data, source())


def test_named_columns_and_a_first_line() -> None:
    assert read(b"1,x\n2,\n", columns=["a", "b"]) == [{"a": "1", "b": "x"}, {"a": "2"}]
    assert read(b"a, b\r\n1,x\r\n") == [{"a": "1", "b": "x"}]
    assert read(b"1;'x;y'", columns=["a", "b"], delimiter=";", quote="'") == [
        {"a": "1", "b": "x;y"}
    ]
    assert read("ü,1".encode("latin-1"), columns=["a", "b"], encoding="latin-1") == [
        {"a": "ü", "b": "1"}
    ]


def test_a_bad_line_leaves_its_neighbours_alone() -> None:
    first, bad, last = read(b"1,2\n3\n4,5\n", columns=["a", "b"])
    assert (first, last) == ({"a": "1", "b": "2"}, {"a": "4", "b": "5"})
    assert bad.path == "$[1]" and "expected 2 fields, got 1 in line 2" in str(bad)


@pytest.mark.parametrize("data", [b'1,"open\n2,3\n', b'1,"a"b\n'])
def test_a_quote_that_does_not_close_ends_the_message(data: bytes) -> None:
    first, bad = read(b"0,0\n" + data, columns=["a", "b"])
    assert first == {"a": "0", "b": "0"}
    assert type(bad) is DecodeFault and bad.path == "$[1]"


def test_what_is_no_text() -> None:
    with pytest.raises(DecodeFault, match="expected utf-8 text"):
        read(b"\xff", columns=["a"])
    with pytest.raises(DecodeFault, match="different names"):
        read(b"a,a\n1,2\n")
    (bad,) = read(b"x" * 200_000, columns=["a"])  # the field limit of Python's csv
    assert "field larger than field limit" in str(bad)


@given(
    st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2))
)
def test_what_was_written_is_read(rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    values = read(out.getvalue().encode(), columns=["a", "b"])
    assert [[value.get("a", ""), value.get("b", "")] for value in values] == rows
