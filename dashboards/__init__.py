"""Grafana dashboards of flashfeed's metrics, written in Python and committed as JSON.

panel.py     what a panel is here, and the PromQL that many share
overview.py stream.py engine.py answers.py cost.py reliability.py   a dashboard each
grafana.py   makes Grafana's JSON of them
build.py     writes json/; `make dashboards`
pictures.py  plots the panels of a real run (pictured_run.py), for README.md
alerts.yml   recording rules and alerts; tests/dashboards/ forces each (promtool)
"""

from __future__ import annotations

from . import answers, cost, engine, overview, reliability, stream

BOARDS = (
    overview.BOARD,
    stream.BOARD,
    engine.BOARD,
    answers.BOARD,
    cost.BOARD,
    reliability.BOARD,
)
