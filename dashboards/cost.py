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
    "once; `(generate)`: what somebody read; `(background)`: prefixes, windows, returns."
)

BOARD = Board(
    "cost",
    "flashfeed / Cost",
    "Tokens, device seconds and (with [prices] in the configuration) money, by tenant, feed and "
    "question. A day's figures are the last day's.",
    (
        Row(
            "A day",
            (
                by(
                    "currency",
                    "Money a day",
                    "At the configuration's prices; 0 where it has none.",
                    "short",
                    or_zero(increase(MONEY, COST_SCOPE, "1d", "currency")),
                    kind="stat",
                    height=4,
                ),
                Panel(
                    "Device time a day",
                    "Seconds inside llama_decode.",
                    "s",
                    (Query(increase(SECONDS, COST_SCOPE, "1d")),),
                    kind="stat",
                    height=4,
                ),
                Panel(
                    "Tokens a day",
                    "Tokens decoded.",
                    "short",
                    (Query(increase(TOKENS, COST_SCOPE, "1d")),),
                    kind="stat",
                    height=4,
                ),
                by(
                    "query",
                    "What does this question cost a day",
                    f"Device seconds of the last day. {KINDS}",
                    "s",
                    f"sort_desc(sum by (query) (increase({SECONDS}{{{COST_SCOPE}}}[1d])))",
                    kind="bars",
                    width=12,
                ),
                Panel(
                    "By tenant, feed and question",
                    f"Device seconds of the last day. {KINDS}",
                    "s",
                    (Query(increase(SECONDS, COST_SCOPE, "1d", "tenant, feed, query")),),
                    kind="table",
                    width=12,
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
                    or_zero(f"3600 * {rate(MONEY, COST_SCOPE, 'query')}"),
                    stacked=True,
                    width=12,
                ),
            ),
        ),
    ),
)
