"""Places for chats without data, whoever goes while one is opened or makes way: none is lost.

Over an engine of a dictionary, which does what it was told though nobody waits for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from flashfeed.engine.plain_chats import PlainChats
from flashfeed.models.errors import Overloaded
from flashfeed.models.generation import Continuation, PlainPrompt
from flashfeed.models.session import SessionSpec

ONE, TWO = Continuation("One thing"), Continuation("Another thing")


class Opened:
    """What is open; `goes_on` holds its answers back, `full` refuses what is new to do."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.full = False

    async def open(self, session_id: str, spec: SessionSpec, asked: PlainPrompt) -> None:
        self.ids.add(session_id)
        await self.goes_on.wait()

    async def close(self, session_id: str) -> None:
        if self.full:
            raise Overloaded("jobs")
        self.ids.remove(session_id)
        await self.goes_on.wait()


async def asked(chats: PlainChats, what: Continuation, tenant: str = "") -> str:
    async with chats.place(what, tenant, "") as session_id:
        return session_id


async def cancelled_half_way(chats: PlainChats, opened: Opened, tenant: str) -> None:
    """A chat whose client goes while the engine is at it."""
    opened.goes_on.clear()
    task = asyncio.create_task(asked(chats, TWO, tenant))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    opened.goes_on.set()
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("makes_way", [False, True])
async def test_a_client_that_goes_takes_no_place_with_it(
    monkeypatch: pytest.MonkeyPatch, makes_way: bool
) -> None:
    monkeypatch.setattr("flashfeed.engine.plain_chats._WAIT_S", 0.05)
    opened = Opened()
    chats = PlainChats(1, opened.open, opened.close)
    if makes_way:
        await asked(chats, ONE, "one")
    await cancelled_half_way(chats, opened, "two")
    held = await asked(chats, ONE, "three")
    assert opened.ids == {held}


async def test_a_place_that_could_not_make_way_is_not_forgotten() -> None:
    opened = Opened()
    chats = PlainChats(1, opened.open, opened.close)
    await asked(chats, ONE, "one")
    opened.full = True
    with pytest.raises(Overloaded):
        await asked(chats, ONE, "two")
    opened.full = False
    assert opened.ids == {await asked(chats, ONE, "three")}
