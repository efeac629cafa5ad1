"""The contexts that there are, and whether there is room for one more.

Three bounds hold at once: `engine.kv_bytes_max` for all KV caches, `models.bytes_max` for
these and the weights, and the memory that llama.cpp finds. The first two are counted before
a context is made. The third shows when it cannot be made: what was missing then counts for
`_FAILED_S`, or until a context gives its memory back, so that nobody tries in vain at every
step and nobody is evicted for bytes that would not help.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from flashfeed.models.errors import EngineError, ModelRefused, ModelUnavailable

from .homes import Homes
from .machine import free_memory_bytes
from .seats import Group, Kind
from .trace import Trace

_log: Final = logging.getLogger(__name__)
_FAILED_S: Final = 5.0


@dataclass(frozen=True)
class _Failed:
    """A context that could not be made: when (time.monotonic()), why, and the bytes of
    memory that were missing (0: it was not for memory)."""

    at: float
    why: str
    missing: int


class Groups:
    """The groups; the engine's thread only. `kv_bytes_max` bounds their bytes together."""

    def __init__(self, homes: Homes, kv_bytes_max: int, trace: Trace | None) -> None:
        self._homes: Final = homes
        self._kv_bytes_max: Final = kv_bytes_max
        self._trace: Final = trace
        self._groups: list[Group] = []
        self._failed: dict[Kind, _Failed] = {}

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._groups))

    @property
    def n_seats(self) -> int:
        """Seats that are held."""
        return sum(group.n_seats - group.n_free for group in self._groups)

    @property
    def n_bytes(self) -> int:
        """What all of them were counted with."""
        return sum(group.n_bytes for group in self._groups)

    def with_seat(self, kind: Kind) -> Group | None:
        """A group of the kind that has a free seat."""
        return next((one for one in self._groups if one.may_serve(kind) and one.n_free), None)

    def expect_possible(self, kind: Kind) -> None:
        """Raises ModelRefused where no context of the kind can be had, whoever is evicted."""
        if kind.n_bytes > self._kv_bytes_max:
            raise ModelRefused(f"{kind.needs}; engine.kv_bytes_max is {_mib(self._kv_bytes_max)}")

    def missing(self, kind: Kind) -> int:
        """Bytes of other contexts that must be given back before one of the kind may be
        made; 0 where there is room."""
        n_bytes = kind.n_bytes
        counted = max(self.n_bytes + n_bytes - self._kv_bytes_max, self._homes.missing(n_bytes))
        failed = self._lately_failed(kind)
        return max(0, counted, failed.missing if failed is not None else 0)

    def expect_room(self, kind: Kind) -> None:
        """Raises ModelUnavailable where there would be no room if every context were given
        back: waiting for sessions to become idle is then in vain."""
        if self.missing(kind) <= self.n_bytes:
            return
        failed = self._lately_failed(kind)
        if failed is not None:
            raise ModelUnavailable(failed.why)
        raise ModelUnavailable(
            f"{kind.needs}; beside the models that have sessions models.bytes_max leaves less: "
            "raise it, or end the sessions of another model"
        )

    def make(self, kind: Kind) -> Group:
        """A new group; those without a seat in use make way. Raises ModelUnavailable."""
        # Memory is bounded by the seats allowed, whatever kinds of contexts come and go.
        for unused in [group for group in self._groups if group.n_free == group.n_seats]:
            self.free(unused)
        failed = self._lately_failed(kind)
        if failed is not None:
            raise ModelUnavailable(failed.why)
        self._homes.charge(kind.home, kind.n_bytes)
        try:
            group = Group(kind, self._trace)
        except EngineError as error:
            self._homes.discharge(kind.home, kind.n_bytes)
            raise self._note_failed(kind, error) from error
        except BaseException:
            self._homes.discharge(kind.home, kind.n_bytes)
            raise
        self._groups.append(group)
        return group

    def free(self, group: Group) -> None:
        """Gives the context's memory back."""
        self._groups.remove(group)
        group.context.free()
        self._homes.discharge(group.home, group.n_bytes)
        self._failed.clear()

    def _lately_failed(self, kind: Kind) -> _Failed | None:
        failed = self._failed.get(kind)
        if failed is not None and time.monotonic() - failed.at > _FAILED_S:
            del self._failed[kind]
            return None
        return failed

    def _note_failed(self, kind: Kind, error: EngineError) -> ModelUnavailable:
        free = free_memory_bytes(kind.home.settings.gpu_layers)
        why = f"{kind.needs}, and {_mib(free)} of memory are free: {error}"
        _log.warning("%s", why)
        self._failed[kind] = _Failed(time.monotonic(), why, max(0, kind.n_bytes - free))
        return ModelUnavailable(why)


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 20):.1f} MiB"
