"""Makes Grafana's dashboards of ours, with the Grafana Foundation SDK."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from .panel import Board, Panel, Row

SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="$datasource")
VARIABLES: Final = (
    ("worker", "Worker", "label_values(flashfeed_build_info, instance)"),
    ("tenant", "Tenant", "label_values(flashfeed_updates_total, tenant)"),
    ("feed", "Feed", "label_values(flashfeed_updates_total, feed)"),
    ("type", "Type", "label_values(flashfeed_updates_total, type)"),
    ("query", "Question", "label_values(flashfeed_answers_total, query)"),
)
"""`All` matches whatever there is, nothing (no tenant, no feed) included."""
GREEN, RED = "green", "red"
LAST: Final = ["lastNotNull"]
LETTERS: Final = "ABCDEF"
UNSAID: Final = ("Time", "__name__", "job")
"""What a table of series has and nobody reads."""


def made(board: Board) -> Any:
    """A dashboard as the SDK has it; its JSON imports into Grafana 11 and newer."""
    builder = (
        dashboard.Dashboard(board.title)
        .uid(f"flashfeed-{board.name}")
        .description(board.description)
        .tags(["flashfeed"])
        .editable()
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("flashfeed")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["flashfeed"])
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
    )
    for name, label, query in VARIABLES:
        if any(f"${name}" in one.expr for panel in board.panels for one in panel.queries):
            builder.with_variable(_variable(name, label, query))
    for row in board.rows:
        _add_row(builder, row)
    built = builder.build()
    for number, panel in enumerate(built.panels or (), start=1):
        panel.id_val = number
    return built


def _variable(name: str, label: str, query: str) -> Any:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _add_row(builder: Any, row: Row) -> None:
    heading = dashboard.Row(row.title)
    if row.title.startswith("$"):
        heading.repeat(row.title[1:])
    builder.with_row(heading)
    for panel in row.panels:
        builder.with_panel(_panel(panel))


def _panel(panel: Panel) -> Any:
    kinds = {"timeseries": _lines, "stat": _stat, "table": _table, "bars": _bars}
    builder = (
        kinds[panel.kind](panel)
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .min(0)
        .span(panel.width)
        .height(panel.height)
        .thresholds(_thresholds(panel))
    )
    if panel.maximum is not None:
        builder.max(panel.maximum)
    for letter, query in zip(LETTERS, panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(SOURCE)
        if query.legend and panel.kind != "table":
            target.legend_format(query.legend)
        if panel.kind == "timeseries":
            target.range()
        else:
            target.instant()
        if panel.kind == "table":
            target.format(PromQueryFormat.TABLE)
        builder.with_target(target)
    return builder


def _thresholds(panel: Panel) -> Any:
    below, above = (RED, GREEN) if panel.red_below is not None else (GREEN, RED)
    limit = panel.red_from if panel.red_from is not None else panel.red_below
    steps = [models.Threshold(value=None, color=below)]
    if limit is not None:
        steps.append(models.Threshold(value=limit, color=above))
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _lines(panel: Panel) -> Any:
    builder = (
        timeseries.Panel()
        .draw_style(common_models.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    )
    if panel.stacked:
        builder.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    return builder


def _stat(panel: Panel) -> Any:
    named = any(query.legend for query in panel.queries)
    texts = common_models.BigValueTextMode
    return (
        stat.Panel()
        .text_mode(texts.VALUE_AND_NAME if named else texts.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(LAST))
        .color_mode(common_models.BigValueColorMode.BACKGROUND)
        .graph_mode(common_models.BigValueGraphMode.NONE)
    )


def _table(panel: Panel) -> Any:
    """One table: Grafana shows one frame of several, so those of several queries are merged."""
    builder = table.Panel()
    several = len(panel.queries) > 1
    if several:
        builder.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    columns = {
        f"Value #{letter}" if several else "Value": query
        for letter, query in zip(LETTERS, panel.queries, strict=False)
    }
    hidden = (*UNSAID, *columns) if panel.labels_only else UNSAID
    names = {column: query.legend for column, query in columns.items() if query.legend}
    options = {"excludeByName": dict.fromkeys(hidden, True), "renameByName": names}
    builder.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))
    for query in panel.queries:
        if query.unit:
            unit = models.DynamicConfigValue(id_val="unit", value=query.unit)
            builder.override_by_name(query.legend, [unit])
    return builder


def _bars(_: Panel) -> Any:
    return (
        bargauge.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(LAST))
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
    )
