"""The table of `flashfeed top`. Pure: what was read in, a renderable out.

It fits a terminal of 80 columns. What a session is called and answers came from outside:
nothing of it moves the cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .top_figures import Answer, Figures, Place, SessionRow, rate

TEXT_CHARS: Final = 28
NAME_CHARS: Final = 16
ID_CHARS: Final = 36
PLACES_MAX: Final = 5
UNKNOWN: Final = "–"
KINDS: Final = ("ingest", "flash", "generate", "background")


class Seen(NamedTuple):
    """A worker: its figures, those before them, or why there are none."""

    url: str
    now: Figures | None
    before: Figures | None = None
    problem: str = ""


class View(NamedTuple):
    """All that one table shows; `sessions` are those shown of `sessions_count`."""

    clock: str
    now_ms: int
    workers: Sequence[Seen]
    sessions: Sequence[SessionRow] = ()
    sessions_count: int = 0


def draw(view: View) -> RenderableType:
    """The table."""
    parts: list[RenderableType] = [_head(view)]
    parts += [Text(f"{safe(one.url)}: {safe(one.problem)}", "red") for one in view.workers
              if one.now is None]  # fmt: skip
    if any(one.now for one in view.workers):
        parts += ["", _workers(view.workers)]
    if tokens := _tokens(view.workers):
        parts += ["", tokens]
    if places := _behind(view.workers):
        parts += ["", places]
    if view.sessions:
        parts += ["", _sessions(view)]
    return Group(*parts)


def safe(text: str) -> str:
    """One line that can be printed: of a control character stands its sign."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _head(view: View) -> Text:
    there = sum(one.now is not None for one in view.workers)
    missing = len(view.workers) - there
    return Text.assemble(
        ("flashfeed top", "bold"),
        f"  {view.clock}  {there} of {len(view.workers)} workers, ",
        f"{view.sessions_count} sessions",
        (f"  {missing} not answering" if missing else "", "bold red"),
    )


def _plain_table(*columns: str, left: int = 1) -> Table:
    """A table of texts, which are cut where there is no room, and then of numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for number, name in enumerate(columns):
        text = number < left
        table.add_column(name, justify="left" if text else "right", no_wrap=not text)
    return table


def _cut(*parts: str | Text | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _workers(workers: Sequence[Seen]) -> Table:
    table = _plain_table(
        "worker", "sess", "rec/s", "upd/s", "ans/s", "tok/s", "busy", "jobs", "lag", "age", "dead"
    )
    for one in workers:
        if one.now is not None:
            address = safe(one.url.partition("://")[2])
            table.add_row(_cut(address), *_figures(one.now, one.before))
    return table


def _figures(now: Figures, before: Figures | None) -> list[Text]:
    records = sum(one for one, _ in now.lag.values()) if now.lag else None
    seconds = max(one for _, one in now.lag.values()) if now.lag else None

    def counted(name: str) -> float | None:
        """A series that came meanwhile rose from 0."""
        has = name in now.counters
        return rate(before, now, lambda one: one.counters.get(name, 0.0)) if has else None

    tokens = rate(before, now, lambda one: sum(one.tokens.values())) if now.tokens else None
    dead = now.counters.get("dead_letters")
    busy = counted("device_s")
    return [
        Text(_number(now.sessions)),
        *(Text(_number(counted(name))) for name in ("records", "updates", "answers")),
        Text(_number(tokens)),
        Text(UNKNOWN if busy is None else f"{100 * busy:.0f}%"),
        Text(_number(now.jobs)),
        Text(_number(records)),
        Text(UNKNOWN if seconds is None else _ago(seconds), "yellow" if seconds else ""),
        Text(_number(dead), "yellow" if dead else ""),
    ]


def _tokens(workers: Sequence[Seen]) -> Text | None:
    """Tokens since the start and a second, by kind, of all workers."""
    known = [one for one in workers if one.now is not None and one.now.tokens]
    if not known:
        return None
    parts = []
    for kind in KINDS:
        total = sum(one.now.tokens.get(kind, 0.0) for one in known if one.now is not None)
        parts.append(f"{kind} {_number(total)}{_a_second(known, _of_kind(kind))}")
    answered = sum(one.now.counters.get("answers", 0.0) for one in known if one.now is not None)
    return Text(f"tokens: {', '.join(parts)}; answers: {_number(answered)}")


def _of_kind(kind: str) -> Callable[[Figures], float]:
    return lambda one: one.tokens.get(kind, 0.0)


def _a_second(workers: Iterable[Seen], read: Callable[[Figures], float]) -> str:
    rates = [rate(one.before, one.now, read) for one in workers if one.now is not None]
    known = [one for one in rates if one is not None]
    return f" ({_number(sum(known))}/s)" if sum(known) else ""


def _behind(workers: Sequence[Seen]) -> Table | None:
    """The partitions that are behind, the oldest first."""
    lag: dict[Place, tuple[float, float]] = {}
    for one in workers:
        lag |= {place: both for place, both in (one.now.lag if one.now else {}).items() if both[0]}
    if not lag:
        return None
    table = _plain_table("partition", "records behind", "age")
    oldest = sorted(lag.items(), key=lambda one: (-one[1][1], one[0]))
    for (topic, number), (records, seconds) in oldest[:PLACES_MAX]:
        table.add_row(_cut(safe(f"{topic}[{number}]")), _number(records), _ago(seconds))
    if (more := len(oldest) - PLACES_MAX) > 0:
        table.add_row(Text(f"and {more} more", "dim"))
    return table


def _sessions(view: View) -> Table:
    table = _plain_table("session", "answers", "type", "v", "wait", "tokens", "used", left=2)
    for row in view.sessions:
        table.add_row(
            _cut((_short(row.session_id, ID_CHARS), "bold" if row.busy else "")),
            _answers(row.answers),
            row.type,
            str(row.version),
            str(row.pending),
            f"{row.tokens}",
            _ago(max(0.0, (view.now_ms - row.used_ms) / 1000)),
        )
    if more := view.sessions_count - len(view.sessions):
        table.add_row(Text(f"and {more} more", "dim"))
    return table


def _answers(answers: Sequence[Answer]) -> Text:
    lines = []
    for place, one in enumerate(answers):
        lines += [
            Text("\n" if place else ""),
            Text(f"{_short(one.name, NAME_CHARS)} ", "cyan"),
            Text(f"{one.confidence:.2f} {_short(one.value)}", "" if one.fresh else "dim"),
        ]
    return _cut(*lines)


def _short(text: str, chars: int = TEXT_CHARS) -> str:
    line = safe(" ".join(text.split()))
    return line if len(line) <= chars else f"{line[: chars - 1]}…"


def _number(value: float | None) -> str:
    """At most six characters; a whole one below a million as it is."""
    if value is None:
        return UNKNOWN
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if sign == 'k' else size):.1f}{sign}"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


_SPANS: Final[Mapping[str, float]] = {"d": 86_400.0, "h": 3600.0, "m": 60.0}


def _ago(seconds: float) -> str:
    for sign, size in _SPANS.items():
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {sign}"
    return f"{seconds:.0f} s"
