from __future__ import annotations

import pytest

from flashfeed.codecs.json import decode
from flashfeed.models.errors import DecodeFault


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b'{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        (b" 7 ", 7),
        (b"null", None),
        (None, None),
        (b"", None),
    ],
)
def test_decodes(payload: bytes | None, value: object) -> None:
    assert decode(payload) == value


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'{"a": 1,\n "b": n/a}', ["line 2 column", "near", "n/a"]),
        (b"NaN", ["line 1 column 1", "NaN"]),
        (b"\xff\xfe", ["expected JSON"]),
        (b"cpu,host=a usage=1 1", ["character 0 of 20", "cpu,host=a"]),
        (b"\x00\x00\x00\x00\x07avro", ["expected JSON"]),
        (b"[" * 5000, ["expected JSON"]),
    ],
)
def test_fault_says_where(payload: bytes, said: list[str]) -> None:
    with pytest.raises(DecodeFault) as caught:
        decode(payload)
    for words in said:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.reason == "decode"
