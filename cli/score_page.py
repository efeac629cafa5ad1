"""`flashfeed score --html`: the scores as one page that needs nothing else. Pure.

No script, no font, no picture from anywhere: the page says so to the browser (its content
security policy), and all text of the user's is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final, NamedTuple

from flashfeed.heads.score_curves import learning_curve, reliability_bins
from flashfeed.heads.scorecard import Kept, Scores

from .score_charts import learning_chart, reliability_chart

TITLES: Final = {
    "accuracy": ("right", "how often the likeliest choice was the true one"),
    "brier": ("Brier", "mean squared error of the probabilities; 0 is best"),
    "skill_base_rate": ("skill", "share of the base rate's Brier score that is saved"),
    "skill_low": ("from", "its 95% interval, of answers as if independent"),
    "skill_high": ("to", "its 95% interval, of answers as if independent"),
    "skill_persistence": ("over persistence", "the same against the last known answer again"),
    "log_loss": ("log loss", "mean surprise in nats"),
    "auc": ("AUC", "how often a true answer ranks above a false one; 0.5 is chance"),
    "ece": ("ECE", "how far confidences are from how often they were right"),
    "sharpness": ("sharpness", "how far confidences are from saying nothing"),
    "coverage": ("coverage", "how often the truth was in the answer set made for 90%"),
}
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2733;--paper:#fff;--faint:#c9d1d9;--own:#0b62b8;
--base:#b35900;--persist:#6b7280;--bar:#0b62b833}
@media(prefers-color-scheme:dark){:root{--ink:#e2e8ef;--paper:#14181d;--faint:#3a434d;
--own:#6cb2ff;--base:#ffab5e;--persist:#9aa4b0;--bar:#6cb2ff33}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;
max-width:64rem;padding:0 1rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
td,th{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--faint)}
td:first-child,th:first-child,td:nth-child(2){text-align:left}
figure{display:inline-block;margin:1rem 1rem 0 0;vertical-align:top}
figcaption{max-width:440px;font-size:13px}svg{max-width:100%;height:auto}
svg text{fill:var(--ink);font-size:13px}svg text.small{font-size:11px}
.grid{stroke:var(--faint);stroke-width:.5}.ideal,.own,.base_rate,.persistence{fill:none;
stroke-width:2}.ideal{stroke:var(--persist);stroke-dasharray:4 4}circle.own{fill:var(--own);
stroke:none}.own,.interval{stroke:var(--own)}.base_rate{stroke:var(--base)}
.persistence{stroke:var(--persist);stroke-dasharray:2 3}.count{fill:var(--bar)}
.key-own{color:var(--own)}.key-base{color:var(--base)}.key-persist{color:var(--persist)}
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


class Column(NamedTuple):
    """One way of a question's answers: `published` or `learnt`, their figures, and answers."""

    kind: str
    scores: Scores
    kept: Sequence[Kept]


class ScoredQuestion(NamedTuple):
    """What the page says of a question; `notes` are sentences under its pictures."""

    name: str
    query: str
    n_choices: int
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


def score_page(questions: Sequence[ScoredQuestion], about: str) -> str:
    """The page; `about` says what was scored."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>flashfeed score</title><style>{_STYLE}</style></head><body>"
        f"<h1>How right the answers were</h1><p>{escape(about)}</p>"
        f'<div class="wide">{_table(questions)}</div>'
        "<p>Each answer was predicted before its label was known. Neighbouring answers share "
        "most of their data, so that the true intervals are wider. A skill whose interval "
        "reaches 0, or some 200 labels and fewer, say nothing yet.</p>"
        + "".join(map(_section, questions))
        + "</body></html>\n"
    )


def _table(questions: Sequence[ScoredQuestion]) -> str:
    heads = "".join(
        f'<th title="{escape(meaning)}">{escape(title)}</th>' for title, meaning in TITLES.values()
    )
    rows = [
        f"<tr><td>{escape(one.name)}</td><td>{escape(column.kind)}</td>"
        f"<td>{column.scores.labels}</td>"
        + "".join(f"<td>{_number(getattr(column.scores, name))}</td>" for name in TITLES)
        + "</tr>"
        for one in questions
        for column in one.columns
    ]
    return (
        f"<table><tr><th>question</th><th></th><th>labels</th>{heads}</tr>{''.join(rows)}</table>"
    )


def _section(one: ScoredQuestion) -> str:
    figures = "".join(_figures(column, one.n_choices) for column in one.columns)
    notes = "".join(f"<p>{escape(note)}</p>" for note in one.notes)
    return (
        f"<section><h2>{escape(one.name)}</h2><p>{escape(one.query)}</p>{figures}{notes}</section>"
    )


def _figures(column: Column, n_choices: int) -> str:
    bins, points = reliability_bins(column.kept), learning_curve(column.kept)
    kind = escape(column.kind)
    if not points:
        return f"<p>{kind}: no answer has a label.</p>"
    if bins:
        reliable = (
            f"<figure>{reliability_chart(bins, n_choices)}<figcaption>{kind}: how often "
            "answers were right, by confidence, with 95% intervals, and how many they are. On the "
            "dashed line a confidence means what it says; below it answers are too sure."
            "</figcaption></figure>"
        )
    else:
        reliable = f"<p>{kind}: too few answers for a reliability diagram.</p>"
    return reliable + (
        f"<figure>{learning_chart(points)}<figcaption>{kind}: the mean log loss so far, of the "
        f'last {len(column.kept)} labels. <span class="key-own">own</span>, '
        '<span class="key-base">base rate</span>, <span class="key-persist">last known '
        "answer</span>; lower is better.</figcaption></figure>"
    )


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"
