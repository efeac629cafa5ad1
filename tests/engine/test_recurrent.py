"""Models with a recurrent state, alone or beside attention: what works is a fresh context's."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import llama_cpp.llama_cpp as C
import msgspec
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from flashfeed.engine import DecodeFailed, Engine, EngineSettings
from flashfeed.engine.context import Context
from flashfeed.engine.gguf import kv_bytes
from flashfeed.engine.homes import Homes, no_others
from flashfeed.engine.model import Model
from flashfeed.engine.model_probe import probe
from flashfeed.engine.plan import Pass, PlanFault, Run
from flashfeed.engine.tune import QUICK, tune
from flashfeed.models.chat import ChatMessage, ChatRequest
from flashfeed.models.errors import ConfigError, EngineError, ModelRefused, RequestError
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import SessionSpec, WindowSpec

from .books import expect_books
from .conftest import Fresh, Recorder, expect_agrees, seat_of, tokens_of
from .machine import AnyOrder
from .test_failures import ALL, LONG, YES, Failing
from tiny_gguf import RECURRENT, tiny_model

pytestmark = pytest.mark.model

SPEC = SessionSpec(type="iot", prompt="Watch the pumps.", window=WindowSpec("grow"))
EXACT = SessionSpec(type="iot", prompt="Watch the valves.", window=WindowSpec("exact", 4))


@pytest.fixture(scope="module", params=list(RECURRENT))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(kind: str, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind)
    return tiny_model(folder / "m.gguf", model_path, kind, **RECURRENT[kind])


@pytest_asyncio.fixture(scope="module")
async def own(path: Path) -> AsyncIterator[Engine]:
    """Two sessions a context: a pass that fails is a neighbour's affair too."""
    one = Engine(
        EngineSettings(
            model_path=path,
            threads=1,
            context_tokens=512,
            sessions_per_context=2,
            sessions_max=6,
            batch_tokens=256,
            hidden_states=True,
        )
    )
    one.start()
    yield one
    await one.stop()


@pytest.fixture(scope="module")
def scratch(own: Engine) -> Iterator[Fresh]:
    one = Fresh(own._open_sessions().model, replace(own.settings, sessions_per_context=1))
    yield one
    one.context.free()


async def expect_fresh(engine: Engine, name: str, scratch: Fresh) -> None:
    """The session answers as a context does into which its tokens are decoded anew."""
    model = engine._open_sessions().model
    await engine.update(name)  # it is resident now
    patch = pytest.MonkeyPatch()
    recorder = Recorder(seat_of(engine, name).group.context, patch)
    await engine.update(name, (), (YES,))
    patch.undo()
    asked = model.tokens(YES.query) + model.tail
    expect_agrees(scratch.row([*tokens_of(engine, name), *asked]), recorder.rows[0])


def test_what_it_can_do(own: Engine) -> None:
    able = own._open_sessions().model.capabilities
    assert able.windows == ("exact", "grow")
    assert not able.cuts
    assert [one.split(":")[0] for one in able.reasons] == ["window shift", "recurrent state"]


async def test_a_window_that_shifts_is_refused_with_the_reason(own: Engine, name: str) -> None:
    with pytest.raises(RequestError, match="recurrent state cannot forget the oldest tokens"):
        await own.open(name, SessionSpec(type="iot", window=WindowSpec("shift", 4)))


@pytest.mark.parametrize("spec", [SPEC, EXACT], ids=["grow", "exact"])
async def test_updates_are_a_fresh_context_s(
    own: Engine, scratch: Fresh, name: str, spec: SessionSpec
) -> None:
    await own.open(name, spec)
    for number in range(12):
        update = await own.update(name, [f"pump {number} at 4.{number} bar"], ALL)
        assert [
            answer.value in query.choices for answer, query in zip(update.answers, ALL, strict=True)
        ] == [True, True, False]
        states = [2 * own._open_sessions().model.n_embd] * 2 + [0]  # a free answer has none
        assert [len(one) for one in update.hidden] == states
        await expect_fresh(own, name, scratch)
    await expect_books(own)
    await own.close(name)


async def test_the_choices_of_several_tokens_have_their_own_probabilities(
    own: Engine, scratch: Fresh, name: str
) -> None:
    """Its forks share no cells: each decodes the question itself."""
    await own.open(name, SPEC)
    await own.update(name, ["pump 1 at 4.5 bar"])
    model = own._open_sessions().model
    patch = pytest.MonkeyPatch()
    recorder = Recorder(seat_of(own, name).group.context, patch)
    await own.update(name, (), (LONG,))
    patch.undo()
    asked = [*tokens_of(own, name), *model.tokens(LONG.query), *model.tail]
    expect_agrees(scratch.row(asked), recorder.rows[0])
    rows = iter(recorder.rows[1:])
    for choice in LONG.choices:
        tokens = list(model.tokens(choice))
        for n in range(1, len(tokens)):
            expect_agrees(scratch.row(asked + tokens[:n]), next(rows))
    assert next(rows, None) is None
    await own.close(name)


async def test_the_last_update_is_written_again_at_its_own_cost(
    own: Engine, scratch: Fresh, name: str
) -> None:
    """The open candle: its next version comes in its place. Further back costs the window."""
    await own.open(name, SPEC)
    for number in range(8):
        await own.update(name, [f"bar {number} close 10.5"], (YES,))
    patch = pytest.MonkeyPatch()
    recorder = Recorder(seat_of(own, name).group.context, patch)
    for close in (11, 12, 13):
        await own.update(name, [f"bar 7 close {close}"], (YES,), rewind=1)
        await expect_fresh(own, name, scratch)
    new = len(own._open_sessions().model.tokens("bar 7 close 11\n"))
    assert max(len(run.tokens) for one in recorder.passes for run in one.runs) < 2 * new + 10
    patch.undo()
    await own.update(name, ["bar 5 close 9", "bar 6 close 9", "bar 7 close 9"], (YES,), rewind=3)
    assert own._open_sessions()[name].count == 8
    await expect_fresh(own, name, scratch)
    await own.close(name)


async def test_an_open_candle_under_an_exact_window_decodes_no_window_again(
    own: Engine, scratch: Fresh, name: str
) -> None:
    """Neither the senior's nor the junior's, also after both were decoded anew."""
    await own.open(name, msgspec.structs.replace(EXACT, window=WindowSpec("exact", 8)))
    session = own._open_sessions()[name]
    for number in range(20):
        await own.update(name, [f"bar {number} close 10.5"], (YES,))
        if number in (3, 12):
            await own.evict(name)
            await own.update(name, (), (YES,))
        await expect_books(own)  # the junior is there, if there is one
        seats, rebuilt = session.seats, own.stats().restores["decode"]
        stays = session.junior is None or session.junior.start < session.count
        for close in (11, 12):
            await own.update(name, [f"bar {number} close {close}"], (YES,), rewind=1)
            await expect_books(own)
        if stays:
            assert [one is two for one, two in zip(session.seats, seats, strict=True)] == [
                True for _ in seats
            ]
        assert own.stats().restores["decode"] == rebuilt
        await expect_fresh(own, name, scratch)
    await own.close(name)


@pytest.mark.parametrize(("code", "ran", "after"), [(1, False, 0), (2, True, 0), (-3, True, 1)])
async def test_after_a_failed_pass_every_session_of_the_context_is_right(
    own: Engine, scratch: Fresh, name: str, code: int, ran: bool, after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    neighbour = name + "-neighbour"
    for one in (name, neighbour):
        await own.open(one, SPEC)
        await own.update(one, ["pump 1 at 4.5 bar", "pump 1 at 4.6 bar"], (YES,))
    assert seat_of(own, name).group is seat_of(own, neighbour).group
    held, rebuilt = tokens_of(own, name), own.stats().restores["decode"]
    failing = Failing(seat_of(own, name).group.context, monkeypatch, after, code, ran)
    with pytest.raises(DecodeFailed):
        await own.update(name, ["pump 1 at 9.9 bar"], ALL)
    assert failing.failed
    monkeypatch.undo()
    for one in (neighbour, name):
        assert (await own.inspect(one)).n_tokens == len(held)
        await expect_fresh(own, one, scratch)
    # Where it may have stopped half way, what llama.cpp holds is not looked at again.
    assert own.stats().restores["decode"] - rebuilt == (0 if code == 1 else 2)
    await own.update(name, ["pump 1 at 4.7 bar"], ALL)
    await expect_fresh(own, name, scratch)
    await expect_books(own)
    for one in (name, neighbour):
        await own.close(one)


async def test_a_generation_leaves_the_data_alone_and_a_chat_goes_on(
    own: Engine, scratch: Fresh, name: str
) -> None:
    await own.open(name, SPEC)
    await own.update(name, ["pump 1 at 4.5 bar"], (YES,))
    held = tokens_of(own, name)
    asked = (ChatMessage(role="user", content="What did it do?"),)
    cached = len(held)
    for text in ("Go on.", "And then?", "Why?", "Is it over?"):
        pieces = [
            one
            async for one in own.generate(
                name, ChatRequest(messages=asked), GenerateOptions(max_tokens=5)
            )
        ]
        assert pieces[-1].finish_reason in ("length", "stop")
        assert pieces[-1].cached_tokens >= cached
        # All that was said before its answer is there at the next turn, however the answer is
        # written then: a template may leave the model's thoughts out.
        cached = pieces[-1].prompt_tokens - len(own._open_sessions().model.tail)
        said = ChatMessage(role="assistant", content="In short: it rose.")
        asked = (*asked, said, ChatMessage(role="user", content=text))
        await expect_books(own)
    pieces = [one async for one in own.generate(name, "Go on.", GenerateOptions(max_tokens=5))]
    assert pieces[-1].cached_tokens == len(held)
    assert tokens_of(own, name) == held
    await expect_fresh(own, name, scratch)
    await expect_books(own)
    await own.close(name)


async def test_it_comes_back_from_a_snapshot(path: Path, tmp_path: Path, name: str) -> None:
    settings = EngineSettings(
        model_path=path, threads=1, context_tokens=512, snapshots=tmp_path / "kv"
    )
    async with Engine(settings) as engine:
        await engine.open(name, SPEC)
        update = await engine.update(name, ["pump 1 at 4.5 bar", "pump 1 at 4.6 bar"], (YES,))
        await engine.evict(name)
        again = await engine.update(name, (), (YES,))
        assert again.answers[0].confidence == pytest.approx(update.answers[0].confidence, abs=1e-6)
        assert engine.stats().restores == {"snapshot": 1, "decode": 0}


def test_any_order_of_operations(path: Path) -> None:
    """As with the packaged model (test_no_abort.py), and at a tenth of its cost."""
    AnyOrder.model_path = path
    AnyOrder.done.clear()
    AnyOrder.run(21, examples=15, steps=30)
    assert AnyOrder.operations() > 150
    assert AnyOrder.done["compared"]


def test_what_it_takes_is_counted(path: Path, kind: str) -> None:
    """A state for each sequence, and cells in the layers that have attention."""
    model = Model.load(path, 0)
    try:
        base = EngineSettings(model_path=path, threads=1, forks_max=16)
        context = Context(model, base, 512)
        text = model.tokens("150.70 +0.31%\n" * 20)
        context.run(Pass((Run(text[:1], 0, (0,)),)))
        one = int(C.llama_state_seq_get_size(context._handle, 0))
        assert one == model.state_bytes
        context.run(Pass((Run(text[1:101], 1, (0,)),)))
        cells = int(C.llama_state_seq_get_size(context._handle, 0)) - one
        per_cell = kv_bytes(model.header, 100, "f16")
        assert (per_cell > 0) == (kind == "lfm2")
        assert per_cell <= cells <= per_cell + 100 * 16  # a position and its sequences each
        context.free()
    finally:
        model.free()


def test_a_context_goes_back_only_to_what_was_committed(path: Path) -> None:
    model = Model.load(path, 0)
    context = Context(model, EngineSettings(model_path=path, threads=1, forks_max=16), 512)
    try:
        text = model.tokens("150.70 +0.31%\n" * 20)
        for at in (0, 20, 40):
            context.run(Pass((Run(text[at : at + 20], at, (0,)),)))
            context.commit(0)
        assert [context.can_go_back(0, at) for at in (0, 20, 40, 50, 60)] == [
            True, False, True, False, True,
        ]  # fmt: skip
        with pytest.raises(EngineError, match="only to \\(40, 60\\): its state is recurrent"):
            context.truncate(0, 20)
        context.fork(0, (1,), 40)
        context.truncate(0, 40)
        row = context.run(Pass((Run(text[40:50], 40, (0,), (9,)),))).rows[0].copy()
        forked = context.run(Pass((Run(text[40:50], 40, (1,), (9,)),))).rows[0].copy()
        context.clear()
        fresh = context.run(Pass((Run(text[:50], 0, (0,), (49,)),))).rows[0]
        expect_agrees(fresh, row)
        expect_agrees(fresh, forked)
        with pytest.raises(PlanFault, match="one sequence each"):
            context.run(Pass((Run(text[:5], 50, (0, 1)),)))
    finally:
        context.free()
        model.free()


@pytest.mark.parametrize("ubatch", [0, 25])
def test_each_output_has_its_own_hidden_state(path: Path, ubatch: int) -> None:
    """However long the runs are, whichever their sequences, and in however many parts
    llama.cpp decodes them."""
    model = Model.load(path, 0)
    settings = EngineSettings(
        model_path=path, threads=1, forks_max=16, hidden_states=True, ubatch_tokens=ubatch
    )
    context = Context(model, settings, 2048)
    try:
        text = model.tokens("150.70 +0.31% 1.2M\n" * 60)
        context.run(Pass((Run(text[:50], 0, (0,)),)))
        draw = random.Random(4)
        for _ in range(12):
            ids = draw.sample(range(1, 20), draw.randint(2, 8))
            context.fork(0, ids, 50)
            runs = []
            for one in ids:
                at, n = draw.randint(0, 99), draw.choice((1, 1, 5, 5, 12, 30))
                wanted = tuple(sorted(draw.sample(range(n), draw.randint(0, min(n, 3)))))
                runs.append(Run(text[at : at + n], 50, (one,), wanted))
                if draw.random() < 0.3:  # a choice's tokens follow the question's
                    runs.append(Run(text[:3], 50 + n, (one,), (0, 2)))
            decoded = context.run(Pass(tuple(runs)))
            rows, hidden = decoded.rows.copy(), decoded.hidden.copy()
            assert hidden.shape == (len(rows), model.n_embd)
            context.drop(ids)
            alone: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
            for one in ids:
                context.fork(0, (one,), 50)
                own = Pass(tuple(run for run in runs if run.sequences == (one,)))
                apart = context.run(own)
                alone += zip(apart.rows.copy(), apart.hidden.copy(), strict=True)
                context.drop((one,))
            for row, state, (row_alone, state_alone) in zip(rows, hidden, alone, strict=True):
                assert np.abs(row - row_alone).max() < 0.01
                assert np.abs(state - state_alone).max() < 0.01
    finally:
        context.free()
        model.free()


def test_too_many_sequences_are_refused(path: Path, model_path: Path) -> None:
    settings = EngineSettings(
        model_path=path, sessions_per_context=10, forks_max=17, generations_max=4
    )
    with pytest.raises(ConfigError, match="recurrent state"):
        Engine(settings).start()
    plain = EngineSettings(model_path=model_path)
    homes = Homes(plain, lambda name: (name, settings), 0, 600.0)
    for _ in range(2):
        with pytest.raises(ModelRefused, match="recurrent state"):
            homes.acquire("other")
    assert [one.name for one in homes.residents()] == []
    homes.close()


def test_states_are_counted_with_their_context(path: Path) -> None:
    settings = EngineSettings(model_path=path, threads=1, sessions_per_context=2)
    homes = Homes(settings, no_others, 0, 600.0)
    home = homes.acquire()
    kv = kv_bytes(home.model.header, 512, "f16")
    states = home.model.state_bytes * 2 * (3 + 16 + 4 + 2 + 4)
    assert home.context_bytes(512) - kv > states * 1.25
    homes.release(home)
    homes.close()


def test_it_is_probed_and_tuned(path: Path, tmp_path: Path) -> None:
    probe(path, tmp_path)
    record = tune(path, EngineSettings(model_path=path, batch_tokens=64), QUICK, cache=tmp_path)
    assert record.tuned.threads >= 1
    assert record.measured.attention[0].logit_diff < 0.1
