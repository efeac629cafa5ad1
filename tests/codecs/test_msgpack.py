from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.codecs.casts import iso_time
from flashfeed.codecs.registry import codec
from flashfeed.models.errors import DecodeFault

from codec_samples import outside, source

READ = codec("msgpack", {}, outside())

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(_PLAIN)
def test_what_was_written_is_read(value: Any) -> None:
    assert READ(msgspec.msgpack.encode(value), source()) == (value,)


def test_times_and_extensions() -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
    (value,) = READ(
        msgspec.msgpack.encode({"at": moment, "x": msgspec.msgpack.Ext(5, b"ab")}), source()
    )
    assert value == {"at": moment, "x": b"ab"}
    assert iso_time(value["at"]) == moment.timestamp()


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x82\xa1a",
        b"\x01\x02",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x81\x80\x01",
        b"\xc7\x0c\xff" + b"\xff" * 12,  # a timestamp beyond the calendar
        b'{"a": 1}',
    ],
)
def test_what_is_no_messagepack(data: bytes) -> None:
    with pytest.raises(DecodeFault, match="expected MessagePack"):
        READ(data, source())
