"""What a worker exports, held against a workload whose numbers are known (metrics_workload.py).

pytest tests/cli/test_metrics.py --write-metrics    writes docs/METRICS.md again
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from boards import expressions, filled_in, measured, rules
from metrics_page import LEARNT, PAGE, PROBE, documented, page
from metrics_workload import (
    APPLIED,
    BAD,
    EACH,
    HOUR_PRICE,
    MILLION_PRICE,
    QUESTIONS,
    SEATS,
    SESSIONS,
    SYMBOLS,
    Ran,
    ran_workload,
)
from prometheus_tools import asked, promtool

pytestmark = [pytest.mark.broker, pytest.mark.model]

CORRECTED = "flashfeed_corrected_answers"
FAULTS = {
    "flashfeed_abstained_answers",
    "flashfeed_births",
    "flashfeed_bridge_slow_clients_dropped",
    CORRECTED,
    "flashfeed_examples",
    "flashfeed_held_answers",
    "flashfeed_idle_sessions",
    "flashfeed_outcomes",
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
"""What a workload without faults, registries, Sparkplug and learning leaves at 0; each has tests
of its own. Corrected answers depend on what the model says."""
MEASURED = {
    "flashfeed_cost_device_seconds_total",
    "flashfeed_cost_money_total",
    "flashfeed_cost_tokens_total",
    "flashfeed_engine_decode_seconds_total",
    "flashfeed_engine_evictions_total",
    "flashfeed_engine_restores_total",
    "flashfeed_engine_snapshots_total",
    "flashfeed_engine_tokens_total",
}
"""What the engine measures of itself, and nobody outside knows to the last token: held against
one another, and the tokens against the events, in tests of their own."""
NEEDS_A_GPU = {("engine", "GPU")}
"""flashfeed_gpu_* are NVIDIA's driver's: nothing else makes them."""
NOTHING_LEFT = {
    "flashfeed_consumer_lag_records",
    "flashfeed_consumer_lag_seconds",
    "flashfeed_held_back_partitions",
    "flashfeed_queued_records",
}
IDLE = {"flashfeed_engine_jobs"}


def values(url: str, expression: str) -> list[float]:
    """What an expression gives now; a quantile without observations, NaN, is no data."""
    found = [float(one["value"][1]) for one in asked(url, expression)]
    return [one for one in found if not math.isnan(one)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    with ran_workload(tmp_path_factory.mktemp("metrics")) as seen:
        yield seen


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


def test_counters_are_what_lies_in_the_topics(ran: Ran) -> None:
    after, written = ran.after, ran.written
    assert after.sum("flashfeed_updates_total") == len(written.updates)
    assert len(written.answers) == QUESTIONS * len(written.updates)
    given = Counter(
        (one["type"], one["name"], label_of(one), str(one["changed"]).lower())
        for one in written.answers
    )
    exported = {
        tuple(one.labels[name] for name in ("type", "query", "value", "changed")): one.value
        for one in after.families["flashfeed_answers"].samples
        if one.value  # what a feed's sessions may say is there from the start
    }
    assert exported == given
    for name in {one["name"] for one in written.answers}:
        sure = [one["confidence"] for one in written.answers if one["name"] == name]
        assert after.sum("flashfeed_answer_confidence_count", query=name) == len(sure)
        total = after.sum("flashfeed_answer_confidence_sum", query=name)
        assert total == pytest.approx(sum(sure))
    reasons = Counter(one["flashfeed_reason"].decode() for one in written.letters)
    assert sum(reasons.values()) == BAD
    for reason, count in reasons.items():
        assert after.sum("flashfeed_dead_letters_total", reason=reason) == count
    assert after.sum("flashfeed_dead_letters_total") == BAD
    packed = sum(len(one["records"]) for one in written.packs)
    assert after.sum("flashfeed_records_total", result="mapped") == packed
    assert after.sum("flashfeed_receipt_latency_seconds_count") == len(written.packs)


def label_of(answer: dict[str, Any]) -> str:
    """An answer as a label: a free text is none."""
    return answer["value"] if answer["probabilities"] else ""


def differs(answer: dict[str, Any]) -> bool:
    """Whether the prior correction changed the choice."""
    return bool(answer["raw"]["value"] != answer["value"])


def test_every_update_is_timed(ran: Ran) -> None:
    after, updates = ran.after, len(ran.written.updates)
    assert SESSIONS <= updates <= APPLIED
    assert after.sum("flashfeed_update_seconds_count") == updates
    # Each record once, however many came together; the equal repeat has no answers.
    assert after.sum("flashfeed_update_latency_seconds_count") == APPLIED
    for name in ("flashfeed_update_latency_seconds", "flashfeed_receipt_latency_seconds"):
        count = after.sum(f"{name}_count")
        assert after.sum(f"{name}_bucket", le="+Inf") == count
        assert 0 < after.sum(f"{name}_sum") < 120 * count
    took_s = sum(one["update_ms"] for one in ran.written.updates) / 1000
    assert 0 < after.sum("flashfeed_update_seconds_sum") <= took_s


def test_candles_are_counted_as_lines(ran: Ran) -> None:
    # The correction changes a line that is there.
    assert ran.after.sum("flashfeed_candles_total", result="final") == SYMBOLS * EACH
    assert ran.after.sum("flashfeed_candles_total", result="live") == 0


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
    # What the events say of their updates.
    assert engine("ingest") == sum(one["tokens"] for one in ran.written.updates)
    decoded = sum(one["decoded_tokens"] for one in ran.written.updates)
    assert decoded == sum(cost(query=one) for one in ("(data)", *named))
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
    # Who came back had gone; and one that is empty has nothing to come back to.
    came_back = after.sum("flashfeed_engine_restores_total", source="snapshot")
    assert came_back <= after.sum("flashfeed_engine_evictions_total")
    assert 0 < after.sum("flashfeed_engine_seats") <= SEATS
    assert after.sum("flashfeed_engine_seats_limit") == SEATS
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
    assert ran.after.sum("flashfeed_next_token_seconds_count") == 7


def test_requests_are_counted_by_route_and_code(ran: Ran) -> None:
    def requests(**labels: str) -> float:
        return ran.after.sum("flashfeed_bridge_requests_total", **labels)

    assert requests(route="/v1/sessions/{session_id}/generate", code="200") == 1 + SESSIONS
    assert requests(route="/v1/sessions", method="GET", code="200") == 1
    assert requests(route="/v1/sessions/{session_id}", code="404") == 1
    assert requests(route="none", code="404") == 1
    assert requests(method="WEBSOCKET", code="101") == 1
    assert requests(route="/v1/sessions/{session_id}/events", code="200") == 1
    assert requests(route="/metrics", code="200") >= 2
    assert requests(route="/health", code="200") == 1
    assert "nobody" not in ran.after.text
    assert ran.busy.sum("flashfeed_bridge_streams", kind="sse") == 1
    assert ran.busy.sum("flashfeed_bridge_streams", kind="websocket") == 1


def test_partitions_are_seen(ran: Ran) -> None:
    assert ran.after.sum("flashfeed_partitions", state="live") == 4
    assert ran.after.sum("flashfeed_takeover_seconds_count") == 4
    assert ran.after.sum("flashfeed_rebalances_total") == 1
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
    assert still <= FAULTS | NOTHING_LEFT | IDLE | LEARNT | {"flashfeed_bridge_streams"}


def known(ran: Ran) -> dict[str, float]:
    """What every counter has to be in all, by what was sent, asked, and lies in the topics."""
    candles, written = SYMBOLS * EACH + 2, ran.written
    own = sum(
        ran.after.sum("flashfeed_bridge_requests_total", route=route)
        for route in ("/metrics", "/health")  # ours, Prometheus', and the wait for the start
    )
    return dict.fromkeys((f"{name}_total" for name in FAULTS if name != CORRECTED), 0) | {
        "flashfeed_records_total": (candles + 1 + BAD) + candles + 1 + BAD + 2 * EACH,
        "flashfeed_dead_letters_total": BAD,
        "flashfeed_applied_records_total": APPLIED + 1 + 1,
        "flashfeed_updates_total": len(written.updates),
        "flashfeed_answers_total": len(written.answers),
        f"{CORRECTED}_total": sum(bool(one["raw"]) and differs(one) for one in written.answers),
        "flashfeed_candles_total": SYMBOLS * EACH,
        "flashfeed_generations_total": 1,
        "flashfeed_generated_tokens_total": 8,
        "flashfeed_rebalances_total": 1,
        "flashfeed_bridge_requests_total": own + 1 + SESSIONS + 1 + 2 + 2,
    }


def test_each_counter_is_the_truth(ran: Ran) -> None:
    truth = known(ran)
    for name in ran.after.counters() - MEASURED:
        assert ran.after.sum(name) == truth[name], name


def test_no_session_is_a_label(ran: Ran) -> None:
    assert "cgm-01" not in ran.after.text
    assert "AAPL" not in ran.after.text.replace("candles-NASDAQ-AAPL-USD", "")


def test_promtool_finds_nothing_to_say(ran: Ran) -> None:
    checked = promtool("check", "metrics", given=ran.after.text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_every_panel_and_every_rule_has_data_of_the_run(ran: Ran) -> None:
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
    assert nothing == NEEDS_A_GPU
    for rule in rules():
        compared = measured(rule["expr"]) if "alert" in rule else rule["record"]
        while not asked(ran.prometheus, compared):  # its windows look each half minute
            assert time.monotonic() < deadline + 40, (rule, compared)
            time.sleep(1)
    groups = httpx.get(f"{ran.prometheus}/api/v1/rules", timeout=30).json()["data"]["groups"]
    states = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert len(states) == len(rules())
    assert set(states.values()) == {"ok"}


def test_prometheus_has_the_counters_that_the_worker_has(ran: Ran) -> None:
    if not ran.prometheus:
        pytest.skip("needs prometheus: apt-get install prometheus")
    # A scrape counts itself, and the probe only began when this was over.
    but = {"flashfeed_bridge_requests_total": '{route!~"/metrics"}'}
    for name in ran.after.counters():
        wanted = ran.after.sum(name)
        if name in but:
            wanted -= ran.after.sum(name, route="/metrics")
        found = asked(ran.prometheus, f"sum({name}{but.get(name, '')})", at=ran.over_at)
        seen = float(found[0]["value"][1]) if found else 0.0
        assert seen == pytest.approx(wanted), name


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
