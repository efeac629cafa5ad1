"""The models of a configuration, and which settings each is used with."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfeed.cli.main import main
from flashfeed.cli.models import catalogue, engine_of
from flashfeed.cli.settings import load
from flashfeed.cli.worker import engine_settings
from flashfeed.engine.model_download import Download
from flashfeed.engine.model_source import ModelFile, PackagedModel
from flashfeed.engine.tuned import Tuned
from flashfeed.models.config import Config, EngineConfig
from flashfeed.models.errors import ConfigError

TWO = """
[engine]
model = "small"
context_tokens = 1024

[models]
dirs = ["/models"]
allow_hosts = ["example.com"]

[model.small]
source = "packaged"

[model.big]
source = "https://example.com/big.gguf"
sha256 = "{sha}"
context_tokens = 8192
kv_type = "q8_0"
""".format(sha="a" * 64)
TUNED = Tuned(
    threads=3,
    kv_type="q8_0",
    flash_attention="on",
    ubatch_tokens=256,
    step_tokens=128,
    foreground_chunk=16,
    sessions_per_context=2,
)


def config(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return load(path)


def test_several_models_by_name(tmp_path: Path) -> None:
    two = config(tmp_path, TWO)
    known = catalogue(two)
    assert known.named == {
        "small": PackagedModel(),
        "big": Download("https://example.com/big.gguf", "a" * 64),
    }
    assert known.default == "small"
    assert known.dirs == (Path("/models"),)
    assert engine_of(two, "small") == two.engine
    big = engine_of(two, "big")
    assert (big.context_tokens, big.kv_type, big.gpu_layers) == (8192, "q8_0", -1)


def test_without_a_table_the_default_model_has_its_own_name(tmp_path: Path) -> None:
    assert catalogue(Config()).named == {"packaged": PackagedModel()}
    other = config(tmp_path, "[engine]\nmodel = '/models/qwen.gguf'")
    assert catalogue(other).named == {"qwen": ModelFile(Path("/models/qwen.gguf"))}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[model.x]\nsource = 'ftp://x.org/m'", r"model\.x\.source.*ftp"),
        ("[model.x]\nsource = 'https://x.org/m.gguf'", r"model\.x\.source.*allow_hosts"),
        ("[engine]\nmodel = 'https://x.org/m.gguf'", r"engine\.model.*allow_hosts"),
        (
            "[engine]\nmodel = '/m/x.gguf'\n[model.x]\nsource = 'packaged'",
            r"engine\.model.*model\.x",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        catalogue(config(tmp_path, text))
    with pytest.raises(SystemExit) as ended:
        main(["check", "-c", str(tmp_path / "x.toml")])
    assert ended.value.code == 2


def test_check_names_the_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.toml").write_text(TWO)
    with pytest.raises(SystemExit):
        main(["check", "-c", str(tmp_path / "x.toml")])
    printed = capsys.readouterr().out
    assert "small: the packaged one (default)" in printed
    assert "big: https://example.com/big.gguf" in printed


def test_what_the_configuration_leaves_open_is_as_tuned() -> None:
    settings = engine_settings(EngineConfig(), Path("m.gguf"), TUNED)
    assert (settings.threads, settings.kv_type, settings.flash_attention) == (3, "q8_0", "on")
    assert (settings.ubatch_tokens, settings.step_tokens) == (256, 128)
    assert (settings.foreground_chunk, settings.sessions_per_context) == (16, 2)


def test_the_configuration_comes_first() -> None:
    written = EngineConfig(threads=1, step_tokens=64, sessions_per_context=4)
    settings = engine_settings(written, Path("m.gguf"), TUNED)
    assert (settings.threads, settings.step_tokens, settings.sessions_per_context) == (1, 64, 4)
    assert settings.foreground_chunk == 16


def test_what_may_be_resident_is_as_configured() -> None:
    written = EngineConfig(
        sessions_max=9,
        seats_max=4,
        kv_bytes_max=2**30,
        snapshots="~/kv",
        snapshot_bytes_max=2**20,
        snapshot_interval_s=60.0,
    )
    settings = engine_settings(written, Path("m.gguf"))
    assert (settings.sessions_max, settings.seats, settings.kv_bytes_max) == (9, 4, 2**30)
    assert settings.snapshots == Path.home() / "kv"
    assert (settings.snapshot_bytes_max, settings.snapshot_interval_s) == (2**20, 60.0)


def test_attention_is_taken_whole_or_not_at_all() -> None:
    off = engine_settings(EngineConfig(flash_attention="off"), Path("m.gguf"), TUNED)
    assert (off.flash_attention, off.kv_type) == ("off", "f16")
    f32 = engine_settings(EngineConfig(kv_type="f32"), Path("m.gguf"), TUNED)
    assert (f32.flash_attention, f32.kv_type) == ("auto", "f32")
    with pytest.raises(ConfigError, match="q8_0"):
        engine_settings(EngineConfig(flash_attention="off", kv_type="q8_0"), Path("m.gguf"))


def test_without_a_measurement_the_engines_defaults_hold() -> None:
    settings = engine_settings(EngineConfig(), Path("m.gguf"))
    assert (settings.threads, settings.kv_type, settings.flash_attention) == (None, "f16", "auto")
    assert (settings.foreground_chunk, settings.sessions_per_context) == (0, 1)
