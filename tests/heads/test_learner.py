"""A head lets the best forecaster answer, falls back, and is the same after a replay."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from flashfeed.heads import learner
from flashfeed.heads.head_file import Subject, write_head
from flashfeed.heads.learner import EXAMPLES_MAX, LABELS_MIN, SESSIONS_MAX, Head
from flashfeed.models.learning import Features

from .synthetic import PRIOR, loss, stream, taught

SUBJECT = Subject("model", "spec", "Up?", ("no", "yes"))


def test_before_there_are_labels_the_prior_answers() -> None:
    said = taught(Head(2), stream(LABELS_MIN, 2.0, 2.0))
    assert {prediction.by for prediction, _ in said} == {"prior"}
    assert all(prediction.forecast == pytest.approx(PRIOR) for prediction, _ in said)


@pytest.mark.parametrize(("logits", "hidden", "by"), [(0.0, 2.0, "hidden"), (2.0, 0.0, "logits")])
def test_who_knows_leads(logits: float, hidden: float, by: str) -> None:
    head = Head(2)
    late = taught(head, stream(500, logits, hidden, rate=0.7))[200:]
    assert {prediction.by for prediction, _ in late} == {"mixed"}
    assert head.leading == by
    assert loss(late) < 0.6 * loss(late, "base_rate")
    assert loss(late) < loss(late, by) + 0.03


def test_the_mixture_follows_whoever_knows_from_stretch_to_stretch() -> None:
    """Better than each of them alone: the labels turn round, and half of each is unknown to
    the one or the other."""
    head = Head(2)
    said = taught(head, chain(*(stream(150, 2.0 * (n % 2), 0.0, n) for n in range(6))))[300:]
    alone = min(loss(said, name) for name in ("base_rate", "persistence", "prior", "logits"))
    assert loss(said) < alone


@pytest.mark.parametrize("seed", range(4))
def test_where_nobody_knows_the_answers_are_no_worse_than_the_base_rate(seed: int) -> None:
    late = taught(Head(2), stream(500, 0.0, 0.0, seed, rate=0.7))[100:]
    assert loss(late) < 1.02 * loss(late, "base_rate")
    assert loss(late, "prior") > 1.02 * loss(late, "base_rate")


def test_versions_count_the_labels() -> None:
    head = Head(2)
    versions = [prediction.version for prediction, _ in taught(head, stream(30, 1.0, 1.0))]
    assert versions == list(range(30))
    assert head.version == 30


def test_where_what_was_learnt_turns_wrong_others_lead_and_the_head_says_so() -> None:
    head = Head(2)
    taught(head, stream(300, 0.0, 2.0))
    assert (head.leading, head.drifted) == ("hidden", 0)
    said = taught(head, stream(40, 0.0, -2.0))
    assert 300 < head.drifted <= 340
    assert head.leading not in ("hidden", "logits")
    assert loss(said) < 0.7 * loss(said, "hidden")


def test_the_same_examples_in_the_same_order_give_the_same_head() -> None:
    heads = [Head(2), Head(2)]
    for head in heads:
        taught(head, stream(150, 1.0, 1.0))
    assert write_head(heads[0], SUBJECT) == write_head(heads[1], SUBJECT)


def test_persistence_says_the_sessions_last_label_as_often_as_it_came_again() -> None:
    head = Head(2)
    features = Features((0.0, -1.0))
    taught(head, iter([("a", features, number // 10 % 2) for number in range(200)]))
    last = 1  # of the last ten
    forecast = head.predict("a", features, PRIOR).parts["persistence"]
    assert forecast[last] == pytest.approx((180 + 1) / (199 + 2), abs=0.01)
    parts = head.predict("b", features, PRIOR).parts
    assert parts["persistence"] == parts["base_rate"]


def test_answers_without_a_hidden_state_are_learnt_from_too() -> None:
    bare = ((session, Features(f.logs), label) for session, f, label in stream(300, 2.0, 2.0))
    head = Head(2)
    late = taught(head, bare)[200:]
    assert "hidden" not in late[-1][0].parts
    assert head.leading == "logits"


def test_a_label_that_is_always_the_same_is_no_fault() -> None:
    head = Head(2)
    late = taught(head, stream(60, 1.0, 1.0, rate=1.0))[40:]
    assert late[-1][0].parts["base_rate"][1] > 0.9
    assert all(
        0 < p < 1 for prediction, _ in late for row in prediction.parts.values() for p in row
    )


def test_a_head_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "FIT_EVERY_MIN", 10**9)
    head = Head(2)
    features = Features((0.0, -1.0))
    names = chain((f"s{n}" for n in range(SESSIONS_MAX + 9)), ("t" for _ in range(EXAMPLES_MAX)))
    taught(head, ((name, features, number % 2) for number, name in enumerate(names)))
    assert len(head.examples) == EXAMPLES_MAX
    assert len(head.last) == SESSIONS_MAX


def test_a_fit_is_the_same_whatever_threads_there_are() -> None:
    """How BLAS deals its sums out to threads changes their last bits."""
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
        "from flashfeed.heads.learner import Head\n"
        "from synthetic import stream, taught\n"
        "import hashlib, numpy\n"
        "head = Head(2); taught(head, stream(64, 1.0, 1.0))\n"
        "from flashfeed.heads.probe import fit_probe\n"
        "random = numpy.random.default_rng(0)\n"
        "x, y = random.normal(size=(400, 300)), random.integers(0, 2, 400)\n"
        "print(hashlib.sha256(fit_probe(x, y, 2).weights.tobytes()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1
