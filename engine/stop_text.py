"""A generation's text as its tokens come: whole characters, and no stop string. Pure."""

from __future__ import annotations

from encodings import utf_8
from typing import Final


class StopText:
    """Text as it comes, with stop strings found wherever tokens cut them.

    What may be the beginning of a stop string is held back until it is clear.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops: Final = tuple(stop for stop in stops if stop)
        self._decoder: Final = utf_8.IncrementalDecoder("replace")
        self._held = ""

    def add(self, raw: bytes) -> tuple[str, str]:
        """The text that is free to go, and the stop string that ends it; "" where none does."""
        self._held += self._decoder.decode(raw)
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            at, stop = min(found, key=lambda one: one[0])
            return self._held[:at], stop
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        free = self._held[: len(self._held) - keep]
        self._held = self._held[len(free) :]
        return free, ""

    def rest(self) -> str:
        """What was held back, when nothing more comes; half a character is dropped."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, stop: str) -> int:
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0
