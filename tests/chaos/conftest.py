"""The rooms of bench/chaos.py, as its own files import one another; and the workers' settings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flashfeed.cli.settings import load
from flashfeed.models.config import Config

sys.path.append(str(Path(__file__).parents[2] / "bench"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    from chaos_rig import CONFIG

    path = tmp_path_factory.mktemp("chaos") / "flashfeed.toml"
    whatever = dict.fromkeys(("port", "sessions_max", "seats", "snapshot_bytes"), 16)
    text = CONFIG.format(
        **whatever,
        brokers="b:1",
        partitions=4,
        replication=3,
        session_timeout_s=6.0,
        secret_env="S",
        snapshots="",
        source="candles",
    )
    path.write_text(text)
    return load(path)
