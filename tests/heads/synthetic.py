"""A stream of answers whose truth is known: what the logits and the hidden state say of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from flashfeed.heads.learner import Head
from flashfeed.models.learning import Example, Features, Prediction

PRIOR = (0.5, 0.5)


def stream(
    n: int, logits: float, hidden: float, seed: int = 0, rate: float = 0.5
) -> Iterator[tuple[str, Features, int]]:
    """Session, features and label; `logits` and `hidden` are how much each says of it, 0
    nothing. The logits favour the first choice by a lot."""
    draw = np.random.default_rng(seed)
    direction = draw.normal(size=24)
    direction /= np.linalg.norm(direction)
    for number in range(n):
        label = int(draw.random() < rate)
        sign = 2 * label - 1
        score = 3.0 - logits * sign + draw.normal()
        state = draw.normal(size=24) + hidden * sign * direction
        share = 1 / (1 + math.exp(-score))
        logs = (math.log(share), math.log1p(-share))
        yield f"s{number % 3}", Features(logs, state.astype("<f2").tobytes()), label


def taught(
    head: Head, answers: Iterator[tuple[str, Features, int]]
) -> list[tuple[Prediction, int]]:
    """Predict, then learn, each answer; what was predicted, with the labels."""
    said = []
    for session, features, label in answers:
        prediction = head.predict(session, features, PRIOR)
        said.append((prediction, label))
        head.learn(Example(session, features, label, prediction))
    return said


def loss(said: list[tuple[Prediction, int]], name: str = "") -> float:
    """The mean log loss of what was published, or of one forecaster."""
    rows = [prediction.parts[name] if name else prediction.forecast for prediction, _ in said]
    losses = [-math.log(row[label]) for row, (_, label) in zip(rows, said, strict=True)]
    return sum(losses) / len(losses)
