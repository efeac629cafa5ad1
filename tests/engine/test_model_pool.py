"""Models are loaded once, unloaded when idle, and never under somebody who uses them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from flashfeed.engine.gguf import model_bytes
from flashfeed.engine.model import Model
from flashfeed.engine.model_pool import ModelPool
from flashfeed.models.errors import ModelUnavailable

pytestmark = pytest.mark.model


class Counted:
    """Loads the real model, and counts."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, name: str, path: Path) -> Model:
        self.loaded.append(name)
        return Model.load(path, 0)


def test_two_names_are_loaded_on_demand_and_unloaded_when_idle(model_path: Path) -> None:
    load = Counted()
    pool = ModelPool(load, idle_unload_s=60)
    first = pool.acquire("a", model_path)
    assert pool.acquire("a", model_path) is first
    second = pool.acquire("b", model_path)
    assert second is not first
    assert second.tokens("hello") == first.tokens("hello")
    assert load.loaded == ["a", "b"]
    assert [(one.name, one.users) for one in pool.residents()] == [("a", 2), ("b", 1)]
    pool.release("a", now_s=0)
    pool.release("b", now_s=0)
    assert pool.unload_idle(now_s=60) == ["b"]  # somebody has a still
    assert second.handle is None
    pool.release("a", now_s=100)
    assert pool.unload_idle(now_s=159) == []
    assert pool.acquire("a", model_path) is first
    pool.release("a", now_s=200)
    assert pool.unload_idle(now_s=260) == ["a"]
    assert pool.residents() == []
    again = pool.acquire("a", model_path)
    assert again.handle is not None
    pool.release("a", now_s=300)
    pool.close()
    assert again.handle is None


def test_a_budget_unloads_the_longest_idle_first_and_refuses_the_rest(model_path: Path) -> None:
    size = model_bytes(model_path)
    pool = ModelPool(Counted(), bytes_max=2 * size + 1000)
    for now_s, name in enumerate("ab"):
        pool.acquire(name, model_path)
        pool.release(name, now_s)
    pool.acquire("c", model_path)
    assert [one.name for one in pool.residents()] == ["b", "c"]
    pool.charge("c", 900)
    assert [one.name for one in pool.residents()] == ["b", "c"]
    pool.charge("c", 900)  # takes b's room
    assert [(one.name, one.weights, one.kv) for one in pool.residents()] == [("c", size, 1800)]
    with pytest.raises(ModelUnavailable, match=r"model a needs \d+ MiB; of models.bytes_max"):
        pool.acquire("a", model_path)
    with pytest.raises(ModelUnavailable, match="KV cache of model c"):
        pool.charge("c", size)
    pool.discharge("c", 1800)
    pool.acquire("a", model_path)
    for name in "ac":
        pool.release(name, 9)
    pool.close()


def test_idle_models_stay_where_even_they_give_no_room(model_path: Path) -> None:
    size = model_bytes(model_path)
    pool = ModelPool(Counted(), bytes_max=size + 1000)
    pool.acquire("a", model_path)
    pool.release("a", 0)
    with pytest.raises(ModelUnavailable):
        pool.charge(_used(pool, model_path), 2000)
    assert [one.name for one in pool.residents()] == ["a"]
    pool.release("a", 0)
    pool.close()


def _used(pool: ModelPool[Model], path: Path) -> str:
    pool.acquire("a", path)
    return "a"


class Slow:
    """Stands for a model that takes its time, and fails where it is told to."""

    def __init__(self) -> None:
        self.freed = 0
        self.loads = 0
        self.fails = 0

    def __call__(self, name: str, path: Path) -> Slow:
        self.loads += 1
        time.sleep(0.02)
        if self.fails:
            self.fails -= 1
            raise ModelUnavailable(name)
        return self

    def free(self) -> None:
        self.freed += 1


def test_many_threads_load_once(model_path: Path) -> None:
    slow = Slow()
    pool = ModelPool(slow, idle_unload_s=0)

    def use() -> None:
        pool.acquire("a", model_path)
        pool.release("a", 0)

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slow.loads == 1
    assert pool.unload_idle(0) == ["a"]
    assert slow.freed == 1


def test_who_waited_for_a_load_that_failed_tries_it_too(model_path: Path) -> None:
    slow = Slow()
    slow.fails = 1
    pool = ModelPool(slow)
    got: list[object] = []

    def use() -> None:
        try:
            got.append(pool.acquire("a", model_path))
        except ModelUnavailable as error:
            got.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, ModelUnavailable) for one in got) == 1
    assert sum(one is slow for one in got) == 3
    assert slow.loads == 2
