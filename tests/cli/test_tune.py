"""`flashfeed tune` measures, keeps and shows; a worker takes what it kept."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flashfeed.cli import tune as command
from flashfeed.cli.main import main
from flashfeed.cli.worker import tuned_for
from flashfeed.engine import fastest_form, find_packaged_model
from flashfeed.engine.tuned import Attention, Group, Measured, Record, choose
from flashfeed.models.config import EngineConfig

from tiny_gguf import tiny_model

pytestmark = pytest.mark.model
MEASURED = Measured(
    threads={1: 0.2, 2: 0.1},
    attention=(
        Attention("off", "f16", 0.1, 0.02, 0.01),
        Attention("on", "q8_0", 0.05, 0.01, 0.17),
    ),
    ubatch={64: 0.1, 32: 0.2},
    passes={1: 0.01, 8: 0.02, 64: 0.2},
    groups=(Group(1, 0.1, 0.1),),
)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of a small model, which takes seconds, and a cache of its own."""
    path = tiny_model(tmp_path / "tiny.gguf", fastest_form(find_packaged_model()), "llama")
    monkeypatch.setenv("FLASHFEED_CACHE", str(tmp_path / "cache"))
    (tmp_path / "x.toml").write_text(f"[engine]\nmodel = '{path}'\nbatch_tokens = 64\n")
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["tune", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_it_measures_and_a_worker_takes_it(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    config = str(tmp_path / "x.toml")
    assert run("-c", config, "--show") == 1
    assert "not tuned" in capsys.readouterr().out
    assert tuned_for(EngineConfig(), model) is None
    assert "flashfeed tune" in caplog.text
    assert run("-c", config, "--quick") == 0
    printed = capsys.readouterr().out
    for setting in ("threads", "flash_attention", "kv_type", "ubatch_tokens", "step_tokens"):
        assert setting in printed
    assert run("-c", config, "--show") == 0
    shown = capsys.readouterr().out
    assert shown.split("kept as")[0].strip() in printed
    tuned = tuned_for(EngineConfig(), model)
    assert tuned is not None
    assert f"threads {tuned.threads}" in caplog.text
    assert tuned_for(EngineConfig(gpu_layers=0), model) is None  # another machine, as it were


def test_a_model_that_is_not_configured_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-c", str(tmp_path / "x.toml"), "--model", "big") == 2
    assert "'big'" in capsys.readouterr().err


def test_the_table_says_what_was_chosen_and_why() -> None:
    record = Record(choose(MEASURED), MEASURED, "m", "cpu", "1")
    table = {
        setting: (chosen, why) for setting, chosen, why in command.rows(record.tuned, MEASURED)
    }
    assert table["threads"] == ("2", "1: 200, 2: 100")
    assert table["flash_attention"][0] == "off"
    assert (
        "on/q8_0 update 50, step 10, logits within 0.170 (too far)" in table["flash_attention"][1]
    )
    assert table["kv_type"][0] == "f16"
