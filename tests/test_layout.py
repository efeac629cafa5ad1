"""The rooms import only what the design lets them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "models": set(),
    "codecs": {"models"},
    "engine": {"models"},
    "heads": {"models"},
    "agents": {"models", "codecs", "engine", "heads"},
    "bridge": {"models", "agents.service"},
    "bridge/client": {"models"},
    "cli": {"models", "codecs", "engine", "heads", "agents", "bridge", "client"},
}


def imports(path: Path, room: str) -> set[str]:
    """What a file imports of flashfeed, without the prefix."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.level > 1:
            depth = len(path.relative_to(ROOT / room).parts)
            if node.level > depth:  # out of the room
                found.add(f"flashfeed.{node.module}")
    return {name.removeprefix("flashfeed.") for name in found if name.startswith("flashfeed")}


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    files = [path for path in (ROOT / room).rglob("*.py") if "build" not in path.parts]
    assert files
    for path in files:
        for name in imports(path, room):
            assert any(name == one or name.startswith(f"{one}.") for one in allowed), (path, name)


def test_the_client_is_light() -> None:
    script = "import flashfeed.client, sys; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"faust", "llama_cpp", "fastapi", "uvicorn", "numpy", "flashfeed.bridge"}
    assert not heavy & set(ran.stdout.split())
    assert "aiokafka" in ran.stdout


@pytest.mark.parametrize("program", ["probe", "targets", "top", "tail", "demo_feed"])
def test_what_decodes_nothing_does_not_load_llama_cpp(program: str) -> None:
    # A CUDA build of it cannot be loaded in a container that is given no GPU (compose's probe).
    script = f"""
import sys
from pathlib import Path
import flashfeed.cli.{program}
from flashfeed.cli.settings import load
load(Path({str(ROOT / "compose" / "flashfeed.toml")!r}))
print("llama_cpp" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_kafka_and_http_stay_out_of_the_pure_rooms() -> None:
    for room in ("models", "codecs", "engine", "heads"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text()
            for library in ("aiokafka", "faust", "fastapi", "uvicorn"):
                assert f"import {library}" not in text, path
                assert f"from {library}" not in text, path
