"""What a worker exports, held against a workload whose numbers are known.

pytest tests/cli/test_metrics.py --write-metrics    writes docs/METRICS.md again
"""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from flashfeed.cli.demo import write_config
from flashfeed.cli.demo_feed import SourceRecord, create_source_topics, source_records
from flashfeed.cli.embedded_broker import die_with_parent, embedded_broker, free_port
from flashfeed.cli.worker_process import wait_until_ready, worker_process

from boards import ALERTS, expressions, filled_in, rules
from metrics_page import PAGE, PROBE, documented, page
from prometheus_tools import folder, prometheus, promtool

pytestmark = [pytest.mark.broker, pytest.mark.model]

EACH = 4
SYMBOLS = 4
SESSIONS = SYMBOLS + 1
QUESTIONS = 3
BAD = 3
APPLIED = SESSIONS * EACH + 1
"""The correction is applied too."""
HOUR_PRICE, MILLION_PRICE = 3.6, 1000.0
ENGINE = f"""sessions_max = 16
seats_max = 4
snapshots = "@home@/kv"
sessions_per_context = 1

[prices]
currency = "EUR"
device_hour = {HOUR_PRICE}
million_tokens = {MILLION_PRICE}
"""
FAULTS = {
    "flashfeed_births",
    "flashfeed_bridge_slow_clients_dropped",
    "flashfeed_corrected_answers",
    "flashfeed_idle_sessions",
    "flashfeed_paused_partitions",
    "flashfeed_publish_failures",
    "flashfeed_schema_requests",
    "flashfeed_session_failures",
    "flashfeed_silent_partitions",
    "flashfeed_sparkplug_sequence_gaps",
    "flashfeed_still_partitions",
    "flashfeed_subscribers_dropped",
    "flashfeed_window_halvings",
}
"""What a workload without faults, registries and Sparkplug leaves at 0; each has tests of its
own. Corrected answers depend on what the model says."""
NOTHING_LEFT = {"flashfeed_consumer_lag_records", "flashfeed_consumer_lag_seconds"}
IDLE = {"flashfeed_engine_jobs"}


class Scraped:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {
            family.name: family for family in text_string_to_metric_families(text)
        }

    def sum(self, sample: str, **labels: str) -> float:
        """The sum over the series of that name that have these labels."""
        return sum(
            one.value
            for family in self.families.values()
            for one in family.samples
            if one.name == sample and labels.items() <= one.labels.items()
        )


class Ran(NamedTuple):
    """A scrape while a stream and a WebSocket are open, and one when all was over; and the
    Prometheus that saw it all, "" where there is none."""

    busy: Scraped
    after: Scraped
    prometheus: str


PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{alerts}]
scrape_configs:
  - job_name: flashfeed
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
  - job_name: flashfeed-probe
    static_configs: [{{targets: ["127.0.0.1:{probe}"]}}]
"""


@contextmanager
def watching(home: Path, port: int, probe: int) -> Iterator[str]:
    """A Prometheus with our rules; "" where this machine has none."""
    if folder() is None:
        yield ""
        return
    with prometheus(home, PROMETHEUS.format(alerts=ALERTS, port=port, probe=probe)) as url:
        yield url


@contextmanager
def probing(config: Path, port: int) -> Iterator[None]:
    """`flashfeed probe` again and again."""
    command = [sys.executable, "-m", "flashfeed.cli.main", "probe", "-c", str(config)]
    command += ["--every", "1", "--port", str(port)]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing else ties it to us)
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def asked(url: str, expression: str) -> list[dict[str, Any]]:
    """What a Prometheus says to an expression now."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=30).json()
    assert answer["status"] == "success", (expression, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def values(url: str, expression: str) -> list[float]:
    """What an expression gives now; a quantile without observations, NaN, is no data."""
    found = [float(one["value"][1]) for one in asked(url, expression)]
    return [one for one in found if not math.isnan(one)]


def scraped(url: str) -> Scraped:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        return Scraped(answer.read().decode())


def until(url: str, done: Any) -> Scraped:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = scraped(url)
        if done(found):
            return found
        time.sleep(0.2)
    raise AssertionError(f"not reached:\n{found.text}")


def candle(record: SourceRecord, **changes: Any) -> SourceRecord:
    value = orjson.dumps(orjson.loads(record.value) | changes)
    return record._replace(value=value)


def workload() -> list[SourceRecord]:
    """`EACH` records a session; then of the first one an equal repeat, a correction, and one
    that is not closed; then what nobody can read."""
    records = list(source_records(EACH))
    last = [one for one in records if one.topic == records[0].topic][-1]
    # The same candle in another fetched batch: of one batch only the last would count.
    more = [last, candle(last, close=orjson.loads(last.value)["close"] * 1.001)]
    unclosed = candle(last, closed=False)
    bad = [last._replace(value=value) for value in (b"{not json", b"[1, 2]", b'{"closed":true}')]
    return [*records, *more, unclosed, *bad]


async def send(brokers: str, records: list[SourceRecord]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=brokers) as producer:
        for one in records:
            await producer.send_and_wait(one.topic, one.value, key=one.key)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("metrics")
    with embedded_broker() as brokers:
        asyncio.run(create_source_topics(brokers))
        config, port = write_config(home, brokers)
        text = config.read_text().replace(
            "context_tokens = 2048\n", "context_tokens = 1024\n" + ENGINE
        )
        config.write_text(text.replace("@home@", str(home)))
        url, log, probe = f"http://127.0.0.1:{port}", home / "worker.log", free_port()
        with (
            watching(home, port, probe) as watcher,
            worker_process(config, log) as process,
        ):
            wait_until_ready(port, process, log)
            records = workload()
            # In two parts, so that Prometheus sees the series grow.
            asyncio.run(send(brokers, records[:SESSIONS]))
            until(url, lambda one: one.sum("flashfeed_applied_records_total") == SESSIONS)
            time.sleep(2)
            asyncio.run(send(brokers, records[SESSIONS:]))
            until(url, _all_applied)
            seen = Ran(busy(url), until(url, _nothing_left), watcher)
            with probing(config, probe):
                yield seen


def _all_applied(found: Scraped) -> bool:
    applied = found.sum("flashfeed_applied_records_total", result="applied")
    repeated = found.sum("flashfeed_applied_records_total", result="duplicate")
    letters = found.sum("flashfeed_dead_letters_total")
    return (applied, repeated, letters) == (APPLIED, 1, BAD)


def _nothing_left(found: Scraped) -> bool:
    return (
        found.sum("flashfeed_consumer_lag_records") == 0
        and found.sum("flashfeed_engine_jobs") == 0
        and found.sum("flashfeed_bridge_streams") == 0
    )


def busy(url: str) -> Scraped:
    """Ask the bridge for one of each kind, and scrape while two streams are open."""
    session = f"{url}/v1/sessions/cgm-01"
    choose = {"prompt": "Up or down?", "fast_answer": ["up", "down"], "gap_threshold": 0}
    with httpx.Client(timeout=60) as http:
        told = {"prompt": "Say what you see.", "max_tokens": 8, "ignore_eos": True}
        assert http.post(f"{session}/generate", json=told).status_code == 200
        # All in turn, and more than have seats: some come back.
        for one in http.get(f"{url}/v1/sessions").json()["sessions"]:
            place = f"{url}/v1/sessions/{one['session_id']}"
            assert http.post(f"{place}/generate", json=choose).json()["speculative"]
        assert http.get(f"{url}/v1/sessions/nobody").status_code == 404
        assert http.get(f"{url}/nowhere").status_code == 404
        with (
            connect(f"{session.replace('http', 'ws')}/ws"),
            http.stream("GET", f"{session}/events") as stream,
        ):
            lines = stream.iter_lines()  # held, or the stream ends with it
            assert next(lines)
            return scraped(url)


def test_records_are_counted_by_what_became_of_them(ran: Ran) -> None:
    after, candles = ran.after, SYMBOLS * EACH + 2
    for feed, result, count in (
        ("candles", "read", candles + 1 + BAD),
        ("candles", "mapped", candles),
        ("candles", "skipped", 1),
        ("candles", "dead_letter", BAD),
        ("sensors", "read", EACH),
        ("sensors", "mapped", EACH),
    ):
        found = after.sum("flashfeed_records_total", feed=feed, result=result)
        assert found == count, (feed, result)
    assert after.sum("flashfeed_batch_records_sum") == candles + 1 + BAD + EACH
    assert after.sum("flashfeed_dead_letters_total") == BAD


def test_what_sessions_applied_has_its_feed_and_type(ran: Ran) -> None:
    for feed, kind, result, count in (
        ("candles", "ohlcv", "applied", SYMBOLS * EACH + 1),
        ("candles", "ohlcv", "duplicate", 1),
        ("candles", "ohlcv", "correction", 1),
        ("sensors", "iot", "applied", EACH),
    ):
        labels = {"feed": feed, "type": kind, "result": result}
        assert ran.after.sum("flashfeed_applied_records_total", **labels) == count, labels


def test_every_update_answers_every_question(ran: Ran) -> None:
    after = ran.after
    updates = after.sum("flashfeed_updates_total")
    assert SESSIONS <= updates <= APPLIED
    assert after.sum("flashfeed_answers_total") == QUESTIONS * updates
    assert after.sum("flashfeed_answer_confidence_count") == QUESTIONS * updates
    assert after.sum("flashfeed_update_seconds_count") == updates
    one_of = {"bullish", "bearish", "high", "low", "normal", "rising", "falling", ""}
    values = {one.labels["value"] for one in after.families["flashfeed_answers"].samples}
    assert values <= one_of
    assert "" in values
    assert after.sum("flashfeed_answers_total", query="last", value="") == updates


def test_every_applied_record_has_its_latency(ran: Ran) -> None:
    for name in ("flashfeed_update_latency_seconds", "flashfeed_receipt_latency_seconds"):
        count = ran.after.sum(f"{name}_count")
        assert count >= SESSIONS, name
        assert ran.after.sum(f"{name}_bucket", le="+Inf") == count
        assert 0 < ran.after.sum(f"{name}_sum") < 120 * count
    assert ran.after.sum("flashfeed_update_latency_seconds_count") == APPLIED


def test_costs_are_what_the_engine_decoded(ran: Ran) -> None:
    after = ran.after

    def cost(**labels: str) -> float:
        return after.sum("flashfeed_cost_tokens_total", **labels)

    def engine(kind: str) -> float:
        return after.sum("flashfeed_engine_tokens_total", kind=kind)

    named = ("trend", "volume", "range", "direction", "last")
    assert all(cost(query=one) > 0 for one in named)
    assert cost(query="(data)") == engine("ingest") > 0
    assert sum(cost(query=one) for one in (*named, "(asked)")) == engine("flash")
    assert cost(query="(generate)") == engine("generate") > 0
    assert cost(query="(background)") == engine("background") > 0
    seconds = after.sum("flashfeed_cost_device_seconds_total")
    assert seconds == pytest.approx(after.sum("flashfeed_engine_decode_seconds_total"))
    money = seconds / 3600 * HOUR_PRICE + cost() / 1e6 * MILLION_PRICE
    assert after.sum("flashfeed_cost_money_total", currency="EUR") == pytest.approx(money)


def test_the_engines_state_is_seen(ran: Ran) -> None:
    after = ran.after
    assert after.sum("flashfeed_engine_sessions") == SESSIONS
    assert after.sum("flashfeed_engine_sessions", state="evicted") >= 1
    assert after.sum("flashfeed_engine_evictions_total") >= 1
    assert after.sum("flashfeed_engine_restores_total") >= 1
    assert after.sum("flashfeed_engine_snapshots_total", result="saved") >= 1
    assert 0 < after.sum("flashfeed_engine_seats") <= after.sum("flashfeed_engine_seats_limit") == 4
    assert 0 < after.sum("flashfeed_engine_kv_cells_used") <= after.sum("flashfeed_engine_kv_cells")
    passes = after.sum("flashfeed_engine_step_seconds_count")
    decoded = after.sum("flashfeed_engine_decode_seconds_total")
    assert passes > 0
    assert after.sum("flashfeed_engine_step_seconds_sum") == pytest.approx(decoded)
    for kind in ("flash", "generate"):
        assert after.sum("flashfeed_engine_wait_seconds_count", kind=kind) > 0


def test_a_generation_is_timed_token_by_token(ran: Ran) -> None:
    assert ran.after.sum("flashfeed_generated_tokens_total") == 8
    assert ran.after.sum("flashfeed_generations_total") == 1
    assert ran.after.sum("flashfeed_first_token_seconds_count") == 1
    assert 1 <= ran.after.sum("flashfeed_next_token_seconds_count") <= 7


def test_requests_are_counted_by_route_and_code(ran: Ran) -> None:
    def requests(**labels: str) -> float:
        return ran.after.sum("flashfeed_bridge_requests_total", **labels)

    assert requests(route="/v1/sessions/{session_id}/generate", code="200") == 1 + SESSIONS
    assert requests(route="/v1/sessions/{session_id}", code="404") == 1
    assert requests(route="none", code="404") == 1
    assert requests(method="WEBSOCKET", code="101") == 1
    assert requests(route="/v1/sessions/{session_id}/events", code="200") == 1
    assert requests(route="/metrics", code="200") >= 2
    assert "nobody" not in ran.after.text
    assert ran.busy.sum("flashfeed_bridge_streams", kind="sse") == 1
    assert ran.busy.sum("flashfeed_bridge_streams", kind="websocket") == 1


def test_partitions_are_seen(ran: Ran) -> None:
    assert ran.after.sum("flashfeed_partitions", state="live") == 4
    assert ran.after.sum("flashfeed_takeover_seconds_count") == 4
    assert ran.after.sum("flashfeed_rebalances_total") >= 1
    newest = ran.after.families["flashfeed_partition_last_record_timestamp_seconds"].samples
    topics = {one.labels["topic"] for one in newest}
    assert {"telegraf", "flashfeed.records"} <= topics
    assert all(time.time() - 300 < one.value <= time.time() + 1 for one in newest)


def test_nothing_that_should_move_stays_at_0(ran: Ran) -> None:
    still = {
        name
        for name, family in ran.after.families.items()
        if not any(one.value for one in family.samples)
    }
    assert still <= FAULTS | NOTHING_LEFT | IDLE | {"flashfeed_bridge_streams"}


def test_no_session_is_a_label(ran: Ran) -> None:
    assert "cgm-01" not in ran.after.text
    assert "AAPL" not in ran.after.text.replace("candles-NASDAQ-AAPL-USD", "")


def test_promtool_finds_nothing_to_say(ran: Ran) -> None:
    checked = promtool("check", "metrics", given=ran.after.text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_every_panel_has_data_of_the_run(ran: Ran) -> None:
    if not ran.prometheus:
        pytest.skip("needs prometheus: apt-get install prometheus")
    deadline = time.monotonic() + 90
    while not asked(ran.prometheus, "flashfeed_probe_seconds_count > 0"):
        assert time.monotonic() < deadline, "the probe was not answered"
        time.sleep(0.5)
    time.sleep(2)  # two scrapes, for the rates of the probe's
    nothing = {
        (board, panel)
        for board, panel, expression in expressions()
        if not values(ran.prometheus, filled_in(expression, "5m"))
    }
    assert nothing <= {("engine", "GPU")}
    groups = httpx.get(f"{ran.prometheus}/api/v1/rules", timeout=30).json()["data"]["groups"]
    states = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert len(states) == len(rules())
    assert set(states.values()) == {"ok"}


def test_prometheus_has_the_counters_that_the_worker_has(ran: Ran) -> None:
    if not ran.prometheus:
        pytest.skip("needs prometheus: apt-get install prometheus")
    for name in ("flashfeed_records_total", "flashfeed_dead_letters_total"):
        [found] = asked(ran.prometheus, f"sum({name})")
        assert float(found["value"][1]) == ran.after.sum(name)


def test_the_page_names_what_is_exported(ran: Ran, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-metrics"):
        PAGE.write_text(page(ran.after.families.values()))
    exported = {name for name in ran.after.families if name.startswith("flashfeed_")}
    others = {name for name in documented() if name.startswith(("flashfeed_gpu_", PROBE))}
    assert exported - others == documented().keys() - others
    for name in exported:
        [labels] = {
            tuple(sorted(one.labels.keys() - {"le"})) for one in ran.after.families[name].samples
        } or {None}
        assert labels is None or labels == tuple(sorted(documented()[name].labels)), name
