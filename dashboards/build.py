"""Writes json/: `make dashboards`. Grafana imports these files."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from . import BOARDS
from .grafana import made
from .panel import Board

FOLDER = Path(__file__).parent / "json"


def text_of(board: Board) -> str:
    """A dashboard's file."""
    return JSONEncoder(sort_keys=True, indent=2).encode(made(board)) + "\n"


def main() -> None:
    """Write every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(text_of(board))


if __name__ == "__main__":
    main()
