from __future__ import annotations

from typing import Any

import orjson
import pytest

from flashfeed.codecs.registry import codec
from flashfeed.models.errors import DecodeFault

from codec_samples import outside, source

READ = codec("senml", {}, outside())


def read(*records: Any, now_ms: int | None = 1_700_000_000_000) -> Any:
    return READ(orjson.dumps(records), source(timestamp_ms=now_ms))


def test_base_fields_are_resolved() -> None:
    # RFC 8428, section 5.1.3, in the middle of it.
    dev = "urn:dev:ow:10e2073a01080063"
    values = read(
        {"bn": dev + ":", "bt": 1.320067464e9, "bu": "%RH", "v": 20},
        {"u": "lon", "v": 24.30621},
        {"u": "lat", "v": 60.07965, "n": "pos"},
        {"t": 60, "v": 20.3},
        {"bn": dev + "/b", "bu": "", "n": "x", "vs": "on"},
    )
    assert values == [
        {"n": f"{dev}:", "u": "%RH", "t": 1.320067464e9, "v": 20},
        {"n": f"{dev}:", "u": "lon", "t": 1.320067464e9, "v": 24.30621},
        {"n": f"{dev}:pos", "u": "lat", "t": 1.320067464e9, "v": 60.07965},
        {"n": f"{dev}:", "u": "%RH", "t": 1.320067524e9, "v": 20.3},
        {"n": f"{dev}/bx", "u": "", "t": 1.320067464e9, "vs": "on"},
    ]


def test_base_values_and_sums() -> None:
    values = read(
        {"bn": "a", "bv": 10, "bs": 100},
        {"v": 1.5, "s": 2},
        {"t": -1},
        {"vb": True},
    )
    assert [value.get("v") for value in values] == [11.5, 10, None]
    assert [value["s"] for value in values] == [102, 100, 100]
    assert values[2]["vb"] is True


def test_times_below_2_to_the_28_count_from_now() -> None:
    values = read({"n": "a", "v": 1}, {"n": "a", "v": 1, "t": -5}, {"n": "a", "v": 1, "t": 2**28})
    assert [value["t"] for value in values] == [1_700_000_000.0, 1_699_999_995.0, 2**28]
    (bad,) = read({"n": "a", "v": 1, "t": -5}, now_ms=None)
    assert bad.path == "$[0].t" and "no time" in str(bad)


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ({"v": 1}, "$[1].n"),
        ({"n": "-a", "v": 1}, "$[1].n"),
        ({"n": "a b", "v": 1}, "$[1].n"),
        ({"n": 5, "v": 1}, "$[1].n"),
        ({"n": "a", "v": "1"}, "$[1].v"),
        ({"n": "a", "v": True}, "$[1].v"),
        ({"n": "a", "vb": 1}, "$[1].vb"),
        ({"n": "a", "v": 1, "vs": "x"}, "$[1]"),
        ({"n": "a"}, "$[1]"),
        ({"n": "a", "v": 1, "new_": 2}, "$[1]"),
    ],
)
def test_a_record_at_fault_leaves_the_others_alone(record: dict[str, Any], path: str) -> None:
    first, bad, last = read({"n": "a", "v": 1}, record, {"n": "b", "v": 2, "unknown": 3})
    assert (first["v"], last["v"]) == (1, 2)
    assert type(bad) is DecodeFault and bad.path == path


@pytest.mark.parametrize(
    ("pack", "path"),
    [
        ({"n": "a", "v": 1}, "$"),
        ([1], "$[0]"),
        ([{"bn": 1, "v": 1}], "$[0].bn"),
        ([{"bt": "now", "n": "a", "v": 1}], "$[0].bt"),
        ([{"bver": 11, "n": "a", "v": 1}], "$[0].bver"),
    ],
)
def test_a_bad_base_ends_the_pack(pack: Any, path: str) -> None:
    with pytest.raises(DecodeFault) as caught:
        READ(orjson.dumps(pack), source())
    assert caught.value.path == path
