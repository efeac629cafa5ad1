"""What a question is learnt from: features, labels, predictions, as data. No arithmetic.

choice       an allowed answer, by its place in the question's `choices`
features     what the model gave for one answer: the choices' raw log-probabilities, and the
             hidden state at the answer's position where it was asked for
forecast     the probabilities of the choices as one forecaster has them
parts        the forecasts of all of a question's forecasters, by name
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

import msgspec

Forecaster: TypeAlias = Literal["base_rate", "persistence", "prior", "logits", "hidden", "mixed"]
"""Who may answer. base_rate: how often each label came; persistence: the session's last
known label, as often as it came again; prior: the model's own answer, its bias taken off;
logits: its answer calibrated; hidden: read from the hidden state; mixed: all of them, each
with the weight that its forecasts have earned. The first two know nothing of the data, and
are what an answer is measured against."""

FORECASTERS: Final[tuple[Forecaster, ...]] = get_args(Forecaster)

Forecast: TypeAlias = tuple[float, ...]


class Features(msgspec.Struct, frozen=True, array_like=True):
    """What the model gave for one answer. `logs` are the choices' log-probabilities, up to
    one constant for all of them; `hidden` is the hidden state, float16, little-endian, b""
    where there is none."""

    logs: tuple[float, ...]
    hidden: bytes = b""


class Prediction(msgspec.Struct, frozen=True, array_like=True):
    """What a head said of one answer before its label was known.

    `by` is the forecaster that answered, `version` the version of the head, `parts` what
    each of them said; `answers` are the choices of the conformal set at 90%.
    """

    by: Forecaster
    version: int
    parts: dict[str, Forecast]
    answers: tuple[int, ...] = ()

    @property
    def forecast(self) -> Forecast:
        """The probabilities that were published."""
        return self.parts[self.by]


class Example(msgspec.Struct, frozen=True, array_like=True):
    """An answer whose label became known."""

    session: str
    features: Features
    label: int
    prediction: Prediction
