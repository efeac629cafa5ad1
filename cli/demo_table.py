"""The demo's live table, drawn from the board. Pure: a board in, a renderable out.

It fits a terminal of 80 columns and 24 lines.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .demo_board import Board, SessionBoard

ANSWER_CHARS = 28


def draw(board: Board, elapsed_s: float, stage: str) -> RenderableType:
    """The table as it stands, with two lines above it."""
    rate = (len(board.sent) - len(board.waiting)) / elapsed_s if elapsed_s > 0 else 0.0
    head = Text.assemble(
        ("flashfeed demo", "bold"),
        f"  {stage}\n{len(board.sent)} records in, {board.updates} updates, "
        f"{board.flash_ready} answers, ",
        (f"{rate:.1f} records/s", "bold"),
    )
    table = Table(padding=(0, 1), collapse_padding=True)
    table.add_column("session, last record", no_wrap=True)
    table.add_column("v", justify="right")
    table.add_column("answers", no_wrap=True)
    table.add_column("prob", justify="right")
    table.add_column("tok", justify="right")
    table.add_column("ms", justify="right")
    for name, session in sorted(board.sessions.items()):
        names, answers, confidences = _answers(session)
        table.add_row(
            Text.assemble((name, "bold"), f"\n{session.last}"),
            str(session.version),
            Text.assemble(*_beside(names, answers)),
            confidences,
            str(session.decoded_tokens),
            f"{session.update_ms:.0f}",
        )
    return Group(head, table)


def _answers(session: SessionBoard) -> tuple[list[str], list[Text], str]:
    """Each question's name, its answer (dim where it is of an older version), and the
    confidences one below the other."""
    answers = [
        Text(_short(value), "" if version == session.version else "dim")
        for value, _, version in session.answers.values()
    ]
    confidences = "\n".join(f"{confidence:.2f}" for _, confidence, _ in session.answers.values())
    return list(session.answers), answers, confidences


def _beside(names: list[str], answers: list[Text]) -> list[Text]:
    width = max((len(name) for name in names), default=0)
    parts: list[Text] = []
    for place, (name, answer) in enumerate(zip(names, answers, strict=True)):
        parts += [Text("\n") if place else Text(""), Text(f"{name:<{width}} ", "cyan"), answer]
    return parts


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= ANSWER_CHARS else f"{line[: ANSWER_CHARS - 1]}…"
