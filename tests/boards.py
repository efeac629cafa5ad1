"""The dashboards, for the tests: the folder is no part of the installed package."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # last: the rooms' names (codecs!) are others' there

from dashboards import BOARDS  # noqa: E402
from dashboards.build import FOLDER, rule_text, text_of  # noqa: E402
from dashboards.panel import Panel, Query, filled_in  # noqa: E402
from dashboards.pictures import table_rows  # noqa: E402

ALERTS = ROOT / "dashboards" / "alerts.yml"
RUNBOOK = ROOT / "docs" / "RUNBOOK.md"

__all__ = [
    "ALERTS",
    "BOARDS",
    "FOLDER",
    "ROOT",
    "RUNBOOK",
    "Panel",
    "Query",
    "expressions",
    "filled_in",
    "grouping",
    "measured",
    "rule_text",
    "rules",
    "series",
    "table_rows",
    "text_of",
]


def series(expression: str) -> list[tuple[str, set[str]]]:
    """The series that an expression selects, and the labels that it selects them by."""
    found = []
    for name, selector in re.findall(r"\b((?:flashfeed|process)_\w+)(\{[^}]*\})?", expression):
        labels = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', selector))
        found.append((name, labels))
    return found


def grouping(expression: str) -> list[tuple[str, set[str]]]:
    """The series that are aggregated `by` labels, and these."""
    found = re.findall(r"\bby \(([\w, ]+)\)\s*\((?:\w*\()*(flashfeed_\w+)", expression)
    return [(name, set(re.findall(r"\w+", labels))) for labels, name in found]


def expressions() -> list[tuple[str, str, str]]:
    """Every panel's queries: dashboard, panel, and the expression."""
    return [
        (board.name, panel.title, query.expr)
        for board in BOARDS
        for panel in board.panels
        for query in panel.queries
    ]


def measured(expression: str) -> str:
    """What an alert compares, whatever comes of it: each comparison gives 0 or 1 and drops
    nothing. Not those in brackets of their own (`> 0)`, `== 1)`), which choose what there is to
    compare. What is alerted on where it is absent has to be there."""
    expression = expression.replace("absent(", "(")
    return re.sub(r"(>|<|==)\s(?!0\)|1\))", r"\1 bool ", expression)


def rules() -> list[dict[str, Any]]:
    """The rules of alerts.yml."""
    import yaml

    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
