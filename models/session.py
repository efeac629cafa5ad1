"""What a session is made from, and what it answers with."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, TypeAlias

import msgspec

from .assembly import BarSpec, Merge, duration_s
from .records import StreamType

QUERIES_MAX = 20
CHOICES_MAX = 16

WINDOW_ITEMS_MAX = 100_000
QUEUE_RECORDS_MAX = 1_000_000

Overflow: TypeAlias = Literal["block", "coalesce", "drop_oldest"]
"""What happens where more records wait than a session's queue is to hold. block: the source
waits, and nothing is lost. coalesce: what waits is merged into fewer lines, each of which says
of how many. drop_oldest: the oldest are dropped, and counted."""

Publish: TypeAlias = Literal["all", "changes"]
"""Which answers go out: each, or those whose value or abstaining differs from the one before."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
MaxTokens = Annotated[int, msgspec.Meta(ge=1, le=512)]
Name = Annotated[str, msgspec.Meta(max_length=200)]


class OutcomeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When and how the true answer to a question shows in the session's own later records:
    `after` so many of them (`5 records`) or a time (`30m`, in event time), as `label` says
    (heads/outcome_expression.py has the language)."""

    label: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    after: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]


class FlashQuery(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A standing question. With `choices` the answer is one of them, and its confidence
    their softmax; without, it is free text of at most `max_tokens` tokens. `calibrate`
    corrects the choices by what the model favours over the stream (heads/prior.py). With
    `learn` a head learns from the true answers as they come, and answers (heads/learner.py):
    from outcomes that are sent, and from those that the rule `outcome` gives."""

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    name: str = ""
    choices: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=100)], ...] = ()
    max_tokens: MaxTokens = 32
    # What is made of its answers before they go out (heads/verdict.py).
    min_confidence: Share = 0.0
    hysteresis: Share = 0.0
    publish: Publish = "all"
    id: int = 0
    calibrate: bool = True
    learn: bool = False
    outcome: OutcomeSpec | None = None

    def __post_init__(self) -> None:
        if self.learn and not self.choices:
            raise ValueError("expected choices where learn is true: a label is one of them")
        if self.outcome is not None and not self.learn:
            raise ValueError("expected learn = true beside outcome")
        if len(self.choices) == 1 or len(self.choices) > CHOICES_MAX:
            raise ValueError(f"expected 2 to {CHOICES_MAX} choices, got {len(self.choices)}")
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("expected choices that differ from one another")
        if self.hysteresis and not self.choices:
            raise ValueError("expected choices where hysteresis is set: it compares their shares")

    @property
    def label(self) -> str:
        """The short name a person and a metric know the question by."""
        return self.name or f"q{self.id}"


class WindowSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a session forgets (models/window.py has the arithmetic).

    `exact` keeps the last `items` to twice as many, and answers as a fresh context over
    them would; `shift` keeps the last `items` at half the work, approximately; `grow`
    keeps everything until the context is full, and does not look at `items`.
    """

    mode: Literal["exact", "shift", "grow"] = "exact"
    items: Annotated[int, msgspec.Meta(ge=1, le=WINDOW_ITEMS_MAX)] = 64


class SessionSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything that shapes a session's context and its answers.

    `context` is the context window in tokens, 0 for the engine's default; `text` the
    text codec, "" for the type's default. `tenant` is whose session it is: nothing is
    shared across tenants. `model` is a model's name, "" for the worker's default.
    `window_tokens` bounds the data under an `exact` or `shift` window (0: the context
    does): where it would hold more, the window is halved. With `pre_decode` each update
    also asks what the model would say next by itself. `bars` makes an ohlcv session's
    candles of trades or finer candles; `merge` (a duration) joins a vitals session's
    single signs for as long as each is fresh. With `live` a candle that is not final is the
    session's last line, marked open, and written again as it changes. `overflow` decides
    where more than `queue_records` wait (0: `coalesce` takes what the window holds, the
    others the worker's own bound).
    """

    type: StreamType
    prompt: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    flash: tuple[FlashQuery, ...] = ()
    window: WindowSpec = WindowSpec()
    context: Annotated[int, msgspec.Meta(ge=0)] = 0
    text: str = ""
    tenant: Name = ""
    model: Name = ""
    window_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    pre_decode: bool = False
    bars: BarSpec | None = None
    merge: Merge = ""
    live: bool = False
    overflow: Overflow = "block"
    queue_records: Annotated[int, msgspec.Meta(ge=0, le=QUEUE_RECORDS_MAX)] = 0

    def __post_init__(self) -> None:
        if len(self.flash) > QUERIES_MAX:
            raise ValueError(f"expected at most {QUERIES_MAX} flash queries, got {len(self.flash)}")
        if self.bars is not None and self.type != "ohlcv":
            raise ValueError(f"expected bars in an ohlcv session only, got type {self.type}")
        if self.live and self.type != "ohlcv":
            raise ValueError(f"expected live in an ohlcv session only, got type {self.type}")
        if self.live and self.overflow == "coalesce":
            raise ValueError("expected live or overflow coalesce, got both: an open candle changes")
        if self.merge:
            duration_s(self.merge)
            if self.type != "vitals":
                raise ValueError(f"expected merge in a vitals session only, got type {self.type}")
        ids = [query.id for query in self.flash if query.id]
        if len(set(ids)) != len(ids):
            raise ValueError(f"expected flash queries with different ids, got {ids}")


NEXT_WORD = FlashQuery(query="", max_tokens=1)
"""What a `pre_decode` session is asked by itself: its id 0 is no standing question's."""


def with_query_ids(spec: SessionSpec) -> SessionSpec:
    """The spec with its flash queries numbered, by the free ids from 1, where they have none."""
    taken = {query.id for query in spec.flash}
    free = (number for number in itertools.count(1) if number not in taken)
    numbered = tuple(
        query if query.id else msgspec.structs.replace(query, id=next(free)) for query in spec.flash
    )
    return msgspec.structs.replace(spec, flash=numbered)


class AnsweredBy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What gave an answer: hashes of the model file and of the session's spec, and of a
    question that learns which forecaster (models/learning.py), and how many labels its head
    had learnt."""

    model: str
    spec: str
    head: str | None = None
    head_version: int | None = None


class PartForecast(msgspec.Struct, frozen=True):
    """What one forecaster of a head said of an answer."""

    forecaster: str
    probabilities: dict[str, float]


class Learned(msgspec.Struct, frozen=True):
    """What a question's head made of an answer: what each of its forecasters said, and the
    choices that hold the true one 9 times of 10, the likeliest first."""

    forecasts: tuple[PartForecast, ...]
    answer_set: tuple[str, ...]


class RawAnswer(msgspec.Struct, frozen=True):
    """What the model said by itself, before any correction; the fields are `Answer`'s."""

    value: str
    confidence: float
    logit_gap: float
    probabilities: dict[str, float]


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question's answer at one data version.

    `confidence` is a probability in 0..1: the softmax over the choices, or the
    geometric mean of a free answer's token probabilities. `logit_gap` is the distance
    of the best from the second best (choices: in log-probability; free: first token's
    logits). `n_tokens` counts the generated tokens (0 for choices), and `first_token` is
    the id of the first one (-1 for choices). `evaluated_ms` and
    `answered_by` are the owner's to fill in, and so are `held` and `abstained`
    (heads/verdict.py), and `raw`: where it is set, the
    answer is corrected (heads/prior.py) and `raw` is what it was before. `learned` is what
    the question's head said, where it learns.
    """

    query_id: int
    value: str
    confidence: float
    logit_gap: float
    n_tokens: int = 0
    first_token: int = -1
    probabilities: dict[str, float] = {}
    held: bool = False
    abstained: bool = False
    evaluated_ms: int = 0
    answered_by: AnsweredBy = AnsweredBy(model="", spec="")
    raw: RawAnswer | None = None
    learned: Learned | None = None
