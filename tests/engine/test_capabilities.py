"""What a kind of model cannot do is refused with its reason; the rest works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
import pytest

from flashfeed.engine.capabilities import capabilities, refusal
from flashfeed.engine.context import Context
from flashfeed.engine.model import Model
from flashfeed.engine.plan import Pass, Run
from flashfeed.engine.settings import EngineSettings

from tiny_gguf import tiny_model

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2vl": {"rope__dimension_sections": [4, 6, 6, 0]},
    "cohere2": {
        "attention__sliding_window": 32,
        "logit_scale": 1.0,
        "rope__dimension_count": 32,
    },
}
PLAIN = {
    "diffusion": False,
    "encoder": False,
    "causal": True,
    "vocabulary": 2,
}


@contextmanager
def opened(path: Path) -> Iterator[tuple[Model, Context]]:
    model = Model.load(path, 0)
    settings = EngineSettings(model_path=path, threads=1, batch_tokens=256, outputs_max=8)
    context = Context(model, settings, 512)
    try:
        yield model, context
    finally:
        context.free()
        model.free()


@pytest.mark.model
@pytest.mark.parametrize("kind", KINDS)
def test_forks_and_cuts_are_a_fresh_context(kind: str, model_path: Path, tmp_path: Path) -> None:
    """Also where attention slides over 32 tokens, and where a position has several parts."""
    path = tiny_model(tmp_path / "m.gguf", model_path, kind, **KINDS[kind])
    with opened(path) as (model, context):
        text = model.tokens(" 150.70 +0.31% 1.2M\n" * 30)
        history, update, question = text[:150], text[150:170], text[7:20]
        context.run(Pass((Run(history + text[:9], 0, (0,)),)))
        context.truncate(0, len(history))
        context.fork(0, (1, 2), len(history))
        end = len(history) + len(update)
        row = (
            context.run(
                Pass(
                    (
                        Run(update, len(history), (0, 1, 2)),
                        Run(question, end, (1,), (len(question) - 1,)),
                        Run(question[::-1], end, (2,)),
                    )
                )
            )
            .rows[0]
            .copy()
        )
        context.clear()
        whole = history + update + question
        fresh = context.run(Pass((Run(whole, 0, (0,), (len(whole) - 1,)),))).rows[0]
        assert np.abs(fresh - row).max() < 0.1
        assert fresh.std() > 0.1  # the rule says something about this model


@pytest.mark.model
@pytest.mark.parametrize("kind", KINDS)
def test_who_may_shift_is_what_llama_cpp_says(kind: str, model_path: Path, tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", model_path, kind, **KINDS[kind])
    with opened(path) as (model, context):
        can_shift = bool(C.llama_memory_can_shift(context._memory))
        assert ("shift" in model.capabilities.windows) == can_shift
        assert {"exact", "grow"} <= set(model.capabilities.windows)
        assert bool(model.capabilities.reasons) == (kind != "llama")


@pytest.mark.parametrize(
    ("architecture", "change", "says"),
    [
        ("llama", {}, ""),
        ("llada", {"diffusion": True}, "diffusion"),
        ("t5", {"encoder": True}, "encoder"),
        ("bert", {}, "embedding"),
        ("deepseek4", {}, "index"),
        ("qwen4exp", {}, "index"),
        ("llama", {"causal": False}, "embedding"),
        ("llama", {"vocabulary": 0}, "vocabulary"),
    ],
)
def test_what_cannot_serve_sessions(architecture: str, change: Any, says: str) -> None:
    reason = refusal(architecture, **{**PLAIN, **change})
    assert says in reason
    assert bool(reason) == bool(says)


@pytest.mark.parametrize(
    ("architecture", "rope_type", "shifts"),
    [
        ("llama", C.LLAMA_ROPE_TYPE_NORM, True),
        ("qwen3", C.LLAMA_ROPE_TYPE_NEOX, True),
        ("qwen2vl", C.LLAMA_ROPE_TYPE_MROPE, False),
        ("qwen3vl", C.LLAMA_ROPE_TYPE_IMROPE, False),
        ("gpt2", C.LLAMA_ROPE_TYPE_NONE, False),
        ("step35", C.LLAMA_ROPE_TYPE_NEOX, False),
    ],
)
def test_who_may_shift(architecture: str, rope_type: int, shifts: bool) -> None:
    able = capabilities(architecture, rope_type=rope_type, n_swa=0, recurrent=False)
    assert ("shift" in able.windows) == shifts
    assert any("shift" in reason for reason in able.reasons) == (not shifts)
