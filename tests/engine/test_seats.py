"""Who holds which cells: prefixes, seats and branches that come, share, move and go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flashfeed.engine import DecodeFailed, Engine, EngineSettings
from flashfeed.models.chat import ChatMessage, ChatRequest
from flashfeed.models.errors import RequestError
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

from .books import expect_books, quiet
from .conftest import seat_of
from .test_failures import Failing

pytestmark = pytest.mark.model

GROW = SessionSpec(type="event", prompt="Watch.", window=WindowSpec("grow"))
YES = FlashQuery(id=1, query="Alert?", choices=("yes", "no"))
TALK = GenerateOptions(max_tokens=60, ignore_eos=True)


@pytest_asyncio.fixture
async def pair(model_path: Path, tmp_path: Path) -> AsyncIterator[Engine]:
    """Two seats of one context that has not a cell more than they may hold."""
    one = Engine(
        EngineSettings(
            model_path=model_path,
            threads=1,
            context_tokens=256,
            sessions_per_context=2,
            seats_max=2,
            batch_tokens=32,
            forks_max=16,
            generations_max=2,
            snapshots=tmp_path / "kv",
        )
    )
    one.start()
    yield one
    await one.stop()


async def test_a_generation_goes_on_when_what_it_stands_on_slides(pair: Engine) -> None:
    spec = SessionSpec(type="event", prompt="Watch.", window=WindowSpec("shift", 3))
    await pair.open("s", spec)
    await pair.update("s", ["pump 0", "pump 1", "pump 2"], ())
    running = pair.generate("s", "Go on.", TALK)
    pieces = [await anext(running)]
    for n in range(3, 6):
        await pair.update("s", [f"pump {n}"], (YES,))
        pieces.append(await anext(running))
    pieces += [piece async for piece in running]
    assert pieces[-1].finish_reason == "length"
    assert pieces[-1].n_tokens == TALK.max_tokens
    assert (await pair.inspect("s")).text.endswith("pump 3\npump 4\npump 5\n")
    await expect_books(pair)


async def test_closing_ends_a_generation_over_a_window_that_is_gone(pair: Engine) -> None:
    spec = SessionSpec(type="event", prompt="Watch.", window=WindowSpec("exact", 1))
    await pair.open("s", spec)
    await pair.update("s", ["pump 0"], ())
    running = pair.generate("s", "Go on.", TALK)
    await anext(running)
    await pair.update("s", ["pump 1"], ())
    assert pair._open_sessions()["s"].retired
    await pair.close("s")
    rest = [piece async for piece in running]
    assert rest[-1].finish_reason == "cancelled"
    await expect_books(pair)
    assert pair._open_sessions().n_seats == 0


async def test_a_prefix_is_not_waited_for_when_its_decoding_failed(
    pair: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SessionSpec(type="event", prompt="Watch the pumps. " * 12, window=GROW.window)
    await pair.open("s", spec)
    await pair.update("s", ["a", "b"], ())
    context = seat_of(pair, "s").group.context
    decode, calls, submitted = context._decode, [0], threading.Event()

    def failing(batch: Any) -> int:
        calls[0] += 1
        if calls[0] == 1:
            assert submitted.wait(20)
        return decode(batch) if calls[0] == 1 else -3

    # The neighbour's prefix, which takes several passes, is what "s" holds.
    monkeypatch.setattr(context, "_decode", failing)
    opening = asyncio.ensure_future(pair.open("t", spec, frozen=["a", "b"]))
    while not calls[0]:
        await asyncio.sleep(0.001)
    marking = asyncio.ensure_future(pair.mark_prefix("s"))
    await asyncio.sleep(0)
    submitted.set()
    with pytest.raises(DecodeFailed):
        await opening
    length = await asyncio.wait_for(marking, 20)
    monkeypatch.undo()
    assert length == len(pair._open_sessions()["s"].prefix)
    assert (await pair.inspect("s")).text.endswith("a\nb\n")
    await expect_books(pair)


async def test_a_chat_is_not_kept_after_a_pass_that_failed(
    pair: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.open("s", GROW)
    chat = ChatRequest((ChatMessage(role="user", content="Say something long, please."),))
    seat = seat_of(pair, "s")
    failing = Failing(seat.group.context, monkeypatch, 3, -3, True)
    with pytest.raises(DecodeFailed):
        async for _ in pair.generate("s", chat, TALK):
            pass
    monkeypatch.undo()
    assert failing.failed
    assert seat.chat is None
    await expect_books(pair)
    assert [piece async for piece in pair.generate("s", chat, TALK)]


async def test_a_restored_session_finds_all_the_cells_it_may_hold(pair: Engine) -> None:
    long = SessionSpec(type="event", prompt="Watch the pumps. " * 30, window=GROW.window)
    await pair.open("u", GROW)
    await pair.open("s", long)
    await pair.update("s", ["here"], ())
    await pair.evict("s")
    for name in ("u", "s"):
        held = (await pair.inspect(name)).n_tokens
        room = 256 - held
        await pair.update(name, ["7" * (room - 1)], ())
        assert (await pair.inspect(name)).n_tokens == 256
        await expect_books(pair)
    assert pair._open_sessions().snapshots.restored


async def test_prefixes_that_grow_by_turns_do_not_pile_up(pair: Engine) -> None:
    await pair.open("s", GROW)
    await pair.open("t", GROW)
    frozen: list[str] = []
    for n in range(8):
        await pair.update("s", [f"p{n}"], ())
        frozen.append(f"p{n}")
        await pair.mark_prefix("s")
        await pair.close("t", forget=True)
        await pair.open("t", GROW, frozen=frozen)
        await expect_books(pair)
    assert len(seat_of(pair, "s").group.prefixes) <= 2
    assert (await pair.update("t", ["x"], (YES,))).answers


@pytest.mark.parametrize(
    ("n_lines", "count"), [(3, 2), (3, -1), (1, 8), (0, 5)], ids=["more", "below", "few", "none"]
)
async def test_lines_that_are_no_window_are_refused(pair: Engine, n_lines: int, count: int) -> None:
    spec = SessionSpec(type="event", prompt="Watch.", window=WindowSpec("exact", 2))
    with pytest.raises(RequestError, match="lines"):
        await pair.open("s", spec, [f"p{n}" for n in range(n_lines)], count)
    await pair.open("s", spec, ["p5", "p6", "p7"], 8)
    assert (await pair.inspect("s")).text.endswith("p6\np7\n")


async def test_half_a_character_in_a_spec_is_refused(pair: Engine) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        await pair.open("s", SessionSpec(type="event", prompt="Watch \ud800."))
    with pytest.raises(RequestError, match="surrogate"):
        await pair.open("s\udfff", GROW)
    await pair.open("s", GROW)
    await pair.update("s", ["a line with \ud800 is text"], ())
    await quiet(pair)
    assert "a line with ? is text" in (await pair.inspect("s")).text
