"""Homes whose models are not loaded: fetched, checked and loaded in a thread, once for all who
wait for one of them. Who wants a loaded one has it at once, in no thread.

A load has one user of the home for each that waits; one that goes meanwhile is counted out, and
one that goes when it is loaded releases it.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from .homes import Home, Homes

LOADS_MAX: Final = 8
"""Models that are fetched at a time; each takes a thread however many wait for it."""


@dataclass(eq=False)
class _Load:
    """`done` says the home, once `n_waiting` users of it were counted."""

    n_waiting: int = 0
    done: Future[Home] = field(default_factory=Future)


class HomeLoads:
    """Any event loop may ask."""

    def __init__(self, homes: Homes) -> None:
        self._homes: Final = homes
        self._threads: Final = ThreadPoolExecutor(LOADS_MAX, "flashfeed-models")
        self._lock: Final = threading.Lock()
        self._loads: Final[dict[str, _Load]] = {}

    async def acquire(self, reference: str) -> Home:
        """The home of a model, to be released. A caller that is cancelled meanwhile does not
        stop the loading, and has nothing to release. Raises what `Homes.acquire` raises."""
        home = self._homes.acquire_loaded(reference)
        if home is not None:
            return home
        load = self._joined(reference)
        try:
            return await asyncio.shield(asyncio.wrap_future(load.done))
        except asyncio.CancelledError:
            self._leave(reference, load)
            raise

    def _joined(self, reference: str) -> _Load:
        with self._lock:
            load = self._loads.get(reference)
            if load is None:
                load = self._loads[reference] = _Load()
                self._threads.submit(self._run, reference, load)
            load.n_waiting += 1
            return load

    def _leave(self, reference: str, load: _Load) -> None:
        with self._lock:
            if self._loads.get(reference) is load:
                load.n_waiting -= 1
                return
        if load.done.exception() is None:
            self._homes.release(load.done.result())

    def _run(self, reference: str, load: _Load) -> None:
        try:
            home = self._homes.acquire(reference)
        except BaseException as error:
            with self._lock:
                del self._loads[reference]
            load.done.set_exception(error)
            return
        with self._lock:
            del self._loads[reference]
            for _ in range(load.n_waiting):
                self._homes.keep(home)
        self._homes.release(home)
        load.done.set_result(home)
