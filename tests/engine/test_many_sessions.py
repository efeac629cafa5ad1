"""More sessions than seats: each comes back as it was, and the disk is bounded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from flashfeed.engine import Engine, EngineSettings, pool
from flashfeed.models.errors import Overloaded
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec
from flashfeed.models.window import window_start

from .books import expect_books
from .conftest import Fresh, Recorder, expect_agrees, seat_of

pytestmark = pytest.mark.model

SESSIONS, SEATS, CELLS = 500, 50, 64
UP = FlashQuery(id=1, query="Up?", choices=("yes", "no"))
SNAPSHOTS_BYTES = 60 << 20
"""Some 100 snapshots of these sessions: the others are decoded again."""


@pytest_asyncio.fixture
async def crowded(model_path: Path, tmp_path: Path) -> AsyncIterator[Engine]:
    one = Engine(
        EngineSettings(
            model_path=model_path,
            threads=1,
            context_tokens=CELLS,
            sessions_per_context=4,
            forks_max=16,
            sessions_max=SESSIONS,
            seats_max=SEATS,
            snapshots=tmp_path / "kv",
            snapshot_bytes_max=SNAPSHOTS_BYTES,
        )
    )
    one.start()
    yield one
    await one.stop()


def spec_of(place: int) -> SessionSpec:
    """Windows of all kinds, two tenants; an exact one wants two seats."""
    window = WindowSpec("exact", 2) if place % 10 == 0 else WindowSpec("grow")
    return SessionSpec(type="iot", prompt="Go.", window=window, tenant=("", "blue")[place % 2])


async def test_500_sessions_on_50_seats(crowded: Engine) -> None:
    names = [f"n{place}" for place in range(SESSIONS)]
    lines: dict[str, list[str]] = {name: [] for name in names}
    order = random.Random(4)
    for place, name in enumerate(names):
        await crowded.open(name, spec_of(place))
    with pytest.raises(Overloaded, match="open sessions"):
        await crowded.open("one more", spec_of(1))
    sessions = crowded._open_sessions()
    for n_updated in (SESSIONS, 200):
        order.shuffle(names)
        for at in range(0, n_updated, 20):
            some = names[at : at + 20]
            for name in some:
                lines[name].append(f"{name} {len(lines[name])}")
            updates = (crowded.update(name, lines[name][-1:], ()) for name in some)
            await asyncio.gather(*updates)
            assert sessions.n_seats <= SEATS
            store = sessions.snapshots._store
            assert store is not None
            assert store.bytes_used <= SNAPSHOTS_BYTES
    for name in names:
        text = (await crowded.inspect(name)).text
        start = window_start(sessions[name].spec.window, len(lines[name]))
        assert text.endswith("".join(line + "\n" for line in lines[name][start:])), name
    assert sessions.evictions >= SESSIONS
    assert sessions.snapshots.saved > 0
    assert sessions.snapshots.restored > 0
    await expect_books(crowded)


async def test_what_comes_back_answers_as_before(crowded: Engine) -> None:
    names = [f"n{place}" for place in range(2 * SEATS)]
    for place, name in enumerate(names):
        await crowded.open(name, spec_of(place))
        await crowded.update(name, [f"{name} is up"], ())
    model = crowded._open_sessions().model
    fresh = Fresh(model, crowded.settings)
    for name in names[::7]:
        await crowded.update(name, (), (UP,))  # it is back
        patch = pytest.MonkeyPatch()
        recorder = Recorder(seat_of(crowded, name).group.context, patch)
        await crowded.update(name, (), (UP,))
        patch.undo()
        session = crowded._open_sessions()[name]
        question = (*model.tokens(UP.query), *model.tail)
        tokens = (*session.prefix, *session.tokens(session.start, session.count), *question)
        expect_agrees(fresh.row(tokens), recorder.rows[0])
    fresh.context.free()
    assert crowded._open_sessions().snapshots.restored > 0


async def test_where_every_seat_is_in_use_the_next_one_is_told_so(
    crowded: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_SEAT_WAIT_S", 0.5)
    names = [f"n{place}" for place in range(1, SEATS + 2)]
    grow = SessionSpec(type="iot", prompt="Go.", window=WindowSpec("grow"))
    for name in names:
        await crowded.open(name, grow)
    talks = [
        crowded.generate(name, "Go on.", GenerateOptions(max_tokens=40, ignore_eos=True))
        for name in names[:SEATS]
    ]
    await asyncio.gather(*(anext(talk) for talk in talks))
    with pytest.raises(Overloaded, match="resident"):
        await crowded.update(names[-1], ["x"], ())
    for talk in talks:
        await talk.aclose()
    await expect_books(crowded)
    assert (await crowded.update(names[-1], ["x"], ())).ingest_tokens
