"""What a question is learnt from: features, labels, predictions, as data. No arithmetic.

choice       an allowed answer, by its place in the question's `choices`
features     what the model gave for one answer: the choices' raw log-probabilities, and the
             hidden state at the answer's position where it was asked for
forecast     the probabilities of the choices as one forecaster has them
parts        the forecasts of all of a question's forecasters, by name
"""

from __future__ import annotations

import hashlib
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

LabelledBy: TypeAlias = Literal["user", "rule"]


class Features(msgspec.Struct, frozen=True, array_like=True):
    """What the model gave for one answer. `logs` are the choices' log-probabilities, up to
    one constant for all of them; `hidden` is the hidden state and beside it how it moved
    (heads/moved.py), float16, little-endian, b"" where there is none."""

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


class Subject(msgspec.Struct, frozen=True):
    """What a head is of: another subject is another head."""

    model: str
    spec: str
    query: str
    choices: tuple[str, ...]


class HeadName(msgspec.Struct, frozen=True):
    """Which head: whose it is, what it is of, and how people know it: the question's `label`
    and the session's type."""

    tenant: str
    subject: Subject
    label: str
    type: str

    @property
    def key(self) -> str:
        """tenant/spec/query, the last two as hashes: the key of all that concerns the head."""
        subject = self.subject
        asked = hashlib.sha256("\0".join((subject.query, *subject.choices)).encode())
        made = hashlib.sha256(f"{subject.model}\0{subject.spec}".encode())
        return f"{self.tenant}/{made.hexdigest()[:16]}/{asked.hexdigest()[:16]}"


class Waits(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer that waits for its label, or has one: a slot of its question in its session's
    changelog. `life` is the session's first offset, `query_id` and `version` name the answer,
    and `offset` the last input in it. `place` numbers the newest record that it was given
    over (-1: none), whose event time is `time`; `model` is the hash of what answered. `label` is
    the label's choice (-1: none yet, -2: the rule cannot know it); `features` and `prediction`
    go when there is one, which may be sent too where the rule cannot know."""

    life: int
    query_id: int
    version: int
    offset: int
    place: int = -1
    time: float | None = None
    model: str = ""
    features: Features | None = None
    prediction: Prediction | None = None
    label: int = -1


class ExampleRecord(msgspec.Struct, frozen=True):
    """A message of `flashfeed.examples`: an answer of a session whose label became known.
    `id` is the answer's own, so that a repeat is dropped; `by` says who gave the label, and
    `time` (seconds since 1970) when it came true, where that is known."""

    id: str
    head: HeadName
    data_version: int
    label: str
    by: LabelledBy
    time: float | None
    example: Example


class Learnt(msgspec.Struct, frozen=True):
    """A message of `flashfeed.reservoirs`: an example that a head has learnt, the `number`th
    of its, counted from 1."""

    number: int
    id: str
    example: Example


class HeadRecord(msgspec.Struct, frozen=True):
    """A message of `flashfeed.heads`, in MessagePack: a head after all examples up to `offset`
    of its partition. `weights` is a head file (heads/head_file.py) without examples; `sums` are the
    scorecard's over `labels` labels."""

    head: HeadName
    partition: int
    offset: int
    labels: int
    sums: dict[str, float]
    weights: bytes


_head_decoder = msgspec.msgpack.Decoder(HeadRecord)


def encode_head(record: HeadRecord) -> bytes:
    """A head as the value that is written to `flashfeed.heads`."""
    return msgspec.msgpack.encode(record)


def decode_head(value: bytes) -> HeadRecord:
    """The head in a value; raises msgspec.MsgspecError where it is none."""
    return _head_decoder.decode(value)
