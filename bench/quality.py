"""How much do answers know, and do their confidences mean what they say?

Real candles and glucose readings go through the engine record by record, with standing
questions (quality.toml) whose truth an outcome rule says. Each answer is predicted first,
and learnt from when its label is known: one head a text and question, over all series, in
the order of event time. Scored are the answers of a head with SCORED_FROM labels and more.

    AUC of     logits     the model's own probabilities, as they are
               head       what the head published
               hidden     the probe on the hidden state alone
    skill      of the published Brier score, over the base rate

In the middle every head goes through its file, as it does when a worker restarts.

    quality.py --only TEXT     runs the series that are written so, no others
    quality.py --minutes 4     stops then; the next run goes on from there

The last line has what there is, and the questions that are missing; it passes with all alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from quality_figures import GROUPS, Result, passes, summary
from quality_series import Plan, Question, Run, TimeUp, answered, plans, records_of
from rig import say

from flashfeed.engine import Engine, EngineSettings, fastest_form, find_packaged_model
from flashfeed.heads.backtest import Backtest
from flashfeed.heads.head_file import Subject, read_head, write_head
from flashfeed.heads.moved import with_move
from flashfeed.heads.outcome_expression import Course, LabelRule
from flashfeed.heads.outcome_rule import OutcomeRule
from flashfeed.heads.prior import correct
from flashfeed.models.learning import Features, Forecast, Prediction
from flashfeed.models.session import Answer
from flashfeed.models.spec_hash import spec_hash
from flashfeed.models.state import Prior

SCORED_FROM = 200
Relabel = Callable[[int, int], int]
"""Another label, for the number of a label and the true one."""


class Disturbed:
    """A label rule whose labels are other ones."""

    def __init__(self, rule: LabelRule, relabel: Relabel) -> None:
        self.earliest, self.latest = rule.earliest, rule.latest
        self._rule = rule
        self._relabel = relabel
        self._known = 0

    def label(self, course: Course) -> int | None:
        label = self._rule.label(course)
        if label is None:
            return None
        self._known += 1
        return self._relabel(self._known, label)


def evaluate(
    plan: Plan, place: int, runs: Sequence[Run], model: str, relabel: Relabel | None = None
) -> Result:
    """The head of one question over the runs of one text, in the order of event time."""
    question = plan.questions[place]
    rule = OutcomeRule(question.after, question.label, plan.type, question.choices)
    if relabel is not None:
        rule.rule = Disturbed(rule.rule, relabel)  # type: ignore[assignment]
    subject = Subject(model, spec_hash(plan.spec), question.query, question.choices)
    backtest = Backtest(rule, len(question.choices), SCORED_FROM)
    steps = sorted(
        (
            (record.timestamp or 0.0, number, record, step)
            for number, run in enumerate(runs)
            for record, step in zip(records_of(run.series), run.steps, strict=False)
        ),
        key=lambda one: one[:2],
    )
    priors: dict[str, Prior | None] = {}
    means: dict[str, bytes] = {}
    published: list[tuple[Prediction, int]] = []
    raw: list[Forecast] = []
    for at, (_, number, record, step) in enumerate(steps):
        if at == len(steps) // 2:
            backtest.head, _ = read_head(write_head(backtest.head, subject), subject)
        session, answer = runs[number].series, step.answers[place]
        corrected, priors[session] = correct(answer, priors.get(session))
        logs = tuple(np.log(shares_of(answer, question)).tolist())
        backtest.record(session, record)
        row, means[session] = with_move(step.hidden[place], means.get(session, b""))
        features = Features(logs, row)
        backtest.answer(session, at, features, shares_of(corrected, question))
        for example in backtest.settle(session):
            if example.prediction.version >= SCORED_FROM:
                published.append((example.prediction, example.label))
                raw.append(tuple(np.exp(example.features.logs).tolist()))
    return Result(
        question, runs[0].text, backtest.learnt.scores(), published, raw, backtest.head.leading
    )


def shares_of(answer: Answer, question: Question) -> Forecast:
    """The probabilities of the choices, in their order, none quite 0."""
    return tuple(max(answer.probabilities[choice], 1e-12) for choice in question.choices)


def disturbed(plan: Plan, place: int, runs: Sequence[Run], model: str) -> dict[str, float]:
    """The skill where labels are wrong, turn round in the middle, or are drawn by lot."""
    draw = random.Random(0)
    half = sum(len(run.steps) for run in runs) // 2
    relabels: dict[str, Relabel] = {
        "noise": lambda _, label: 1 - label if draw.random() < 0.2 else label,
        "turned": lambda number, label: label if number < half else 1 - label,
        "random": lambda _, label: draw.randrange(2),
    }
    found: dict[str, float] = {}
    for name, relabel in relabels.items():
        result = evaluate(plan, place, runs, model, relabel)
        found[f"skill_{name}"] = result.scores.skill_base_rate or 0.0
    return found


def row(result: Result, run: Run) -> str:
    s = result.scores
    return (
        f"{result.question.name:12}{result.question.group:10}{result.text[:24]:26}"
        f"{run.line_tokens:7.1f}{result.auc_of('logits'):8.2f}{result.auc_of('head'):7.2f}"
        f"{result.auc_of('hidden'):8.2f}{s.skill_base_rate or 0:8.2f}"
        f"{s.skill_low or 0:8.2f}{s.skill_high or 0:7.2f}{s.skill_persistence or 0:8.2f}"
        f"{s.ece or 0:7.3f}{s.coverage or 0:7.2f}{s.set_size or 0:6.2f}{s.labels:7}"
        f"  {result.leading}"
    )


HEADINGS = (
    f"{'question':12}{'group':10}{'text':26}{'tokens':>7}{'logits':>8}{'head':>7}{'hidden':>8}"
    f"{'skill':>8}{'from':>8}{'to':>7}{'persist':>8}{'ece':>7}{'cover':>7}{'set':>6}{'labels':>7}"
    "  leads"
)


async def collect(
    only: str, until: float, threads: int | None
) -> tuple[dict[tuple[str, str], list[Run]], str]:
    """All runs by plan and text, and the model's hash."""
    found: dict[tuple[str, str], list[Run]] = {}
    settings = EngineSettings(
        model_path=fastest_form(find_packaged_model(), progress=say),
        threads=threads,
        context_tokens=2048,
        hidden_states=True,
    )
    async with Engine(settings) as engine:
        for name, plan in plans().items():
            for number, text in enumerate(plan.texts):
                if only and text != only:
                    continue
                compared = plan.series[:1] if number else plan.series
                try:
                    found[name, text] = [
                        await answered(engine, plan, series, text, until) for series in compared
                    ]
                except TimeUp as up:
                    say(str(up))
        return found, engine.model_hash


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="the one text to run")
    parser.add_argument("--minutes", type=float, default=1e6, help="run no longer, then go on")
    parser.add_argument("--threads", type=int, help="the engine's threads; default: all cores")
    args = parser.parse_args()
    until = time.monotonic() + args.minutes * 60
    found, model = await collect(args.only, until, args.threads)
    known = plans()
    results: dict[tuple[str, str, str], Result] = {}
    print(HEADINGS)
    for (name, text), runs in found.items():
        for place, question in enumerate(known[name].questions):
            results[name, question.name, text] = result = evaluate(known[name], place, runs, model)
            print(row(result, runs[0]), flush=True)
    wanted = [
        (name, question.name, plan.texts[0])
        for name, plan in known.items()
        for question in plan.questions
        if question.group in GROUPS
    ]
    chosen = [results[one] for one in wanted if one in results and results[one].published]
    missing = sorted({one[1] for one in wanted} - {one.question.name for one in chosen})
    figures = summary(chosen)
    candles = known["candles"]
    if ("candles", candles.texts[0]) in found:
        figures |= disturbed(candles, 0, found["candles", candles.texts[0]], model)
    good = passes(figures, missing)
    rounded = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps({"bench": "quality", **rounded, "not_measured": missing, "pass": good}))
    sys.exit(not good)


if __name__ == "__main__":
    asyncio.run(main())
