"""The loaded models of a worker, by name, inside a budget of bytes.

ABSENT   -> LOADING   somebody asked, and there is room     [acquire]
LOADING  -> LOADED    its weights are read                  [acquire]
LOADED   -> ABSENT    nobody used it for a while, or another needs its room
                                                            [unload_idle, acquire]

A model with users is never unloaded. What counts are a model's weights, from the start
of its loading on, and what its users charge for their KV caches. Any thread may call;
whoever asks for an absent model loads it, and who asks for it meanwhile waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from flashfeed.models.errors import ModelUnavailable

from .gguf import model_bytes


class Loaded(Protocol):
    """What the pool needs of a model."""

    def free(self) -> None:
        """Gives the weights back."""


M = TypeVar("M", bound=Loaded)


@dataclass(eq=False)
class _Entry(Generic[M]):
    weights: int
    model: M | None = None  # None while it is loading
    users: int = 0
    charged: int = 0
    idle_since_s: float = 0.0

    @property
    def is_idle(self) -> bool:
        return self.model is not None and self.users == 0


@dataclass(frozen=True)
class Resident:
    """A loaded model as a metric sees it: bytes of weights and of KV caches, and users."""

    name: str
    weights: int
    kv: int
    users: int


class ModelPool(Generic[M]):
    """`bytes_max` 0 is no budget. Times are seconds of any clock that only goes on."""

    def __init__(
        self, load: Callable[[str, Path], M], bytes_max: int = 0, idle_unload_s: float = 600.0
    ) -> None:
        self._load: Final = load
        self._bytes_max: Final = bytes_max
        self._idle_unload_s: Final = idle_unload_s
        self._entries: Final[dict[str, _Entry[M]]] = {}
        self._changed: Final = threading.Condition()

    def acquire(self, name: str, path: Path) -> M:
        """The model, loaded where it is not; each call needs its `release`. Blocks.

        Raises what loading raises, and ModelUnavailable where the budget has no room
        even without the idle models.
        """
        weights: int | None = None
        while True:
            with self._changed:
                while (entry := self._entries.get(name)) is not None:
                    if entry.model is not None:
                        entry.users += 1
                        return entry.model
                    self._changed.wait()
                if weights is not None:
                    self._make_room(weights, f"model {name}")
                    entry = self._entries[name] = _Entry(weights)
                    break
            weights = model_bytes(path)  # it reads the file, which no other model waits for
        try:
            model = self._load(name, path)
        except BaseException:
            with self._changed:
                del self._entries[name]
                self._changed.notify_all()
            raise
        with self._changed:
            entry.model = model
            entry.users = 1
            self._changed.notify_all()
        return model

    def acquire_loaded(self, name: str) -> M | None:
        """The model where it is loaded, as `acquire` gives it; else None. Loads nothing."""
        with self._changed:
            entry = self._entries.get(name)
            if entry is None or entry.model is None:
                return None
            entry.users += 1
            return entry.model

    def release(self, name: str, now_s: float) -> None:
        """One user fewer. No context of the model may be left with the last one."""
        with self._changed:
            entry = self._entries[name]
            assert entry.users > 0, name
            entry.users -= 1
            if entry.users == 0:
                assert entry.charged == 0, (name, entry.charged)
                entry.idle_since_s = now_s

    def charge(self, name: str, n_bytes: int) -> None:
        """Counts `n_bytes` of KV cache to a model in use, before they are allocated.

        Raises ModelUnavailable where the budget has no room, idle models unloaded.
        """
        with self._changed:
            assert self._entries[name].users > 0, name
            self._make_room(n_bytes, f"a KV cache of model {name}")
            self._entries[name].charged += n_bytes

    def missing(self, n_bytes: int) -> int:
        """Bytes that users must give back before so many more may be charged; 0 for none."""
        with self._changed:
            return max(0, self._in_use() + n_bytes - self._bytes_max) if self._bytes_max else 0

    def discharge(self, name: str, n_bytes: int) -> None:
        """Gives back what was charged, after it was freed."""
        with self._changed:
            entry = self._entries[name]
            assert entry.charged >= n_bytes, (name, entry.charged, n_bytes)
            entry.charged -= n_bytes

    def unload_idle(self, now_s: float) -> list[str]:
        """Unloads what nobody used for `idle_unload_s`; the names."""
        with self._changed:
            due = [
                name
                for name, entry in self._entries.items()
                if entry.is_idle and now_s - entry.idle_since_s >= self._idle_unload_s
            ]
            for name in due:
                self._unload(name)
        return due

    def residents(self) -> list[Resident]:
        """What is loaded now, or loading."""
        with self._changed:
            return [
                Resident(name, entry.weights, entry.charged, entry.users)
                for name, entry in self._entries.items()
            ]

    def close(self) -> None:
        """Unloads every idle model, at the end."""
        with self._changed:
            for name in [name for name, entry in self._entries.items() if entry.is_idle]:
                self._unload(name)

    def _make_room(self, n_bytes: int, what: str) -> None:
        """Unloads idle models, the longest idle first, until there is room."""
        if not self._bytes_max:
            return
        idle = sorted(
            (name for name, entry in self._entries.items() if entry.is_idle),
            key=lambda name: self._entries[name].idle_since_s,
        )
        in_use = self._in_use()
        if in_use + n_bytes > self._bytes_max:
            raise ModelUnavailable(
                f"{what} needs {n_bytes >> 20} MiB; of models.bytes_max ({self._bytes_max >> 20} "
                f"MiB) {in_use >> 20} are in use by models with sessions"
            )
        for name in idle:
            if self._used() + n_bytes <= self._bytes_max:
                return
            self._unload(name)

    def _in_use(self) -> int:
        """What is used with every idle model gone."""
        return sum(one.weights + one.charged for one in self._entries.values() if not one.is_idle)

    def _used(self) -> int:
        return sum(entry.weights + entry.charged for entry in self._entries.values())

    def _unload(self, name: str) -> None:
        model = self._entries.pop(name).model
        assert model is not None, name
        model.free()
