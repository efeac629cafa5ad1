"""Writes json/, which Grafana imports, and alerts.yml as the Prometheus operator takes it:
`make dashboards`."""

from __future__ import annotations

import textwrap
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from . import BOARDS
from .grafana import made
from .panel import Board

FOLDER = Path(__file__).parent / "json"
ALERTS = Path(__file__).parent / "alerts.yml"
RULE = Path(__file__).parents[1] / "compose" / "kubernetes" / "prometheusrule.yaml"
HEAD = """\
# dashboards/alerts.yml for the Prometheus operator: written by `make dashboards`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: flashfeed
spec:
"""


def text_of(board: Board) -> str:
    """A dashboard's file."""
    return JSONEncoder(sort_keys=True, indent=2).encode(made(board)) + "\n"


def rule_text(alerts: str) -> str:
    """The PrometheusRule of a rule file, word for word. Pure."""
    return HEAD + textwrap.indent(alerts, "  ")


def main() -> None:
    """Write every dashboard, and the rule."""
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(text_of(board))
    RULE.write_text(rule_text(ALERTS.read_text()))


if __name__ == "__main__":
    main()
