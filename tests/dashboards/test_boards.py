"""The dashboards' files are what the Python makes, and ask for what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from flashfeed.agents.dead_letters import ALWAYS, SOMETIMES
from flashfeed.agents.metrics import Metrics

from boards import (
    BOARDS,
    FOLDER,
    ROOT,
    Panel,
    Query,
    expressions,
    filled_in,
    grouping,
    rules,
    series,
    table_rows,
    text_of,
)
from metrics_page import documented, sample_names
from prometheus_tools import promtool

PROMETHEUS_OWN = {"instance", "job"}
RULES = [rule["expr"] for rule in rules()]


def own_labels(name: str) -> set[str]:
    for suffix in ("_total", "_bucket", "_count", "_sum", ""):
        row = documented().get(name.removesuffix(suffix))
        if row is not None and name.endswith(suffix):
            return {*row.labels, "le"} if row.kind == "histogram" else set(row.labels)
    raise AssertionError(f"{name} is not in docs/METRICS.md")


@pytest.mark.parametrize("board", BOARDS, ids=lambda one: one.name)
def test_the_file_is_what_the_python_makes(board) -> None:
    written = (FOLDER / f"{board.name}.json").read_text()
    assert written == text_of(board), "run: make dashboards"


def test_there_is_no_other_file() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {board.name for board in BOARDS}


@pytest.mark.parametrize("board", BOARDS, ids=lambda one: one.name)
def test_every_panel_of_the_file_says_what_it_is_and_in_what_unit(board) -> None:
    made = json.loads((FOLDER / f"{board.name}.json").read_text())
    panels = [one for one in made["panels"] if one["type"] != "row"]
    assert len(panels) == len(board.panels)
    for panel in panels:
        assert len(panel["description"]) > 5, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert all(target["expr"] for target in panel["targets"])
        assert panel["datasource"]["uid"] == "$datasource"
    ids = [one["id"] for one in made["panels"]]
    assert len(set(ids)) == len(ids)
    have = {one["name"] for one in made["templating"]["list"]}
    assert "datasource" in have
    for panel in board.panels:
        for query in panel.queries:
            left = filled_in(query.expr, "1m")
            assert "$" not in left, query.expr
            used = {
                name for name in ("worker", "tenant", "feed", "type") if f"${name}" in query.expr
            }
            assert used <= have


def test_a_table_is_one_table_without_what_nobody_reads() -> None:
    panels = [one for board in BOARDS for one in board.panels if one.kind == "table"]
    made = {
        one["title"]: one
        for board in BOARDS
        for one in json.loads((FOLDER / f"{board.name}.json").read_text())["panels"]
        if one["type"] == "table"
    }
    assert made.keys() == {one.title for one in panels}
    for panel in panels:
        *merges, organize = made[panel.title]["transformations"]
        several = len(panel.queries) > 1
        assert [one["id"] for one in merges] == ["merge"] * several, panel.title
        hidden = organize["options"]["excludeByName"].keys()
        assert {"Time", "__name__"} <= hidden
        assert ("Value" in hidden) == panel.labels_only
        if several:
            columns = [f"Value #{one['refId']}" for one in made[panel.title]["targets"]]
            assert [*organize["options"]["renameByName"]] == columns


@pytest.mark.parametrize("expression", [one[2] for one in expressions()] + RULES)
def test_a_query_names_metrics_and_labels_that_exist(expression: str) -> None:
    for name, labels in series(expression):
        if name.startswith("process_"):
            continue
        assert name in sample_names(), name
        assert labels <= own_labels(name) | PROMETHEUS_OWN, name


@pytest.mark.parametrize("expression", [one[2] for one in expressions()] + RULES)
def test_a_query_groups_by_labels_that_its_metric_has(expression: str) -> None:
    for name, labels in grouping(expression):
        assert labels <= own_labels(name) | PROMETHEUS_OWN, name


def test_a_document_names_metrics_that_exist() -> None:
    own = {"flashfeed_session_tokens"}  # a tenant's key reads it
    known = {*documented(), *sample_names(), *own, "flashfeed_gpu_", "flashfeed_probe"}
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
    others = [*ROOT.glob("compose/**/*.y*ml"), *ROOT.glob("compose/*.json")]
    words = {
        (path.name, word)
        for path in [*pages, *others]
        for word in re.findall(r"(?<![\w./-])flashfeed_[a-z_]+(?![\w/.(])", path.read_text())
    }
    of_letters = {f"flashfeed_{name}" for name in (*ALWAYS, *SOMETIMES)}
    unknown = {(page, word) for page, word in words if word not in known | of_letters}
    assert unknown == set()
    assert len({word for _, word in words}) > len(documented()) / 2


def test_a_query_of_the_process_names_what_the_worker_exports() -> None:
    exported = {one.name for family in Metrics().collect() for one in family.samples}
    named = {
        name for one in [*(one[2] for one in expressions()), *RULES] for name, _ in series(one)
    }
    of_process = {name for name in named if name.startswith("process_")}
    assert of_process and of_process <= exported


def test_recorded_names_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for _, _, expression in expressions():
        for word in expression.replace("(", " ").replace(")", " ").split():
            if word.startswith("flashfeed:"):
                assert word in recorded


def test_every_metric_is_on_a_dashboard_or_in_an_alert() -> None:
    used = {name for one in [*(one[2] for one in expressions()), *RULES] for name, _ in series(one)}
    for name, row in documented().items():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        assert any(name + one in used for one in suffixes.get(row.kind, [""])), name


def test_prometheus_reads_every_query(tmp_path: Path) -> None:
    """As recording rules, which promtool parses."""
    asked = [
        {"record": f"query_{number}", "expr": filled_in(expression, "1m")}
        for number, (_, _, expression) in enumerate(expressions())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": asked}]}))
    checked = promtool("check", "rules", str(file))
    assert checked.returncode == 0, checked.stderr
    assert f"{len(asked)} rules found" in checked.stdout


def test_a_picture_of_a_table_has_a_line_for_each_set_of_labels() -> None:
    panel = Panel("t", "d", "short", (Query("m", "Money"), Query("s", "Time", "s")), kind="table")
    labels = {"__name__": "m", "job": "flashfeed", "query": "trend"}
    found = [
        [{"metric": labels, "value": [0, "2"]}],
        [{"metric": labels, "value": [0, "3"]}, {"metric": {"query": "x"}, "value": [0, "1"]}],
    ]
    rows = [row.split() for row in table_rows(panel, found)]
    assert rows == [["Money", "Time"], ["2", "3", "s", "query=trend"], ["-", "1", "s", "query=x"]]
    info = panel._replace(queries=(Query("m"),), labels_only=True)
    assert table_rows(info, found[:1]) == ["query=trend"]
