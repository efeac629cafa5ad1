"""Cost: what a question costs, in tokens, device seconds and money."""

from __future__ import annotations

from .panel import (
    COST_SCOPE,
    Board,
    Panel,
    Query,
    Row,
    by,
    increase,
    or_zero,
    per_worker,
    rate,
)

TOKENS, SECONDS, MONEY = (
    f"flashfeed_cost_{what}_total" for what in ("tokens", "device_seconds", "money")
)
KINDS = (
    "`(data)`: the new records, which all questions of a session share; `(asked)`: questions asked "
    "once; `(generate)`: what somebody read; `(background)`: prefixes, windows, returns; "
    "`(embed)`: texts for their vectors; `(probe)`: the end to end check."
)
DAY = "What was decoded within the last 24 hours: a run of an hour shows an hour's."
NO_PRICES = "(no prices)"
EACH = "tenant, feed, query"

BOARD = Board(
    "cost",
    "flashfeed / Cost",
    "Tokens, device seconds and (with [prices] in the configuration) money, by tenant, feed and "
    "question.",
    (
        Row(
            "A day",
            (
                by(
                    "currency",
                    "Money a day",
                    f"At the configuration's prices; 0 where it has none. {DAY}",
                    "short",
                    or_zero(increase(MONEY, COST_SCOPE, "1d", "currency"), "currency", NO_PRICES),
                    kind="stat",
                    height=4,
                ),
                Panel(
                    "Device time a day",
                    f"Seconds inside llama_decode. {DAY}",
                    "s",
                    (Query(or_zero(increase(SECONDS, COST_SCOPE, "1d"))),),
                    kind="stat",
                    height=4,
                ),
                Panel(
                    "Tokens a day",
                    f"Tokens decoded. {DAY}",
                    "short",
                    (Query(or_zero(increase(TOKENS, COST_SCOPE, "1d"))),),
                    kind="stat",
                    height=4,
                ),
                by(
                    "query",
                    "What does this question cost a day: money",
                    f"At the configuration's prices; 0 where it has none. {DAY} {KINDS}",
                    "short",
                    or_zero(
                        f"sort_desc({increase(MONEY, COST_SCOPE, '1d', 'query')})",
                        "query",
                        NO_PRICES,
                    ),
                    kind="bars",
                ),
                by(
                    "query",
                    "What does this question cost a day: device time",
                    f"Seconds inside llama_decode. {DAY} {KINDS}",
                    "s",
                    f"sort_desc({increase(SECONDS, COST_SCOPE, '1d', 'query')})",
                    kind="bars",
                ),
                by(
                    "query",
                    "What does this question cost a day: tokens",
                    f"Tokens decoded. {DAY} {KINDS}",
                    "short",
                    f"sort_desc({increase(TOKENS, COST_SCOPE, '1d', 'query')})",
                    kind="bars",
                ),
                Panel(
                    "By tenant, feed and question",
                    f"Money (where there are prices), device seconds and tokens. {DAY} {KINDS}",
                    "short",
                    (
                        Query(increase(MONEY, COST_SCOPE, "1d", EACH), "Money"),
                        Query(increase(SECONDS, COST_SCOPE, "1d", EACH), "Device time", "s"),
                        Query(increase(TOKENS, COST_SCOPE, "1d", EACH), "Tokens"),
                    ),
                    kind="table",
                    width=24,
                    height=9,
                ),
            ),
        ),
        Row(
            "Over time",
            (
                by(
                    "query",
                    "Tokens by question",
                    f"Tokens decoded a second. {KINDS}",
                    "cps",
                    rate(TOKENS, COST_SCOPE, "query"),
                    stacked=True,
                    width=12,
                ),
                *(
                    by(
                        label,
                        f"Device time by {label}",
                        f"Share of a worker's time inside llama_decode, by {label} ({nameless}).",
                        "percentunit",
                        per_worker(rate(SECONDS, COST_SCOPE, label)),
                        stacked=True,
                        width=12,
                    )
                    for label, nameless in (
                        ("tenant", "nameless where there are no tenants"),
                        ("feed", "nameless: what no feed brought"),
                    )
                ),
                by(
                    "query",
                    "Money an hour",
                    "At the configuration's prices, by question; 0 where it has none.",
                    "short",
                    or_zero(f"3600 * {rate(MONEY, COST_SCOPE, 'query')}", "query", NO_PRICES),
                    stacked=True,
                    width=12,
                ),
            ),
        ),
    ),
)
