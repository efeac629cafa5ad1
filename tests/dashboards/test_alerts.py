"""Each alert is forced by Prometheus' own rule tests: quiet before its cause, pending, firing,
and resolved when the cause ends."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from boards import ALERTS, RUNBOOK, rules
from prometheus_tools import promtool

W = 'instance="w:1",job="flashfeed"'
LATENCY = "flashfeed_update_latency_seconds"
SCOPE = 'tenant="",feed="f",type="ohlcv"'


class Case(NamedTuple):
    """An alert's cause as series of one value a minute. At `quiet`, `firing` and `resolved`
    minutes it is what it says; at `pending` it waits (None: it does not)."""

    series: dict[str, str]
    labels: dict[str, str]
    quiet: int
    pending: int | None
    firing: int
    resolved: int


def late(minutes: str, per_minute: int) -> dict[str, str]:
    """60 records a minute, of which `per_minute` are in time between the healthy stretches."""
    before, during, after = minutes.split()
    good, whole = f"0+60x{before} ", 60 * (int(before) + 1)
    bad = f"{whole}+{per_minute}x{during} " if per_minute else f"{whole}x{during} "
    then = 60 * int(before) + (60 + per_minute * int(during) if per_minute else 60)
    rest = f"{then + 60}+60x{after}"
    total = int(before) + int(during) + int(after) + 3
    return {
        f'{LATENCY}_bucket{{{W},{SCOPE},le="5.0"}}': good + bad + rest,
        f"{LATENCY}_count{{{W},{SCOPE}}}": f"0+60x{total}",
        # A feed that is busier by far, and well, hides nothing.
        f'{LATENCY}_bucket{{{W},tenant="",feed="busy",type="ohlcv",le="5.0"}}': f"0+6000x{total}",
        f'{LATENCY}_count{{{W},tenant="",feed="busy",type="ohlcv"}}': f"0+6000x{total}",
    }


def gauge(name: str, before: float, during: float, labels: str = W) -> dict[str, str]:
    """10 minutes as it should be, 40 as it should not, then again as it should."""
    return {f"{name}{{{labels}}}": f"{before}x9 {during}x39 {before}x60"}


WORKER = {"instance": "w:1"}
DECODED = f'flashfeed_engine_decode_seconds_total{{{W},kind="flash"}}'
RESTORES = f'flashfeed_engine_restores_total{{{W},source="decode"}}'
SNAPSHOTS = f'flashfeed_engine_restores_total{{{W},source="snapshot"}}'
CHATS = f"flashfeed_generations_total{{{W}}}"
UPDATES = f'flashfeed_updates_total{{{W},tenant="",feed="f",type="ohlcv"}}'
PROBE = 'instance="p:1",job="flashfeed-probe"'
PROBE_LABELS = {"instance": "p:1", "job": "flashfeed-probe"}
PLACE = f'{W},topic="ticks",partition="3"'
CASES = {
    "FlashfeedFreshnessBurnFast": Case(late("60 70 120", 0), {"feed": "f"}, 59, None, 125, 150),
    "FlashfeedFreshnessBurnSlow": Case(late("60 300 400", 0), {"feed": "f"}, 59, None, 350, 700),
    "FlashfeedLagOld": Case(
        gauge("flashfeed_consumer_lag_seconds", 0, 300, PLACE),
        {"topic": "ticks", "partition": "3"}, 9, 11, 14, 50,
    ),
    "FlashfeedDeadLetters": Case(
        {
            # A message a second with a hundred records: two bad ones a second are 2%.
            f'flashfeed_records_total{{{W},feed="f",result="read"}}': "0+60x120",
            f'flashfeed_records_total{{{W},feed="f",result="mapped"}}': "0+6000x120",
            f'flashfeed_records_total{{{W},feed="f",result="dead_letter"}}':
                "0x10 120+120x38 4800x70",
            # Six bad records of six thousand are not worth a ticket.
            f'flashfeed_records_total{{{W},feed="many",result="read"}}': "0+60x120",
            f'flashfeed_records_total{{{W},feed="many",result="mapped"}}': "0+6000x120",
            f'flashfeed_records_total{{{W},feed="many",result="dead_letter"}}': "0+6x120",
        },
        {"feed": "f"}, 9, 13, 20, 60,
    ),
    "FlashfeedPartitionSilent": Case(
        {
            f"flashfeed_partition_last_record_timestamp_seconds{{{PLACE}}}":
                "0+60x9 600x49 3600+60x60",
        },
        {"topic": "ticks", "partition": "3"}, 9, 42, 47, 61,
    ),
    "FlashfeedPartitionPaused": Case(
        gauge("flashfeed_paused_partitions", 0, 1), WORKER, 9, 12, 22, 50
    ),
    "FlashfeedPartitionStuck": Case(
        gauge("flashfeed_still_partitions", 0, 1, f'{W},why="silent"'), WORKER, 9, 12, 17, 50
    ),
    "FlashfeedPublishFailures": Case(
        {f'flashfeed_publish_failures_total{{{W},reason="refused"}}': "0x9 3x100"},
        {**WORKER, "reason": "refused"}, 9, None, 11, 25,
    ),
    "FlashfeedEngineStalled": Case(
        {
            f'flashfeed_engine_jobs{{{W},kind="flash"}}': "2x100",
            DECODED: "0+30x9 270x39 300+30x60",
        },
        WORKER, 9, 13, 17, 52,
    ),
    "FlashfeedRestoreStorm": Case(
        {UPDATES: "0+60x120", CHATS: "0x120", RESTORES: "0x9 60+60x39 2400x60"},
        WORKER, 9, 15, 25, 58,
    ),
    "FlashfeedKvPressure": Case(
        {
            **gauge("flashfeed_engine_seats", 2, 8),
            f"flashfeed_engine_seats_limit{{{W}}}": "8x120",
            f"flashfeed_engine_kv_bytes{{{W}}}": "1x120",
            f"flashfeed_engine_kv_bytes_limit{{{W}}}": "100x120",
            f"flashfeed_engine_evictions_total{{{W}}}": "0+1x120",
        },
        WORKER, 9, 12, 22, 50,
    ),
    "FlashfeedSessionsFailed": Case(
        {f'flashfeed_session_failures_total{{{W},reason="context_full"}}': "0x9 1x100"},
        {**WORKER, "reason": "context_full"}, 9, None, 11, 30,
    ),
    "FlashfeedWorkerDown": Case(
        gauge("up", 1, 0), {**WORKER, "job": "flashfeed"}, 9, 10, 12, 50
    ),
    # A target that discovery no longer finds: its series end.
    "FlashfeedNoWorker": Case({f"up{{{W}}}": "1x9 stale _x39 1x60"}, {}, 9, 10, 12, 51),
    "FlashfeedWorkerGone": Case(
        {f"up{{{W}}}": "1x120", 'up{instance="w:2",job="flashfeed"}': "1x9 stale _x39 1x60"},
        {}, 9, 11, 14, 51,
    ),
    "FlashfeedWorkerRestarts": Case(
        {f"process_start_time_seconds{{{W}}}": "100x9 700 760x2 940x60"},
        {**WORKER, "job": "flashfeed"}, 11, None, 14, 30,
    ),
    "FlashfeedPartitionNotServed": Case(
        gauge("flashfeed_partitions", 0, 1, f'{W},state="recovering"'), WORKER, 9, 12, 17, 50
    ),
    "FlashfeedProbeFailing": Case(
        gauge("flashfeed_probe_success", 1, 0, 'partition="0",job="flashfeed-probe"'),
        {"partition": "0"}, 9, 11, 13, 50,
    ),
    "FlashfeedProbeSilent": Case(gauge("up", 1, 0, PROBE), PROBE_LABELS, 9, 12, 17, 50),
}  # fmt: skip
OTHER_CAUSES = [
    # It hangs and is scraped: what it said last stands.
    ("FlashfeedProbeFailing", Case(
        {
            'flashfeed_probe_success{partition="0",job="flashfeed-probe"}': "1x120",
            'flashfeed_probe_last_success_timestamp_seconds{partition="0",job="flashfeed-probe"}':
                "0+60x9 540x40 3000+60x60",
        },
        {"partition": "0"}, 14, 15, 18, 51,
    )),
    # Chats alone, over a worker that never had an update.
    ("FlashfeedRestoreStorm", Case(
        {CHATS: "0+60x120", RESTORES: "0x9 60+60x39 2400x60"}, WORKER, 9, 15, 25, 58
    )),
    ("FlashfeedProbeSilent", Case(
        {f"up{{{PROBE}}}": "1x9 stale _x39 1x60"}, {"job": "flashfeed-probe"}, 9, 12, 17, 51
    )),
]  # fmt: skip
"""What an alert says beside its case."""
HARMLESS = [
    ("FlashfeedRestoreStorm", {UPDATES: "0+60x60", CHATS: "0x60", SNAPSHOTS: "0+60x60"}),
    ("FlashfeedRestoreStorm", {UPDATES: "0x60", CHATS: "0+60x60", RESTORES: "0+20x60"}),
    ("FlashfeedRestoreStorm", {UPDATES: "0x60", CHATS: "0x60", RESTORES: "0+1x60"}),
]
"""Series of an hour that an alert has nothing to say about."""
ALERTING = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def test_every_alert_has_a_case_and_an_entry_in_the_runbook() -> None:
    assert CASES.keys() == ALERTING.keys()
    headings = set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.M))
    assert headings == ALERTING.keys()
    for name, rule in ALERTING.items():
        assert rule["annotations"]["runbook_url"] == f"docs/RUNBOOK.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_promtool_reads_the_rules() -> None:
    checked = promtool("check", "rules", str(ALERTS))
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_readme_s_command_makes_links_of_the_runbook_s_paths(tmp_path: Path) -> None:
    [command] = re.findall(r"```sh\n(sed .*?)```", (ALERTS.parent / "README.md").read_text(), re.S)
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards" / "alerts.yml").write_text(ALERTS.read_text())
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
    written = tmp_path / "alerts-linked.yml"
    links = re.findall(r"runbook_url: (.*)", written.read_text())
    paths = [rule["annotations"]["runbook_url"] for rule in ALERTING.values()]
    assert links == [f"https://wiki.example.com/{path}" for path in paths]
    assert promtool("check", "rules", str(written)).returncode == 0


def annotations(name: str, labels: dict[str, str]) -> dict[str, str]:
    """An alert's annotations as Prometheus fills them in."""
    return {
        key: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
        for key, text in ALERTING[name]["annotations"].items()
    }


def rule_test(name: str, case: Case) -> dict[str, Any]:
    """promtool's test of one alert."""
    severity = ALERTING[name]["labels"]["severity"]
    fires = [
        {
            "exp_labels": {**case.labels, "severity": severity},
            "exp_annotations": annotations(name, case.labels),
        }
    ]
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{case.quiet}m", "alertname": name, "exp_alerts": []},
            {"eval_time": f"{case.firing}m", "alertname": name, "exp_alerts": fires},
            {"eval_time": f"{case.resolved}m", "alertname": name, "exp_alerts": []},
        ],
    }
    if case.pending is not None:
        state = f'ALERTS{{alertname="{name}",alertstate="pending"}}'
        test["promql_expr_test"] = [
            {
                "expr": f"count({state})",
                "eval_time": f"{case.pending}m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ]
    return test


@pytest.mark.parametrize(("name", "case"), [*CASES.items(), *OTHER_CAUSES])
def test_an_alert_fires_for_its_cause_and_ends_with_it(
    name: str, case: Case, tmp_path: Path
) -> None:
    file = tmp_path / "test.yml"
    tests = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [rule_test(name, case)],
    }
    file.write_text(yaml.safe_dump(tests))
    ran = promtool("test", "rules", str(file))
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(("name", "series"), HARMLESS)
def test_an_alert_keeps_quiet_where_nothing_is_wrong(
    name: str, series: dict[str, str], tmp_path: Path
) -> None:
    minutes = range(0, 60, 5)
    test = {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []} for minute in minutes
        ],
    }
    file = tmp_path / "test.yml"
    tests = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]}
    file.write_text(yaml.safe_dump(tests))
    ran = promtool("test", "rules", str(file))
    assert ran.returncode == 0, ran.stdout + ran.stderr
