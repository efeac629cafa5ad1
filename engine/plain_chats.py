"""Chats without data: places that they run in, and which place takes which chat.

A place is an open session of nobody's, in which such chats run one after the other, as
branches; the last one's KV stays, so that its next turn decodes only what is new. Places
belong to one tenant, model and system text, and are never shared across tenants.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from flashfeed.models.errors import FlashfeedError, Overloaded
from flashfeed.models.generation import Continuation, PlainPrompt
from flashfeed.models.session import SessionSpec, WindowSpec

from .chat_turns import system_text

_WAIT_S: Final = 10.0
_LOOK_S: Final = 0.02

_Key: TypeAlias = tuple[SessionSpec, bool]
Open: TypeAlias = Callable[[str, SessionSpec, PlainPrompt], Coroutine[Any, Any, object]]
Close: TypeAlias = Callable[[str], Awaitable[object]]


@dataclass(eq=False)
class _Place:
    """A session, what runs in it, and the parts of what ran last."""

    id: str
    key: _Key
    parts: tuple[object, ...] = ()
    busy: bool = True
    opened: bool = False
    used: int = 0


class PlainChats:
    """At most `places_max` places. Any event loop may call."""

    def __init__(self, places_max: int, open_place: Open, close_place: Close) -> None:
        self._places_max: Final = places_max
        self._open: Final = open_place
        self._close: Final = close_place
        self._places: Final[list[_Place]] = []
        self._lock: Final = threading.Lock()
        self._numbers: Final = itertools.count(1)

    @asynccontextmanager
    async def place(self, asked: PlainPrompt, tenant: str, model: str) -> AsyncIterator[str]:
        """The id of a session to run it in, for the time of the block.

        Raises Overloaded where every place is busy for `_WAIT_S`, and what opening raises.
        """
        plain_text = isinstance(asked, Continuation)
        prompt = "" if isinstance(asked, Continuation) else system_text(asked.messages)
        window = WindowSpec("grow")
        spec = SessionSpec(type="event", prompt=prompt, window=window, tenant=tenant, model=model)
        place = await self._take((spec, plain_text), _parts(asked))
        opening: asyncio.Future[object] | None = None
        try:
            if not place.opened:
                opening = asyncio.ensure_future(self._open(place.id, spec, asked))
                opening.add_done_callback(partial(_note_opened, place))
                # The engine opens it whether or not somebody still waits for it here.
                await asyncio.shield(opening)
            yield place.id
        finally:
            if opening is None or opening.done():
                self._give_back(place, opening)
            else:
                opening.add_done_callback(partial(self._give_back, place))

    def _give_back(self, place: _Place, _: object = None) -> None:
        with self._lock:
            place.busy = False
            place.used = next(self._numbers)
            if not place.opened:
                self._places.remove(place)

    async def _take(self, key: _Key, parts: tuple[object, ...]) -> _Place:
        deadline = time.monotonic() + _WAIT_S
        while True:
            with self._lock:
                place, evicted = self._choose(key, parts)
            if place is not None:
                try:
                    if evicted is not None:
                        await self._forget(evicted)
                except BaseException:
                    self._give_back(place)
                    raise
                return place
            if time.monotonic() > deadline:
                raise Overloaded(
                    f"all {self._places_max} chats without a session are in use; try again soon"
                )
            await asyncio.sleep(_LOOK_S)

    def _choose(self, key: _Key, parts: tuple[object, ...]) -> tuple[_Place | None, _Place | None]:
        """A place for the chat, None where all are busy; and one that makes way for it."""
        idle = [one for one in self._places if not one.busy]
        going_on = [one for one in idle if one.key == key and _n_common(one.parts, parts)]
        evicted = None
        if going_on:
            place = max(going_on, key=lambda one: (_n_common(one.parts, parts), one.used))
        elif len(self._places) < self._places_max:
            place = self._added(key)
        elif not idle:
            return None, None
        else:
            oldest = min(idle, key=lambda one: one.used)
            if oldest.key == key:
                place = oldest
            else:
                self._places.remove(oldest)
                evicted, place = oldest, self._added(key)
        place.busy, place.parts = True, parts
        return place, evicted

    def _added(self, key: _Key) -> _Place:
        # No session of a user's has such an id: theirs are printable.
        place = _Place(f"\0chat {next(self._numbers)}", key)
        self._places.append(place)
        return place

    async def _forget(self, place: _Place) -> None:
        try:
            await self._close(place.id)
        except Overloaded:  # the engine was not told: it is open still
            with self._lock:
                self._places.append(place)
            raise
        except FlashfeedError:  # the engine stops, or closed it already
            return


def _note_opened(place: _Place, opening: asyncio.Future[object]) -> None:
    place.opened = not opening.cancelled() and opening.exception() is None


def _parts(asked: PlainPrompt) -> tuple[object, ...]:
    if isinstance(asked, Continuation):
        return tuple(asked.text.split())
    first, *rest = asked.messages
    return ((asked.tools, first), *rest)


def _n_common(first: Sequence[object], second: Sequence[object]) -> int:
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
