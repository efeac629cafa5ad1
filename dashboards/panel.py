"""What a panel is here, in plain words; grafana.py makes Grafana's JSON of it."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple

Kind = Literal["timeseries", "stat", "table", "bars"]

ALL_SCOPE: Final = 'instance=~"$worker",tenant=~"$tenant",feed=~"$feed",type=~"$type"'
"""The labels of what sessions do."""
COST_SCOPE: Final = 'instance=~"$worker",tenant=~"$tenant",feed=~"$feed"'
FEED_SCOPE: Final = 'instance=~"$worker",feed=~"$feed"'
WORKER: Final = 'instance=~"$worker"'
RATE: Final = "$__rate_interval"


class Query(NamedTuple):
    """A PromQL expression and what its series are called. In a table `legend` is the name of
    the column, and `unit` is its own where it is not the panel's."""

    expr: str
    legend: str = ""
    unit: str = ""


class Panel(NamedTuple):
    """A panel. `unit` is Grafana's name of it; `width` of 24; `red_from` and `red_below` colour
    a stat; `maximum` ends the axis; a table of `labels_only` shows no value (of an info)."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    red_from: float | None = None
    red_below: float | None = None
    stacked: bool = False
    maximum: float | None = None
    labels_only: bool = False


class Row(NamedTuple):
    """A row of panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Board(NamedTuple):
    """A dashboard: its file's name, title, what it is for, and its rows."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> list[Panel]:
        """Every panel."""
        return [panel for row in self.rows for panel in row.panels]


def by(label: str, title: str, description: str, unit: str, expr: str, **more: Any) -> Panel:
    """A panel of one query with a line a value of that label; `more` is the panel's."""
    legend = "{{" + label + "}}"
    return Panel(title, description, unit, (Query(expr, legend),), **more)


def filled_in(expr: str, window: str) -> str:
    """An expression as Grafana sends it with `All` chosen everywhere."""
    expr = expr.replace(RATE, window)
    return re.sub(r"\$(worker|tenant|feed|type|query)\b", ".*", expr)


def rate(name: str, scope: str, by: str = "") -> str:
    """A counter a second, summed."""
    return f"sum {grouped(by)}(rate({name}{{{scope}}}[{RATE}]))"


def per_worker(expr: str) -> str:
    """A sum over the chosen workers as what it is of one of them: three that are full are at
    100%, not at 300%."""
    return f"({expr}) / scalar(count(flashfeed_build_info{{{WORKER}}}))"


def quantile(q: float, name: str, scope: str, by: str = "") -> str:
    """A quantile of a classic histogram."""
    inner = f"sum by (le{', ' + by if by else ''}) (rate({name}_bucket{{{scope}}}[{RATE}]))"
    return f"histogram_quantile({q}, {inner})"


def rare_quantile(q: float, name: str, scope: str) -> str:
    """A quantile of what happens seldom: of the last hour, as a rate would mostly be of none."""
    inner = f"sum by (le) (increase({name}_bucket{{{scope}}}[1h]))"
    return f"histogram_quantile({q}, {inner})"


def grouped(by: str) -> str:
    """The `by` of an aggregation; "" for none."""
    return f"by ({by}) " if by else ""


def quantiles(name: str, scope: str) -> tuple[Query, ...]:
    """The three that are looked at together."""
    return tuple(
        Query(quantile(q, name, scope), legend)
        for q, legend in ((0.5, "half within"), (0.95, "95% within"), (0.99, "99% within"))
    )


def or_zero(expr: str, label: str = "", value: str = "none") -> str:
    """0 where nothing happened yet: a counter that has no series is not `No data`. Where the
    series have names by a label, that one has the name `value`."""
    zero = f'label_replace(vector(0), "{label}", "{value}", "", "")' if label else "vector(0)"
    return f"({expr}) or on () {zero}"


def total(name: str, scope: str, by: str = "") -> str:
    """A gauge, summed."""
    return f"sum {grouped(by)}({name}{{{scope}}})"


def increase(name: str, scope: str, window: str, by: str = "") -> str:
    """What a counter grew by, summed."""
    return f"sum {grouped(by)}(increase({name}{{{scope}}}[{window}]))"


def share(part: str, whole: str) -> str:
    """One by the other, where there is a whole."""
    return f"{part} / ({whole} > 0)"


def mean(name: str, scope: str) -> str:
    """The mean of a histogram."""
    return share(rate(f"{name}_sum", scope), rate(f"{name}_count", scope))
