"""A backlog that lasts several times as long as the group waits for anybody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from apache_kafka import available

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
]
BENCH = Path(__file__).parents[2] / "bench" / "backlog.py"
SMALL = ("--minutes", "0.3", "--max-poll-s", "6", "--pack", "1", "--fetched", "1")


def test_a_slow_engine_changes_nothing_in_the_group_and_loses_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, str(BENCH), *SMALL],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["over_poll"] > 2.5 and found["over_session"] > 2.5
    assert found["all_held_back"] > 0 and found["rebalances"] == 0
