"""What frozen prefixes left in KV caches, as bytes, for other contexts to take over."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from .seats import PrefixKey


class PrefixStates:
    """The KV of frozen prefixes as bytes, to be copied into other contexts; the least
    lately used are forgotten above `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max: Final = bytes_max
        self._states: OrderedDict[PrefixKey, memoryview] = OrderedDict()

    def get(self, key: PrefixKey) -> memoryview | None:
        """The bytes of a prefix that was decoded before."""
        state = self._states.get(key)
        if state is not None:
            self._states.move_to_end(key)
        return state

    def forget(self, key: PrefixKey) -> None:
        """Drops a prefix that llama.cpp does not take back."""
        self._states.pop(key, None)

    def keep(self, key: PrefixKey, state: memoryview) -> None:
        """Remembers a prefix."""
        self._states[key] = state
        while sum(map(len, self._states.values())) > self._bytes_max and len(self._states) > 1:
            self._states.popitem(last=False)
