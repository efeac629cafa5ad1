"""The demo's live table, drawn from the board. Pure: a board in, a renderable out."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .demo_board import Board


def draw(board: Board, elapsed_s: float, stage: str) -> RenderableType:
    """The table as it stands, with a line above it."""
    rate = (len(board.sent) - len(board.waiting)) / elapsed_s if elapsed_s > 0 else 0.0
    head = Text.assemble(
        ("flashfeed demo  ", "bold"),
        f"{stage}  ",
        (
            f"{len(board.sent)} records in, {board.updates} updates, {board.flash_ready} answers, ",
            "",
        ),
        (f"{rate:.1f} records/s", "bold"),
    )
    table = Table(expand=True)
    table.add_column("session", no_wrap=True)
    table.add_column("version", justify="right")
    table.add_column("last record", no_wrap=True)
    table.add_column("answers (confidence)", ratio=1)
    table.add_column("tokens", justify="right")
    table.add_column("ms", justify="right")
    for name, session in sorted(board.sessions.items()):
        answers = Text()
        for query, (value, confidence, version) in session.answers.items():
            fresh = "" if version == session.version else "dim"
            answers.append(f"{query} ", "cyan")
            answers.append(f"{_short(value)} ", f"bold {fresh}")
            answers.append(f"{confidence:.2f}  ", fresh)
        table.add_row(
            name,
            str(session.version),
            session.last,
            answers,
            str(session.decoded_tokens),
            f"{session.update_ms:.0f}",
        )
    return Group(head, table)


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= 32 else f"{line[:31]}…"
