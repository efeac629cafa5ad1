"""What the README and the examples show is run, so that they cannot lie."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashfeed import engine
from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.keys_file import read_keys_file
from flashfeed.cli.main import parser
from flashfeed.cli.settings import load
from flashfeed.models.config import LimitsConfig
from flashfeed.models.control import decode_control
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.session import FlashQuery, SessionSpec

from client_packages import CLIENTS, node_modules

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def one_core() -> Iterator[None]:
    """An engine's default is a thread for each core it may use, and threads that wait for one
    another are ten times slower on a machine that is busy otherwise."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_configuration_in_the_readme_is_good(tmp_path: Path) -> None:
    tables = [block for block in blocks("toml") if "[tenant." not in block]
    path = tmp_path / "readme.toml"
    path.write_text("\n".join(tables))  # they go together
    config = load(path)
    assert set(config.feeds) == {"candles"}
    assert config.cluster.passes_on


def test_the_control_messages_in_the_readme_are_some() -> None:
    [block] = [block for block in blocks("json") if '"op"' in block]
    assert [decode_control(line.encode()).session_id for line in block.splitlines()] == ["AAPL"] * 2


def test_the_keys_file_in_the_readme_is_good(tmp_path: Path) -> None:
    [block] = [block for block in blocks("toml") if "[tenant." in block]
    path = tmp_path / "keys.toml"
    path.write_text(block)
    read = read_keys_file(path, LimitsConfig())
    assert read.keys.tenants == ["acme"]
    assert read.limits["acme"].sessions == 4


def test_the_consumer_in_the_readme_is_the_example() -> None:
    example = (ROOT / "examples" / "consume_answers.py").read_text()
    assert any(block.strip() in example for block in blocks("python"))


def test_the_engine_in_the_readme_is_the_example() -> None:
    example = (ROOT / "examples" / "engine_alone.py").read_text()
    [block] = [block for block in blocks("python") if "Engine(" in block]
    assert textwrap.indent(block, "    ") in example


def test_every_make_target_and_command_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z]+)`", README)) <= targets
    for line in re.findall(r"^flashfeed (.+?)(?:  +#.*)?$", README, flags=re.M):
        parser().parse_args(line.split())


def test_every_file_in_the_readme_exists() -> None:
    for name in re.findall(r"`([a-z_]+/[a-z_/.]+|[a-z]+\.toml)`", README):
        assert (ROOT / name).exists(), name


def test_the_map_of_the_engine_names_every_file() -> None:
    named = re.findall(r"(?<!/)\b[a-z_]+\.py\b", engine.__doc__ or "")
    there = {path.name for path in (ROOT / "engine").glob("*.py")} - {"__init__.py"}
    assert set(named) - {"window.py", "engine_alone.py"} == there


@pytest.mark.model
@pytest.mark.usefixtures("one_core")
def test_the_usage_of_the_engine_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [usage] = re.findall(r"(?:^    .*\n)+", engine.__doc__ or "", flags=re.M)
    names = {
        **vars(engine),
        "GenerateOptions": lambda: GenerateOptions(max_tokens=4),
        "spec": SessionSpec(
            type="ohlcv", flash=(FlashQuery("Up or down?", choices=("up", "down")),), context=512
        ),
    }
    exec("async def usage():\n" + usage, names)
    asyncio.run(names["usage"]())
    answer, text = capsys.readouterr().out.split("\n", 1)
    assert re.fullmatch(r"Up or down\? (up|down) [01]\.\d+", answer)
    assert text.strip()


@pytest.mark.model
@pytest.mark.usefixtures("one_core")
def test_the_engine_alone_answers_and_writes() -> None:
    script = ROOT / "examples" / "engine_alone.py"
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=True
    )
    *days, said = ran.stdout.strip().split("\n", 10)
    assert len(days) == 10
    for day in days:
        answers = re.search(r"trend (bullish|bearish) ([\d.]+)  volume (high|low) ([\d.]+)", day)
        assert answers is not None, day
        assert all(0.5 <= float(share) <= 1 for share in answers.group(2, 4)), day
    assert len(said.split()) > 3


def test_every_file_in_the_tests_readme_exists() -> None:
    tests = ROOT / "tests"
    for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", (tests / "README.md").read_text()):
        places = (tests / name, tests / "engine" / name, ROOT / name)
        assert any(place.exists() for place in places), name


@pytest.mark.broker
@pytest.mark.model
def test_the_clients_in_the_readme_run(worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, over one session, as they stand there."""
    clients = [block for block in blocks("python") if "http://127.0.0.1:8080" in block]
    # What reads on until the session ends is run as examples/session_events.py.
    clients = [block for block in clients if "SessionEvents" not in block]
    assert len(clients) == 4
    names: dict[str, Any] = {}
    said = []
    for block in clients:
        exec(block.replace("http://127.0.0.1:8080", worker.url), names)
        said.append(capsys.readouterr().out)
    assert all(one.strip() for one in said)
    _, _, anthropic, llama_stack = said
    assert int(anthropic.split()[-1]) > 20  # it reads what the session holds already
    assert llama_stack.split()[0] == "turn_start" and llama_stack.split()[-1] == "turn_complete"


@pytest.mark.broker
@pytest.mark.model
def test_the_realm_client_in_the_readme_runs(worker: Any, tmp_path: Path) -> None:
    modules = node_modules()
    imported, *rest = blocks("js")[0].splitlines()
    assert "RealmWebSocketClient" in imported
    # The package is on no registry: tests/clients/ has a client of the same interface.
    ours = [
        'import { createRequire } from "node:module";',
        f'import {{ realmClient }} from "{CLIENTS / "realm_client.mjs"}";',
        f'const RealmWebSocketClient = realmClient(createRequire("{modules}/")("{modules}/ws"));',
    ]
    script = tmp_path / "readme.mjs"
    script.write_text("\n".join(ours + rest).replace("127.0.0.1:8080", worker.url[7:]))
    ran = subprocess.run(["node", script], capture_output=True, text=True, timeout=60, check=True)
    assert "Paris" in ran.stdout


@pytest.mark.broker
@pytest.mark.model
def test_the_example_prints_answers(worker: Any) -> None:
    script = ROOT / "examples" / "consume_answers.py"
    [block] = [block for block in blocks("python") if "layerscale" in block]
    with subprocess.Popen(
        [sys.executable, "-u", str(script), worker.brokers], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        printed: list[str] = []
        reader = threading.Thread(target=lambda: printed.append(process.stdout.readline()))
        reader.start()
        try:
            for _ in range(20):  # it reads from now on: ask until it is there
                exec(block.replace("http://127.0.0.1:8080", worker.url), {})
                if printed:
                    break
        finally:
            process.kill()
            reader.join()
    # What a model says freely may have spaces and line breaks: it is quoted, one answer a line.
    told = re.fullmatch(r"([^\W_]+) (q\w*) (['\"]).*\3 ([\d.e-]+)\n", printed[0])
    assert told is not None, printed
    assert 0 <= float(told[4]) <= 1


@pytest.mark.broker
@pytest.mark.model
def test_the_events_of_a_session_are_printed(worker: Any) -> None:
    script = ROOT / "examples" / "session_events.py"
    body = {"type": "iot", "flash": [{"query": "Hot?", "choices": ["yes", "no"]}]}
    with httpx.Client(base_url=f"{worker.url}/v1/sessions", timeout=60) as http:
        session_id = http.post("/init", json=body).json()["session_id"]
        http.post(f"/{session_id}/stream/push", json={"data": [{"sid": "a", "val": 1.5}]})
        while http.get(f"/{session_id}/flash").json()["current_data_version"] == 0:
            time.sleep(0.05)
        with subprocess.Popen(
            [sys.executable, "-u", str(script), worker.url, session_id],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            answer, updated = process.stdout.readline(), process.stdout.readline()
            http.delete(f"/{session_id}")
            assert process.wait(30) == 0  # the events end with the session
    assert answer.split()[1:] in (["1", "yes"], ["1", "no"])
    assert updated.split()[1:] == ["1"]


@pytest.mark.broker
def test_the_broker_command_runs_until_it_is_stopped() -> None:
    port = free_port()
    command = [sys.executable, "-m", "flashfeed.cli.main", "broker", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f"127.0.0.1:{port}" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) is not None
