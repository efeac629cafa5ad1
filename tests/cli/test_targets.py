"""Prometheus finds the group's workers by what `flashfeed targets` writes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import orjson
import pytest

from flashfeed.cli.targets import file_sd
from flashfeed.models.ownership import Owner

from cluster import group_of
from prometheus_tools import prometheus

COMMAND = [sys.executable, "-m", "flashfeed.cli.main", "targets"]
PROMETHEUS = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: flashfeed
    file_sd_configs: [{{files: ["{file}"], refresh_interval: 1s}}]
"""


def owner(partition: int, url: str) -> Owner:
    return Owner(partition, 1, f"worker of {url}", url, live=True)


def test_a_worker_is_one_target_however_many_partitions_it_has() -> None:
    owners = [
        owner(0, "http://a:8080"),
        owner(1, "http://b:8080"),
        owner(2, "http://a:8080"),
        owner(3, "https://c:8443/below"),
        owner(4, ""),
    ]
    assert orjson.loads(file_sd(owners, "g")) == [
        {"targets": ["a:8080", "b:8080"], "labels": {"__scheme__": "http", "group": "g"}},
        {"targets": ["c:8443"], "labels": {"__scheme__": "https", "group": "g"}},
    ]
    assert orjson.loads(file_sd([], "g")) == []


def test_a_file_to_keep_has_a_name(tmp_path: Path) -> None:
    config = tmp_path / "flashfeed.toml"
    config.write_text("")
    ran = subprocess.run(
        [*COMMAND, "-c", str(config), "--every", "5"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, "--out" in ran.stderr) == (2, True), ran.stderr


@pytest.mark.broker
@pytest.mark.model
def test_prometheus_scrapes_every_worker_of_the_group(broker: str, tmp_path: Path) -> None:
    file = tmp_path / "workers.json"
    with group_of(broker, tmp_path) as group:
        deadline = time.monotonic() + 60
        while len(set(group.owners().values())) < len(group.members):
            assert time.monotonic() < deadline, group.owners()
        command = [*COMMAND, "-c", str(group.members[0].config)]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert printed.returncode == 0, printed.stderr
        subprocess.run([*command, "--out", str(file)], timeout=60, check=True)
        assert file.read_text() == printed.stdout
        assert [one.name for one in tmp_path.glob(".workers*")] == []
        wanted = {one.url.partition("://")[2] for one in group.members}
        with prometheus(tmp_path, PROMETHEUS.format(file=file)) as url:
            deadline = time.monotonic() + 60
            while True:
                asked = {"query": 'flashfeed_build_info{group!=""}'}
                answer = httpx.get(f"{url}/api/v1/query", params=asked).json()["data"]["result"]
                if {one["metric"]["instance"] for one in answer} == wanted:
                    break
                assert time.monotonic() < deadline, answer
                time.sleep(0.2)
    assert {one["metric"]["group"] for one in answer} == {group.name}
