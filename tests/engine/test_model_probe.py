"""A file that would end the process is refused; one that works is tried once."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from flashfeed.engine.model_probe import main, probe
from flashfeed.models.errors import ModelRefused

from tiny_gguf import tiny_model

pytestmark = pytest.mark.model


@pytest.mark.parametrize("broken", [{"block_count": 0}, {"expert_used_count": 4096}])
def test_what_llama_cpp_aborts_on_is_refused(
    tmp_path: Path, model_path: Path, broken: dict[str, Any]
) -> None:
    path = tiny_model(tmp_path / "m.gguf", model_path, "llama", **broken)
    with pytest.raises(ModelRefused, match=r"m\.gguf.*SIGABRT.*GGML_ASSERT"):
        probe(path, tmp_path)
    assert list(tmp_path.glob("models/*.probed")) == []


def test_what_the_engine_refuses_is_told_in_its_words(tmp_path: Path, model_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", model_path, "llama", attention__causal=False)
    with pytest.raises(ModelRefused, match="writes text"):
        probe(path, tmp_path)


def test_what_works_is_tried_once(
    tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_model(tmp_path / "m.gguf", model_path, "llama")
    probe(path, tmp_path)
    assert len(list(tmp_path.glob("models/*.probed"))) == 1
    assert main(str(path)) == 0

    def another(*_: Any, **__: Any) -> None:
        raise AssertionError("tried again")

    monkeypatch.setattr(subprocess, "run", another)
    probe(path, tmp_path)
    tiny_model(path, model_path, "llama", block_count=3)  # another file of that name
    with pytest.raises(AssertionError, match="tried again"):
        probe(path, tmp_path)
