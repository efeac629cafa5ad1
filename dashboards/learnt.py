"""The row of the answers' board on what questions learnt, and how right they are."""

from __future__ import annotations

from .panel import WORKER, Panel, Query, Row, or_zero, rate

SCORED = WORKER + ',tenant=~"$tenant"'


def _scores(title: str, description: str, *names: str, maximum: float | None = 1) -> Panel:
    """Gauges of the score, of each question; a head's owner alone has them."""
    return Panel(
        title,
        description,
        "percentunit" if maximum else "short",
        tuple(
            Query(
                or_zero(
                    f"max by (tenant, query) (flashfeed_score_{name}{{{SCORED}}})",
                    "query",
                ),
                f"{{{{query}}}} {name.replace('_', ' ')}",
            )
            for name in names
        ),
        maximum=maximum,
    )


LEARNT = Row(
    "What questions learnt, and how right they are (docs/CONFIDENCE.md)",
    (
        _scores(
            "Skill",
            "Part of the Brier score saved, over the base rate with its 95% interval and over the "
            "last known answer. At 0 and below an answer says nothing that they do not.",
            "skill",
            "skill_low",
            "skill_high",
            "skill_persistence",
        ),
        _scores(
            "How often right",
            "The likeliest choice was the true one; a true answer ranks above a false one (AUC, "
            "0.5 is chance); the truth was in the answer's set, made for 9 of 10. Sharpness is how "
            "far confidences are from saying nothing.",
            "accuracy",
            "auc",
            "coverage",
            "sharpness",
        ),
        _scores(
            "How far off",
            "Brier score, log loss in nats, and how far confidences are from how often they were "
            "right: 0 is best.",
            "brier",
            "log_loss",
            "ece",
            maximum=None,
        ),
        Panel(
            "Labels",
            "Labels that a question's score is over, and since what was fitted last lost the lead.",
            "short",
            (
                *_scores("", "", "labels").queries,
                Query(
                    or_zero(
                        f"max by (tenant, query) (flashfeed_head_drifted_labels{{{SCORED}}})",
                        "query",
                    ),
                    "{{query}} since it drifted",
                ),
            ),
        ),
        Panel(
            "Outcomes",
            "Outcomes a second, by who gave them and what became of them.",
            "cps",
            (
                Query(
                    or_zero(rate("flashfeed_outcomes_total", WORKER, "by, result"), "result"),
                    "{{by}} {{result}}",
                ),
            ),
        ),
        Panel(
            "Examples",
            "Examples a second that reached their heads: learnt, repeated, refused.",
            "cps",
            (
                Query(
                    or_zero(rate("flashfeed_examples_total", WORKER, "result"), "result"),
                    "{{result}}",
                ),
            ),
        ),
    ),
)
