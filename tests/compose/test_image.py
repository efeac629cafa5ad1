"""The Dockerfile: what it copies is there, and its build commands give a worker that starts.

The image itself is not built here. With FLASHFEED_DRY_BUILD=1 the build stage's own commands run
in a folder, with the paths changed (minutes, most of them pip's); llama.cpp comes from the cache,
where this machine compiled it before. Without it what pip would choose is followed through the
metadata of what is installed.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from flashfeed.bridge.gate import OPEN_PATHS

from deployment import COMPOSE, ROOT

sys.path.append(str(ROOT / "engine" / "build"))
import install

VENV = "/opt/flashfeed"


class Step(NamedTuple):
    """An instruction of the Dockerfile, and the stage it belongs to."""

    stage: str
    word: str
    rest: str


def steps() -> list[Step]:
    lines = [
        line
        for line in (COMPOSE / "Dockerfile").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    found: list[Step] = []
    stage = ""
    for text in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, rest = text.split(maxsplit=1)
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        found.append(Step(stage, word, rest.strip()))
    return found


STEPS = steps()


def copied() -> list[tuple[str, str]]:
    """Sources (of the repository) and targets of every COPY."""
    pairs = []
    for step in STEPS:
        if step.word == "COPY" and "--from=" not in step.rest:
            *sources, target = [one for one in step.rest.split() if not one.startswith("--")]
            pairs += [(source, target) for source in sources]
    return pairs


def test_what_is_copied_is_there_and_not_left_out_of_the_context() -> None:
    lines = (COMPOSE / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in lines if line.startswith("!")]
    assert lines[1] == "*"
    for source, _ in copied():
        assert (ROOT / source).exists(), source
        assert any(source == one or source.startswith(f"{one}/") for one in let_in), source
    for name in let_in:
        assert any(source.startswith(name) for source, _ in copied()), f"{name} is copied nowhere"


def test_every_package_of_the_project_is_copied() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    table = text.split("[tool.setuptools.package-dir]")[1].split("\n[")[0]
    folders = set(re.findall(r'= "(\w+)', table))
    assert folders <= {source.rstrip("/") for source, _ in copied()}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_device_has_its_stages(device: str) -> None:
    stages = {step.stage for step in STEPS}
    for step in STEPS:
        base = step.rest.split()[0].replace("${DEVICE}", device)
        if step.word == "FROM" and "${DEVICE}" in step.rest:
            assert base in stages, base
    assert {f"tools-{device}", f"runtime-{device}"} <= stages


def test_it_does_not_run_as_root_and_its_health_check_is_an_open_route() -> None:
    last = [step for step in STEPS if step.stage == "runtime"]
    [user] = [step.rest for step in last if step.word == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    [check] = [step.rest for step in last if step.word == "HEALTHCHECK"]
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", check)
    assert asked is not None and asked[2] in OPEN_PATHS
    assert ("EXPOSE", asked[1]) in [(step.word, step.rest) for step in last]
    [start] = [step.rest.strip('[]"') for step in last if step.word == "ENTRYPOINT"]
    assert f"/usr/local/bin/{start}" in [target for _, target in copied()]


def needed(name: str, extras: frozenset[str], found: dict[str, set[str]]) -> None:
    """Every distribution that one needs, with what is asked of its version."""
    for text in requires(name) or ():
        asked = Requirement(text)
        if asked.marker and not any(asked.marker.evaluate({"extra": one}) for one in extras | {""}):
            continue
        known = canonicalize_name(asked.name) in found
        found.setdefault(canonicalize_name(asked.name), set()).add(str(asked.specifier))
        if not known or asked.extras:
            needed(asked.name, frozenset(asked.extras), found)


def test_the_lock_has_all_that_a_worker_needs_and_the_data_of_the_demo() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    locked = {canonicalize_name(name): version for name, version in pins.items()}
    [install_step] = [one.rest for one in STEPS if "-c requirements.lock" in one.rest]
    extras = re.search(r"'\.\[(.+)\]'", install_step)
    assert extras is not None
    found: dict[str, set[str]] = {}
    needed("flashfeed", frozenset(extras[1].split(",")), found)
    assert {"aiokafka", "llama-cpp-python", "nvidia-ml-py"} <= set(found)
    assert "pytest" not in found
    for name, specifiers in found.items():
        assert name in locked, f"{name} is not in the lock: pip would take any version"
        for one in specifiers:
            assert SpecifierSet(one).contains(locked[name]), (name, one)
    [data] = [one.rest for one in STEPS if "data.lock" in one.rest]
    pattern = re.search(r"grep -E '(.+)' requirements", data)
    assert pattern is not None
    assert len([line for line in lines if re.match(pattern[1], line)]) == 2


@pytest.mark.skipif("FLASHFEED_DRY_BUILD" not in os.environ, reason="takes minutes")
def test_the_commands_of_the_build_give_a_worker_and_nothing_of_the_tests(tmp_path: Path) -> None:
    version = install.pinned_version(ROOT / "requirements.lock")
    home = Path(os.environ.get("FLASHFEED_CACHE") or Path.home() / ".cache" / "flashfeed")
    wheels = home / "wheels" / install.build_key(version, "")
    if not list(wheels.glob("*.whl")):
        pytest.skip("needs llama.cpp as `make setup` compiles it; another build takes minutes")
    source, venv = tmp_path / "src", tmp_path / "venv"
    source.mkdir()
    for step in [one for one in STEPS if one.stage == "build"]:
        if step.word == "COPY":
            *names, target = step.rest.split()
            for name in names:
                place = source / target / (Path(name).name if target == "./" else "")
                ignored = shutil.ignore_patterns("__pycache__")
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, place, dirs_exist_ok=True, ignore=ignored)
                else:
                    shutil.copy(ROOT / name, place)
        elif step.word == "RUN":
            command = re.sub(r"--mount=\S+", "", step.rest).replace(VENV, str(venv))
            command = command.replace("/var/cache/flashfeed", str(home)).replace(
                '"$DEVICE_ARGS $EXTRA_CMAKE_ARGS"', '""'
            )
            command = command.replace("python3 -m venv", f"{sys.executable} -m venv")
            ran = subprocess.run(
                ["bash", "-euc", command],
                cwd=source, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert ran.returncode == 0, (command, ran.stdout[-2000:], ran.stderr[-3000:])

    def run(*command: str) -> str:
        ran = subprocess.run(
            [str(venv / "bin" / command[0]), *command[1:]],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
            env={"PATH": os.environ["PATH"], "FLASHFEED_API_KEYS": "demo:" + "a" * 64,
                 "FLASHFEED_CLUSTER_SECRET": "b" * 64},
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-3000:]
        return ran.stdout

    run("flashfeed", "check", "-c", str(COMPOSE / "flashfeed.toml"))
    run("flashfeed", "probe", "--help")
    run("python", str(COMPOSE / "demo_feed.py"), "--help")
    run("python", "-c", "import flashfeed.cli.worker, pynvml; "
        "from flashfeed.engine.packaged_model import find_packaged_model as find; "
        "from flashfeed.cli.sample_data import candles; find(); next(candles('AAPL'))")  # fmt: skip
    installed = run("python", "-m", "pip", "freeze")
    locked = (ROOT / "requirements.lock").read_text().lower().replace("_", "-").splitlines()
    for line in installed.lower().replace("_", "-").splitlines():
        if not fnmatch.fnmatch(line, "*@ file:*"):
            assert line in locked, f"{line} is not the lock's version"
    assert "\npytest==" not in installed and "\nmypy==" not in installed
