"""Pictures of the dashboards for README.md: each panel's queries asked of a real Prometheus and
plotted. No Grafana: colours and shapes are like its own, not the same.

    pip install matplotlib
    python -m dashboards.pictures http://127.0.0.1:9090 SECONDS [FOLDER]

pictured_run.py makes the run and calls this.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final, NamedTuple

from . import BOARDS
from .panel import Board, Panel, filled_in

WINDOW: Final = "30s"
COLUMNS: Final = 24
LEGEND_MAX: Final = 12
ROW_INCHES, WIDTH_INCHES = 0.36, 16.0
BACK, FRONT, TEXT = "#f4f5f5", "#ffffff", "#24292e"
GREEN, RED = "#37872d", "#c4162a"
UNITS: Final = {"cps": "/s", "s": " s", "percentunit": "%", "bytes": "B", "short": ""}


class Placed(NamedTuple):
    """A panel, or a row's title, in grid units from the top left."""

    what: Panel | str
    x: int
    y: int
    width: int
    height: int


def placed(board: Board) -> tuple[list[Placed], int]:
    """Where everything stands, and how high it all is: as Grafana lays it out. Pure."""
    found, y = [], 0
    for row in board.rows:
        found.append(Placed(row.title, 0, y, COLUMNS, 1))
        y += 1
        x = highest = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, highest = 0, y + highest, 0
            found.append(Placed(panel, x, y, panel.width, panel.height))
            x, highest = x + panel.width, max(highest, panel.height)
        y += highest
    return found, y


def legend(template: str, labels: dict[str, str]) -> str:
    """A series' name. Pure."""
    if template:
        return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)
    return " ".join(f"{key}={value}" for key, value in labels.items() if key != "__name__")


def shown(value: float, unit: str) -> str:
    """A number as a person reads it. Pure."""
    if math.isnan(value):
        return "-"
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "bool_yes_no":
        return "Yes" if value else "No"
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}{UNITS.get(unit, '').strip()}"
    return f"{value:.3g}{UNITS.get(unit, '')}"


class Source(NamedTuple):
    """A Prometheus, and the stretch of time that is shown."""

    url: str
    start_s: float
    end_s: float

    def ask(self, path: str, **parameters: Any) -> list[Any]:
        """The result of a query."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            result: list[Any] = json.loads(answer.read())["data"]["result"]
        return result

    def now(self, expression: str) -> list[Any]:
        """Each series' labels and its value at the end."""
        return self.ask("query", query=filled_in(expression, WINDOW), time=self.end_s)

    def lines(self, expression: str) -> list[Any]:
        """Each series' labels and its values over time."""
        step = max(1.0, (self.end_s - self.start_s) / 240)
        return self.ask(
            "query_range",
            query=filled_in(expression, WINDOW),
            start=self.start_s,
            end=self.end_s,
            step=step,
        )


def draw(board: Board, source: Source, file: Path) -> None:
    """Draw a dashboard into a file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places, height = placed(board)
    figure = Figure(figsize=(WIDTH_INCHES, height * ROW_INCHES), facecolor=BACK)
    FigureCanvasAgg(figure)
    for one in places:
        left, low = one.x / COLUMNS, 1 - (one.y + one.height) / height
        if isinstance(one.what, str):
            figure.text(0.005, low + 0.3 / height, one.what, color=TEXT, weight="bold", fontsize=11)
            continue
        gap = (0.004, 0.12 / height)
        box = (left + gap[0], low + gap[1], one.width / COLUMNS - 2 * gap[0],
               one.height / height - 2 * gap[1])  # fmt: skip
        back = figure.add_axes(box, facecolor=FRONT)
        back.set(xticks=[], yticks=[])
        for spine in back.spines.values():
            spine.set_color("#d8d9da")
        back.set_title(one.what.title, fontsize=9, loc="left", y=1, pad=-12, x=0.015, color=TEXT)
        inch = 1 / (height * ROW_INCHES)
        inner = (box[0] + 0.03, box[1] + 0.32 * inch, box[2] - 0.036, box[3] - 0.62 * inch)
        {"timeseries": _lines, "stat": _stat, "bars": _bars, "table": _table}[one.what.kind](
            figure, back, inner, one.what, source
        )
    figure.savefig(file, dpi=75)


def _nothing(axes: Any) -> None:
    axes.text(0.5, 0.45, "No data", ha="center", color="#8e8e8e", transform=axes.transAxes)


def _lines(figure: Any, back: Any, inner: Any, panel: Panel, source: Source) -> None:
    series = [
        (legend(query.legend, one["metric"]), [(at, float(value)) for at, value in one["values"]])
        for query in panel.queries
        for one in source.lines(query.expr)
    ]
    if not series:
        _nothing(back)
        return
    if any(name for name, _ in series):  # nameless among others: no tenant, no feed
        series = [(name or "(none)", points) for name, points in series]
    columns, rows = legend_shape([name for name, _ in series], panel)
    lift = 0.12 * max(0, rows - 1) / figure.get_figheight()
    inner = (inner[0], inner[1] + lift, inner[2], inner[3] - lift)
    axes = figure.add_axes(inner, facecolor=FRONT)
    if panel.stacked:
        times = sorted({at for _, points in series for at, _ in points})
        values = [[dict(points).get(at, 0.0) for at in times] for _, points in series]
        minutes = [(at - source.start_s) / 60 for at in times]
        axes.stackplot(minutes, values, labels=[name for name, _ in series], alpha=0.6)
    else:
        for name, points in series:
            minutes = [(at - source.start_s) / 60 for at, _ in points]
            axes.plot(minutes, [value for _, value in points], label=name, linewidth=1.1)
    axes.set_xlim(0, (source.end_s - source.start_s) / 60)
    axes.set_ylim(0, panel.maximum)
    axes.tick_params(labelsize=6.5, length=2, colors=TEXT)
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, panel.unit))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.1f} min")
    axes.grid(color="#ececec", linewidth=0.6)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if columns:
        handles, names = axes.get_legend_handles_labels()
        axes.legend(
            handles[:LEGEND_MAX], names[:LEGEND_MAX], fontsize=6, loc="upper center", ncols=columns,
            bbox_to_anchor=(0.5, -0.17 / (inner[3] * figure.get_figheight())), frameon=False,
            borderaxespad=0, columnspacing=1.0, handlelength=1.2,
        )  # fmt: skip


def legend_shape(names: list[str], panel: Panel) -> tuple[int, int]:
    """Columns and rows of the legend below a plot; no row where nothing has a name. Pure."""
    shown_names = names[:LEGEND_MAX]
    if not any(shown_names):
        return 0, 0
    inches = panel.width / COLUMNS * WIDTH_INCHES - 0.5
    columns = max(1, int(inches / (0.4 + 0.055 * max(map(len, shown_names)))))
    columns = min(columns, len(shown_names))
    return columns, -(-len(shown_names) // columns)


def _stat(_: Any, back: Any, __: Any, panel: Panel, source: Source) -> None:
    found = source.now(panel.queries[0].expr)
    if not found:
        _nothing(back)
        return
    value = float(found[0]["value"][1])
    bad = panel.red_from is not None and value >= panel.red_from
    bad = bad or (panel.red_below is not None and value < panel.red_below)
    back.set_facecolor(RED if bad else GREEN)
    back.title.set_color(FRONT)
    back._left_title.set_color(FRONT)
    name = legend(panel.queries[0].legend, found[0]["metric"]) if panel.queries[0].legend else ""
    back.text(0.5, 0.4, f"{shown(value, panel.unit)} {name}", ha="center", va="center", color=FRONT,
              fontsize=20, transform=back.transAxes)  # fmt: skip


def _bars(figure: Any, back: Any, inner: Any, panel: Panel, source: Source) -> None:
    query = panel.queries[0]
    found = source.now(query.expr)
    if not found:
        _nothing(back)
        return
    bars = sorted((float(one["value"][1]), legend(query.legend, one["metric"])) for one in found)
    left = inner[0] + 0.06
    axes = figure.add_axes((left, inner[1], inner[2] - 0.06, inner[3]), facecolor=FRONT)
    drawn = axes.barh([name for _, name in bars], [value for value, _ in bars], color=GREEN)
    axes.bar_label(drawn, [shown(value, panel.unit) for value, _ in bars], fontsize=7, padding=2)
    axes.tick_params(labelsize=7, length=0, colors=TEXT)
    axes.set(xticks=[])
    axes.margins(x=0.15)
    for spine in axes.spines.values():
        spine.set_visible(False)


def table_rows(panel: Panel, found: list[list[Any]]) -> list[str]:
    """The lines of a table, of each query's series: one for each set of labels, with a column
    for each query. Pure."""
    columns: dict[str, list[str]] = {}
    for number, (query, series) in enumerate(zip(panel.queries, found, strict=True)):
        for one in series:
            hidden = {"__name__", "job"}
            labels = {key: value for key, value in one["metric"].items() if key not in hidden}
            cells = columns.setdefault(legend("", labels), ["-"] * len(panel.queries))
            cells[number] = shown(float(one["value"][1]), query.unit or panel.unit)
    if panel.labels_only:
        return list(columns)
    head = [query.legend or "Value" for query in panel.queries]
    rows = [*columns.items()]
    return [
        "".join(f"{cell:>12}" for cell in cells) + f"   {labels}"
        for labels, cells in ([("", head)] if any(q.legend for q in panel.queries) else []) + rows
    ]


def _table(_: Any, back: Any, __: Any, panel: Panel, source: Source) -> None:
    rows = table_rows(panel, [source.now(query.expr) for query in panel.queries])
    if not rows:
        _nothing(back)
        return
    wide = panel.width * 10  # characters
    text = "\n".join(row[:wide] for row in rows[: 2 * panel.height + 1])
    back.text(0.015, 0.86, text, va="top", fontsize=7, family="monospace", color=TEXT,
              transform=back.transAxes)  # fmt: skip


def main() -> None:
    """Draw every dashboard of the last seconds of a Prometheus."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(__file__).parent / "pictures"
    folder.mkdir(exist_ok=True)
    end_s = time.time()
    for board in BOARDS:
        draw(board, Source(url, end_s - seconds, end_s), folder / f"{board.name}.png")


if __name__ == "__main__":
    main()
