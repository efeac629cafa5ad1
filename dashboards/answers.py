"""Answers: what the questions say over time; the panels repeat for each question."""

from __future__ import annotations

from .learnt import LEARNT
from .panel import (
    ALL_SCOPE,
    Board,
    Panel,
    Query,
    Row,
    by,
    mean,
    or_zero,
    quantile,
    rate,
    share,
)

ANSWERS = "flashfeed_answers_total"
ASKED = ALL_SCOPE + ',query=~"$query"'

BOARD = Board(
    "answers",
    "flashfeed / Answers",
    "What each standing question says, how often it changes its mind, and how sure it is. "
    "Choose a question at the top; answers as free text have no value here.",
    (
        Row(
            "$query",
            (
                by(
                    "value",
                    "$query: answers over time",
                    "Share of each answer among those given.",
                    "percentunit",
                    f"{rate(ANSWERS, ASKED, 'value')} / ignoring (value) group_left () "
                    f"({rate(ANSWERS, ASKED)} > 0)",
                    stacked=True,
                    maximum=1,
                ),
                Panel(
                    "$query: changes of mind",
                    "Share of the answers that differ from the one before of their session.",
                    "percentunit",
                    (
                        Query(
                            share(rate(ANSWERS, ASKED + ',changed="true"'), rate(ANSWERS, ASKED)),
                            "changed",
                        ),
                    ),
                    maximum=1,
                ),
                Panel(
                    "$query: confidence",
                    "Mean probability of the answers given, and the one that half stay below.",
                    "percentunit",
                    (
                        Query(
                            mean("flashfeed_answer_confidence", ASKED),
                            "mean",
                        ),
                        Query(
                            quantile(0.5, "flashfeed_answer_confidence", ASKED),
                            "half below",
                        ),
                    ),
                    maximum=1,
                ),
            ),
        ),
        Row(
            "All questions",
            (
                by(
                    "query",
                    "Answers",
                    "Answers a second, by question.",
                    "cps",
                    rate(ANSWERS, ALL_SCOPE, "query"),
                ),
                by(
                    "query",
                    "Corrected by the prior",
                    "Answers a second whose choice the prior correction "
                    "changed: what the model would have said whatever the data.",
                    "cps",
                    or_zero(rate("flashfeed_corrected_answers_total", ALL_SCOPE, "query"), "query"),
                ),
                by(
                    "query",
                    "Abstained",
                    "Share of the answers that were less sure than their question's "
                    "min_confidence.",
                    "percentunit",
                    or_zero(
                        f"{rate('flashfeed_abstained_answers_total', ALL_SCOPE, 'query')} / "
                        f"({rate(ANSWERS, ALL_SCOPE, 'query')} > 0)",
                        "query",
                    ),
                    maximum=1,
                ),
                by(
                    "query",
                    "Held",
                    "Answers a second that hysteresis kept as they were.",
                    "cps",
                    or_zero(rate("flashfeed_held_answers_total", ALL_SCOPE, "query"), "query"),
                ),
                Panel(
                    "Given since the start",
                    "Every answer of every question, as workers counted since they started.",
                    "short",
                    (Query(f"sum by (query, value) ({ANSWERS}{{{ALL_SCOPE}}})"),),
                    kind="table",
                ),
            ),
        ),
        LEARNT,
    ),
)
