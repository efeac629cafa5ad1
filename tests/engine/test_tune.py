"""What is chosen from the figures, and that the figures come from the real model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashfeed.engine.context import Context
from flashfeed.engine.measure import Updates, best_in_turns, feed, pass_seconds, sample_tokens
from flashfeed.engine.model import Model
from flashfeed.engine.settings import EngineSettings
from flashfeed.engine.tune import QUICK, thread_counts, tune
from flashfeed.engine.tuned import (
    Attention,
    Group,
    Measured,
    Tuned,
    choose,
    choose_attention,
    foreground_chunk,
    recall,
    remember,
    sessions_per_context,
    step_tokens,
    tuned_file,
)

from tiny_gguf import tiny_model

OFF = Attention("off", "f16", update_s=1.0, step_s=0.10, logit_diff=0.01)
ON = Attention("on", "f16", update_s=1.0, step_s=0.10, logit_diff=0.03)
Q8 = Attention("on", "q8_0", update_s=1.0, step_s=0.10, logit_diff=0.09)
MEASURED = Measured(
    threads={1: 2.0, 2: 1.0},
    attention=(OFF, ON, Q8),
    ubatch={128: 3.0, 256: 2.0, 512: 2.05},
    passes={1: 1.0, 8: 1.2, 16: 1.6, 32: 3.0, 64: 6.0},
    groups=(Group(1, 1.0, 1.0), Group(2, 1.1, 2.0)),
)


def changed(kind: Attention, **values: Any) -> Attention:
    return dataclasses.replace(kind, **values)


def test_the_choice_as_a_whole() -> None:
    assert choose(MEASURED) == Tuned(
        threads=2,
        kv_type="f16",
        flash_attention="off",
        ubatch_tokens=512,
        step_tokens=16,
        foreground_chunk=19,
        sessions_per_context=1,
    )


@pytest.mark.parametrize(
    ("threads", "best"),
    [
        ({1: 2.0, 2: 1.0, 4: 0.6}, 4),
        ({1: 2.0, 2: 1.0, 4: 0.97}, 2),  # nearly as fast with half the cores
        ({1: 1.0, 2: 1.5}, 1),
    ],
)
def test_threads(threads: dict[int, float], best: int) -> None:
    assert choose(dataclasses.replace(MEASURED, threads=threads)).threads == best


@pytest.mark.parametrize(
    ("kinds", "best"),
    [
        ((OFF, ON, Q8), OFF),  # all equal: the simplest
        ((changed(OFF, update_s=1.5), ON, Q8), ON),
        ((OFF, changed(ON, update_s=0.8, step_s=0.5), Q8), OFF),  # steps count too
        ((OFF, ON, changed(Q8, update_s=0.5)), changed(Q8, update_s=0.5)),
        ((OFF, ON, changed(Q8, update_s=0.1, logit_diff=0.11)), OFF),  # fast and not faithful
        (
            (changed(OFF, logit_diff=0.5), changed(ON, logit_diff=0.4), changed(Q8, logit_diff=1)),
            changed(OFF, logit_diff=0.5),
        ),  # the model itself is not: as exact as can be
        ((OFF,), OFF),  # where the device or the model refuses the others
    ],
)
def test_attention(kinds: tuple[Attention, ...], best: Attention) -> None:
    assert choose_attention(kinds) == best


@pytest.mark.parametrize(
    ("ubatch", "best"),
    [({512: 1.0, 256: 1.0}, 512), ({512: 1.2, 256: 1.0}, 256), ({512: 1.04, 256: 1.0}, 512)],
)
def test_ubatch(ubatch: dict[int, float], best: int) -> None:
    assert choose(dataclasses.replace(MEASURED, ubatch=ubatch)).ubatch_tokens == best


@pytest.mark.parametrize(
    ("passes", "best"),
    [
        ({1: 1.0, 64: 1.0, 128: 2.0, 256: 4.0}, 64),  # a CPU: the ridge comes early
        ({1: 1.0, 64: 1.0, 256: 1.1, 512: 1.9}, 512),  # a GPU: it still gains
        ({1: 1.0, 64: 1.0, 128: 2.1, 256: 3.0}, 256),  # a bump on the way does not end it
        ({1: 1.0}, 1),
    ],
)
def test_step_tokens(passes: dict[int, float], best: int) -> None:
    assert step_tokens(passes) == best


@pytest.mark.parametrize(
    ("passes", "best"),
    [
        ({1: 1.0, 8: 1.5, 16: 2.5}, 11),  # 12 tokens take twice one's time; one is its own
        ({1: 1.0, 8: 1.1, 64: 1.2}, 63),
        ({1: 1.0, 2: 5.0}, 1),
        ({1: 1.0, 8: 2.0, 16: 2.0, 32: 4.0}, 15),
    ],
)
def test_foreground_chunk(passes: dict[int, float], best: int) -> None:
    assert foreground_chunk(passes) == best


@pytest.mark.parametrize(
    ("groups", "best"),
    [
        ((Group(1, 1.0, 1.0), Group(2, 1.1, 2.2), Group(4, 1.3, 5.0)), 1),  # a CPU
        ((Group(1, 1.0, 1.0), Group(2, 1.0, 1.2), Group(4, 1.1, 1.6)), 4),  # a GPU
        ((Group(1, 1.0, 1.0), Group(2, 1.0, 1.2), Group(4, 1.5, 1.6)), 2),  # too slow alone
        ((Group(1, 1.0, 1.0), Group(2, 1.0, 1.92)), 1),  # not worth it
    ],
)
def test_sessions_per_context(groups: tuple[Group, ...], best: int) -> None:
    assert sessions_per_context(groups) == best


def test_candidates_are_measured_in_turns_and_the_best_counts() -> None:
    order: list[str] = []
    figures = {"a": iter([3.0, 1.0, 2.0]), "b": iter([2.0, 4.0, 5.0])}

    def measure(name: str) -> Any:
        def once() -> float:
            order.append(name)
            return next(figures[name])

        return once

    best = best_in_turns({name: measure(name) for name in figures}, 3)
    assert best == {"a": 1.0, "b": 2.0}
    assert order == list("ababab")


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (16, [4, 8, 12, 16])])
def test_thread_counts(cores: int, counts: list[int]) -> None:
    assert thread_counts(cores) == counts


@pytest.mark.model
def test_what_is_measured_leaves_the_sessions_as_they_were(model: Model, engine: Any) -> None:
    settings = dataclasses.replace(engine.settings, sessions_per_context=2)
    context = Context(model, settings, 512)
    tokens = sample_tokens(model, 100)
    assert len(tokens) == 100
    first = feed(context, 0, tokens, 0).copy()
    feed(context, 1, tokens[:50], 0)
    updates = Updates(context, tokens, 2)
    assert updates.seconds(n_sessions=2, n_steps=2) > 0
    assert pass_seconds(context, tokens[:7]) > 0
    assert updates.rows().shape == (4, model.n_vocab)
    assert context.ends == {0: 100, 1: 50}
    assert context.cells_used == 150
    context.truncate(0, 99)
    assert np.abs(feed(context, 0, tokens[99:], 99) - first).max() < 0.1
    context.free()


@pytest.mark.model
def test_a_measurement_is_kept_for_this_model_and_machine(model_path: Path, tmp_path: Path) -> None:
    """Of a small model, which takes seconds; the figures are as real."""
    model_path = tiny_model(tmp_path / "tiny.gguf", model_path, "llama")
    said: list[str] = []
    settings = EngineSettings(model_path=model_path, batch_tokens=64)
    record = tune(model_path, settings, QUICK, said.append, tmp_path)
    assert len(said) == 5
    assert record.tuned == choose(record.measured)
    assert set(record.measured.ubatch) == {64, 32}
    assert max(record.measured.passes) == 64
    assert [group.sessions for group in record.measured.groups] == [1, 2, 4]
    by_kind = {(one.flash_attention, one.kv_type): one for one in record.measured.attention}
    assert by_kind["off", "f16"].logit_diff <= 0.1
    # q8_0 rounds each key: it is never the same, or the comparison compares nothing.
    assert by_kind["on", "q8_0"].logit_diff > by_kind["on", "f16"].logit_diff > 0
    path = tuned_file(model_path, settings.gpu_layers, tmp_path)
    assert recall(path) == record
    assert tuned_file(model_path, 0, tmp_path) != path
    remember(record, path)  # again over the old one
    path.write_text("{")
    assert recall(path) is None
