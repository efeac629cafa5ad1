"""Overview: is it working, is it fresh, what is it saying."""

from __future__ import annotations

from .panel import (
    ALL_SCOPE,
    COST_SCOPE,
    FEED_SCOPE,
    WORKER,
    Board,
    Panel,
    Query,
    Row,
    by,
    increase,
    or_zero,
    quantiles,
    rate,
    share,
    total,
)

LATENCY = "flashfeed_update_latency_seconds"
READ = "flashfeed_records_total"
APPLIED = "flashfeed_applied_records_total"
FIRING = 'count(ALERTS{alertstate="firing",alertname=~"Flashfeed.+"})'
BUSY = "flashfeed_engine_decode_seconds_total"
FAILED = "flashfeed_session_failures_total"

BOARD = Board(
    "overview",
    "flashfeed / Overview",
    "Ten seconds: anything red at the top is wrong. Freshness, cost and answers stand below it.",
    (
        Row(
            "Is it working",
            (
                Panel(
                    "Alerts firing",
                    "flashfeed's alerts that fire now; docs/RUNBOOK.md has what to do about each.",
                    "short",
                    (Query(or_zero(FIRING)),),
                    kind="stat",
                    width=4,
                    height=4,
                    red_from=1,
                ),
                Panel(
                    "Workers up",
                    "Workers that answered Prometheus' last scrape. One that stopped may be gone "
                    "from what it discovers: none that is down is not all that are up.",
                    "short",
                    (Query(or_zero('count(up{job="flashfeed"} == 1)')),),
                    kind="stat",
                    width=4,
                    height=4,
                    red_below=1,
                ),
                Panel(
                    "End to end",
                    "What `flashfeed probe` found last: 1 where a known record was "
                    "answered in time. The one series that says that the whole works.",
                    "bool_yes_no",
                    (Query("min(flashfeed_probe_success)"),),
                    kind="stat",
                    width=4,
                    height=4,
                    red_below=1,
                ),
                Panel(
                    "Oldest waiting record",
                    "Age of the oldest record that is fetched and not done, over all partitions.",
                    "s",
                    (Query(f"max(flashfeed_consumer_lag_seconds{{{WORKER}}})"),),
                    kind="stat",
                    width=4,
                    height=4,
                    red_from=60,
                ),
                Panel(
                    "Dead letters",
                    "Share of the source records that became dead letters, in the last 5 "
                    "minutes. One message may hold several.",
                    "percentunit",
                    (
                        Query(
                            or_zero(
                                share(
                                    increase(READ, FEED_SCOPE + ',result="dead_letter"', "5m"),
                                    increase(READ, FEED_SCOPE + ',result!="read"', "5m"),
                                )
                            )
                        ),
                    ),
                    kind="stat",
                    width=4,
                    height=4,
                    red_from=0.01,
                ),
                Panel(
                    "Failed sessions",
                    "Sessions that stopped taking records in the last hour.",
                    "short",
                    (Query(or_zero(increase(FAILED, WORKER, "1h"))),),
                    kind="stat",
                    width=4,
                    height=4,
                    red_from=1,
                ),
            ),
        ),
        Row(
            "Is it fresh",
            (
                Panel(
                    "From a record to its answers",
                    "Seconds from a source record's Kafka "
                    "timestamp to its flash_ready acknowledged.",
                    "s",
                    quantiles(LATENCY, ALL_SCOPE),
                    width=12,
                ),
                Panel(
                    "Fresh within 5 s",
                    "Share of the records whose answers were out within 5 "
                    "seconds, by feed (nameless: what was pushed): what the freshness objective "
                    "counts.",
                    "percentunit",
                    (
                        Query(
                            share(
                                rate(f"{LATENCY}_bucket", ALL_SCOPE + ',le="5.0"', "feed"),
                                rate(f"{LATENCY}_count", ALL_SCOPE, "feed"),
                            ),
                            "{{feed}} within 5 s",
                        ),
                    ),
                    width=6,
                    maximum=1,
                ),
                Panel(
                    "Records",
                    "Source records read, and applied to sessions.",
                    "cps",
                    (
                        Query(rate(READ, FEED_SCOPE + ',result="read"'), "read"),
                        Query(
                            rate(APPLIED, ALL_SCOPE + ',result="applied"'),
                            "applied",
                        ),
                    ),
                    width=6,
                ),
            ),
        ),
        Row(
            "Is it right-sized and affordable",
            (
                Panel(
                    "Device busy",
                    "Share of the time inside llama_decode, of the worker that is busiest. At "
                    "100% it is full: its answers come late.",
                    "percentunit",
                    (Query(f"max({rate(BUSY, WORKER, 'instance')})"),),
                    kind="stat",
                    width=6,
                    height=4,
                    red_from=0.9,
                ),
                Panel(
                    "Seats taken",
                    "Share of the resident sequences that there may be, of the worker that is "
                    "fullest. At 100% a session that comes evicts one that is idle.",
                    "percentunit",
                    (
                        Query(
                            f"max(flashfeed_engine_seats{{{WORKER}}} "
                            f"/ flashfeed_engine_seats_limit{{{WORKER}}})"
                        ),
                    ),
                    kind="stat",
                    width=6,
                    height=4,
                ),
                by(
                    "currency",
                    "Money a day",
                    "What was decoded in the last 24 hours, at the configuration's prices.",
                    "short",
                    or_zero(
                        increase("flashfeed_cost_money_total", COST_SCOPE, "1d", "currency"),
                        "currency",
                        "(no prices)",
                    ),
                    kind="stat",
                    width=6,
                    height=4,
                ),
                Panel(
                    "Tokens a day",
                    "Tokens decoded in the last 24 hours.",
                    "short",
                    (Query(or_zero(increase("flashfeed_cost_tokens_total", COST_SCOPE, "1d"))),),
                    kind="stat",
                    width=6,
                    height=4,
                ),
            ),
        ),
        Row(
            "What is it saying",
            (
                by(
                    "query",
                    "Answers by question",
                    "Answers a second of each standing question.",
                    "cps",
                    rate("flashfeed_answers_total", ALL_SCOPE, "query"),
                ),
                Panel(
                    "Answers of the last hour",
                    "How often each question had each of its answers.",
                    "short",
                    (
                        Query(
                            "sum by (query, value) (increase(flashfeed_answers_total"
                            f'{{{ALL_SCOPE},value!=""}}[1h])) > 0',
                            "{{query}}: {{value}}",
                        ),
                    ),
                    kind="bars",
                ),
                by(
                    "instance",
                    "Live sessions",
                    "Sessions that are live, by worker.",
                    "short",
                    total("flashfeed_sessions", WORKER, "instance"),
                ),
            ),
        ),
    ),
)
