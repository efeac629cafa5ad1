"""How deeply a JSON text is nested, without parsing it.

Parsers and whatever walks their values recurse; a body of brackets would run into
Python's recursion limit in a place that nobody chose. Counting costs less than parsing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

JSON_DEPTH_MAX: Final = 64

_NO_BRACKET: Final = bytes(set(range(256)) - set(b"[]{}"))


def is_deeper(text: bytes, depth_max: int) -> bool:
    """Whether arrays and objects are nested deeper than that. Of a text that is no JSON
    it says something or other, and does not fail."""
    if text.count(b"[") + text.count(b"{") <= depth_max:
        return False
    # What is outside of strings is every other piece between quotes that are no escapes.
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(plain.split(b'"')[::2]).translate(None, _NO_BRACKET)
    codes = np.frombuffer(brackets, np.uint8)
    opens = (codes == ord("[")) | (codes == ord("{"))
    depth = np.cumsum(np.where(opens, np.int32(1), np.int32(-1)), dtype=np.int32)
    return bool(depth.size) and int(depth.max()) > depth_max
