"""Where a JSON value ends in a text that is still coming. Pure.

Brackets and strings are followed, each character once; whether the value is right
inside is the decoder's to say. What cannot be JSON is seen at once, so that a broken
value is not waited for.
"""

from __future__ import annotations

import re
from typing import Final

_DEPTH_MAX: Final = 64
_CLOSES: Final = {"{": "}", "[": "]"}
# What may stand between brackets and strings: numbers, true, false, null, commas, colons.
_BETWEEN: Final = re.compile(r"[ \t\r\nA-Za-z0-9,:.+-]*")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*')


class JsonEnd:
    """Finds the end of the object or array that begins at `start`, white space before it
    (and the characters of `skip`) aside."""

    def __init__(self, start: int = 0, skip: str = "") -> None:
        self._at = start
        self._skip: Final = frozenset(" \t\r\n" + skip)
        self._open: list[str] = []
        self._in_string = False
        self._escaped = False
        self.failed = False

    def find(self, text: str) -> int | None:
        """The place after the value, once it is all there. `text` is what the call before
        had, and more; `failed` says that no value will come."""
        while not self.failed and self._at < len(text):
            if self._in_string:
                self._string(text)
            elif self._open:
                self._structure(text)
                if not self._open and not self.failed:
                    return self._at
            else:
                self._begin(text[self._at])
        return None

    def _begin(self, character: str) -> None:
        if character in _CLOSES:
            self._open.append(_CLOSES[character])
        elif character not in self._skip:
            self.failed = True
            return
        self._at += 1

    def _string(self, text: str) -> None:
        if self._escaped:
            self._escaped = False
            self._at += 1
            return
        found = _PLAIN.match(text, self._at)
        self._at = found.end() if found else self._at
        if self._at == len(text):
            return
        self._in_string = text[self._at] != '"'
        self._escaped = text[self._at] == "\\"
        # Line ends and the like are written as escapes in JSON.
        self.failed = self._in_string and not self._escaped
        self._at += 1

    def _structure(self, text: str) -> None:
        found = _BETWEEN.match(text, self._at)
        self._at = found.end() if found else self._at
        if self._at == len(text):
            return
        character = text[self._at]
        self._at += 1
        if character == '"':
            self._in_string = True
        elif character in _CLOSES:
            self._open.append(_CLOSES[character])
            self.failed = len(self._open) > _DEPTH_MAX
        else:
            self.failed = character != self._open.pop()
