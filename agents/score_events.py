"""A head's running score as a message of `flashfeed.scores`: keyed as the head, compacted, so
that the topic has every question's score as it is now."""

from __future__ import annotations

from typing import Any

import msgspec

from flashfeed.heads.scorecard import Scores

from .head_learning import HeadLearning
from .kafka_writer import Write


class ScoreRecord(msgspec.Struct, frozen=True):
    """How right a question's answers were (heads/scorecard.py says what the figures are).
    `spec` is a hash of the sessions' spec and model; `leading` is the forecaster whose word
    weighs most, `head_version` counts the labels learnt, and `drifted` is the one at which a
    forecaster that was fitted last lost its lead (0: never)."""

    tenant: str
    spec: str
    type: str
    name: str
    query: str
    choices: tuple[str, ...]
    head_version: int
    leading: str
    drifted: int
    scores: Scores


def score_record(learning: HeadLearning) -> ScoreRecord:
    """The head's score now."""
    name, head = learning.name, learning.head
    return ScoreRecord(
        tenant=name.tenant,
        spec=name.key.split("/")[1],
        type=name.type,
        name=name.label,
        query=name.subject.query,
        choices=name.subject.choices,
        head_version=head.version,
        leading=head.leading,
        drifted=head.drifted,
        scores=learning.scores,
    )


def score_write(topic: str, learning: HeadLearning) -> Write:
    """The head's score as a Kafka record."""
    headers: list[tuple[str, Any]] = [("content-type", b"application/json")]
    value = msgspec.json.encode(score_record(learning))
    return Write(topic, learning.name.key.encode(), value, headers)
