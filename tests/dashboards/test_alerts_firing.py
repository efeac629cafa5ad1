"""Each alert, forced for real: a real worker goes wrong on Apache Kafka, a real Prometheus with
our rules sees it pend and fire, a real Alertmanager tells its receivers, and tells them again
when the cause has ended.

The rules are those of dashboards/alerts.yml with windows and waits 30 times shorter; nothing
else of them differs. Where the alert is about seconds of age (LagOld, PartitionSilent,
freshness) the records are an hour old instead: Kafka's timestamp is the producer's to give.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
import yaml

from alert_causes import Causes
from apache_kafka import available, kafka_node
from boards import ALERTS, ROOT, rules
from pager import DURATION, AlertStates, Pager, Told, seconds, shortened
from prometheus_tools import alertmanager, asked, folder, prometheus

pytestmark = [
    pytest.mark.alone,
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
    pytest.mark.skipif(folder() is None, reason="needs prometheus: apt-get install prometheus"),
]
SHORTER = 30
ALERTING = {rule["alert"]: rule for rule in rules() if "alert" in rule}
ROUTES = yaml.safe_load((ROOT / "compose" / "alertmanager.yml").read_text())
PROMETHEUS = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
alerting:
  alertmanagers:
    - static_configs: [{{targets: ["{manager}"]}}]
scrape_configs:
  - job_name: flashfeed
    static_configs: [{{targets: ["{feeds}", "{lone}"]}}]
  - job_name: flashfeed-probe
    static_configs: [{{targets: ["{probe}"]}}]
"""


class Ran(NamedTuple):
    """What Prometheus showed of each alert, what the receivers were told, and what they had
    been told before anything went wrong."""

    states: dict[str, list[str]]
    pager: Pager
    before: list[Told]


def quiet(url: str) -> None:
    """All that there is was scraped, and for longer than most alerts wait."""
    deadline = time.monotonic() + 60
    while not asked(url, "count(up == 1) == 3"):
        assert time.monotonic() < deadline, asked(url, "up")
        time.sleep(0.2)
    time.sleep(5)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("alerts")
    short = home / "alerts.yml"
    short.write_text(shortened(ALERTS.read_text(), SHORTER))
    pager = Pager()

    def ever() -> set[str]:
        return {one.name for one in pager.told}

    with kafka_node(home) as node:
        causes = Causes(home, node, pager.open, ever)
        config = yaml.safe_dump(pager.config(ROUTES))
        try:
            asyncio.run(causes.start())
            with alertmanager(home, config) as manager:
                places = {
                    "manager": manager,
                    "feeds": causes.feeds.url,
                    "lone": causes.lone.url,
                    "probe": f"http://127.0.0.1:{causes.probe_port}",
                }
                where = {name: url.removeprefix("http://") for name, url in places.items()}
                text = PROMETHEUS.format(rules=short, **where)
                with prometheus(home, text, "--rules.alert.resend-delay=1s") as url:

                    def look() -> list[dict[str, object]]:
                        answer = httpx.get(f"{url}/api/v1/alerts", timeout=10).json()
                        return answer["data"]["alerts"]

                    states = AlertStates(look)
                    try:
                        quiet(url)
                        before = list(pager.told)
                        asyncio.run(causes.run())
                    finally:
                        states.stop()
                    yield Ran(states.seen, pager, before)
        finally:
            causes.stop()
            pager.stop()


def test_only_windows_and_waits_are_shorter() -> None:
    whole = ALERTS.read_text()
    short = shortened(whole, SHORTER)
    assert DURATION.sub("", short) == DURATION.sub("", whole)
    pairs = list(zip(DURATION.findall(whole), DURATION.findall(short), strict=True))
    assert len(pairs) > len(ALERTING)
    assert all(seconds(before) == SHORTER * seconds(after) for before, after in pairs)


def test_nobody_is_told_while_all_is_well(ran: Ran) -> None:
    assert ran.before == []


@pytest.mark.parametrize("name", ALERTING)
def test_an_alert_pends_fires_and_is_resolved(ran: Ran, name: str) -> None:
    rule = ALERTING[name]
    states = ran.states[name]
    # One that does not wait is never pending.
    assert states[0] == ("pending" if "for" in rule else "firing")
    assert "firing" in states
    told = ran.pager.statuses(name)
    assert told[0] == "firing"
    assert told[-1] == "resolved"
    assert name not in ran.pager.open()


@pytest.mark.parametrize("name", ALERTING)
def test_it_is_told_to_who_has_to_know(ran: Ran, name: str) -> None:
    severity = ALERTING[name]["labels"]["severity"]
    receivers = {one.receiver for one in ran.pager.told if one.name == name}
    assert receivers == {{"page": "now", "ticket": "today"}[severity]}
