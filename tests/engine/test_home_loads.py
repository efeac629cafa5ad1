"""A model that takes long to come holds up those who want it, and nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.home_loads import LOADS_MAX
from flashfeed.engine.model_download import Download, DownloadLimits, download
from flashfeed.models.errors import ModelUnavailable, ModelUnknown
from flashfeed.models.generation import Continuation
from flashfeed.models.session import SessionSpec, WindowSpec

from tiny_gguf import tiny_model

pytestmark = pytest.mark.model

MORE_THAN_THREADS = 3 * LOADS_MAX


def spec_of(model: str) -> SessionSpec:
    window = WindowSpec("grow")
    return SessionSpec(type="iot", prompt="Watch.", window=window, model=model, context=256)


class Models:
    """Finds `here` on disk, `late` there once it `may_come`, and `stalled` on a host that
    takes a connection and says nothing until it is `given_up`."""

    def __init__(self, tiny: Path, folder: Path) -> None:
        self.located: list[str] = []
        self.may_come = threading.Event()
        self._tiny, self._folder = tiny, folder
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._host = f"127.0.0.1:{self._server.getsockname()[1]}"

    def given_up(self) -> None:
        self._server.close()

    def locate(self, reference: str) -> tuple[str, EngineSettings]:
        self.located.append(reference)
        if reference == "late":
            assert self.may_come.wait(30)
        elif reference == "stalled":
            asked = Download(f"https://{self._host}/m.gguf", "")
            download(asked, DownloadLimits(allow_hosts=(self._host,)), self._folder, print)
        elif reference != "here":
            raise ModelUnknown(f"expected here, late or stalled, got {reference}")
        return reference, EngineSettings(model_path=self._tiny, threads=1, context_tokens=256)


@pytest.fixture
def models(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    monkeypatch.setattr("flashfeed.engine.model_download._PAUSE_S", 0)
    one = Models(tiny_model(tmp_path / "tiny.gguf", model_path, "llama"), tmp_path)
    yield one
    one.may_come.set()
    one.given_up()


def engine_of(model_path: Path, models: Models) -> Engine:
    settings = EngineSettings(
        model_path=model_path, threads=1, context_tokens=256, sessions_max=2 * MORE_THAN_THREADS
    )
    return Engine(settings, models.locate, idle_unload_s=0.0)


async def users_of(engine: Engine) -> dict[str, int]:
    homes = engine._open_homes()
    homes.unload_idle()
    return {one.name: one.users for one in homes.residents()}


async def test_a_download_that_stalls_holds_up_its_own_users_alone(
    model_path: Path, models: Models
) -> None:
    async with engine_of(model_path, models) as engine:
        waiting = [
            asyncio.create_task(engine.open(f"w{n}", spec_of("stalled")))
            for n in range(MORE_THAN_THREADS)
        ]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            await engine.open("default", spec_of(""))
            await engine.open("another", spec_of("here"))
            await engine.count_prompt(Continuation("Hello"))
        assert not any(one.done() for one in waiting)
        assert models.located.count("stalled") == 1
        models.given_up()
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, ModelUnavailable)
        with pytest.raises(ModelUnavailable):  # it is tried again for who asks again
            await engine.open("again", spec_of("stalled"))
        assert models.located.count("stalled") == 2
        assert await users_of(engine) == {"": 2, "here": 1}


async def test_all_who_wait_for_a_model_have_it_of_one_load(
    model_path: Path, models: Models
) -> None:
    async with engine_of(model_path, models) as engine:
        opening = [
            asyncio.create_task(engine.open(f"s{n}", spec_of("late")))
            for n in range(MORE_THAN_THREADS)
        ]
        await asyncio.sleep(0.1)
        for gone in opening[::2]:
            gone.cancel()
        await asyncio.wait(opening[::2])
        models.may_come.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*opening[1::2])
        assert models.located == ["late"]
        assert await users_of(engine) == {"": 1, "late": MORE_THAN_THREADS // 2}
        for n in range(1, MORE_THAN_THREADS, 2):
            await engine.close(f"s{n}")
        assert await users_of(engine) == {"": 1}  # who went had nothing to give back


async def test_who_all_go_leave_no_model_behind(model_path: Path, models: Models) -> None:
    async with engine_of(model_path, models) as engine:
        opening = asyncio.create_task(engine.open("s", spec_of("late")))
        await asyncio.sleep(0.1)
        opening.cancel()
        await asyncio.wait([opening])
        models.may_come.set()
        async with asyncio.timeout(30):
            while (await users_of(engine)) != {"": 1} or engine._open_loads()._loads:
                await asyncio.sleep(0.01)
        await engine.open("s", spec_of("late"))
        assert models.located == ["late", "late"]
