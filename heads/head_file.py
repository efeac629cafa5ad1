"""A head as a file: MessagePack of numbers, no code in it.

b"flashfeed-head\\n", the format's number in one byte, the SHA-256 of what follows, then a
MessagePack map. Arrays are little-endian bytes with their shapes; every length is checked
against the bounds of learner.py before anything is made of it. The examples are in it, so
that learning goes on exactly as it would have.

`subject` says what the head is of: hashes of the model and the spec, the question's text
and its choices. A head of another subject is refused: its numbers would mean nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from flashfeed.models.errors import RequestError
from flashfeed.models.learning import Example, Forecaster, Subject

from .conformal import LEVEL_MAX
from .learner import EXAMPLES_MAX, SESSIONS_MAX, Head, Weights, hidden_row
from .probe import Probe
from .softmax import Matrix, Scaling

__all__ = ["BYTES_MAX", "FORMAT", "HIDDEN_MAX", "MAGIC", "Subject", "read_head", "write_head"]

MAGIC: Final = b"flashfeed-head\n"
FORMAT: Final = 1
BYTES_MAX: Final = 64 << 20
HIDDEN_MAX: Final = 1 << 15


class _Scaling(msgspec.Struct, frozen=True, array_like=True):
    slope: float
    bias: bytes


class _Probe(msgspec.Struct, frozen=True, array_like=True):
    weights: bytes
    offset: bytes
    scaling: _Scaling


class _File(msgspec.Struct, frozen=True):
    subject: Subject
    version: int
    fitted_at: int
    drifted: int
    counts: tuple[int, ...]
    last: list[tuple[str, int]]
    stay: tuple[int, int]
    shares: dict[Forecaster, float]
    level: float
    logits: _Scaling | None
    hidden: _Probe | None
    biases: dict[Forecaster, list[tuple[str, bytes]]]
    examples: list[Example]


def write_head(head: Head, subject: Subject) -> bytes:
    """The head as bytes; the same head gives the same bytes."""
    assert len(subject.choices) == head.n_choices, subject
    logits, probe = head.weights.logits, head.weights.hidden
    file = _File(
        subject=subject,
        version=head.version,
        fitted_at=head.fitted_at,
        drifted=head.drifted,
        counts=tuple(int(count) for count in head.counts),
        last=list(head.last.items()),
        stay=(head.stay[0], head.stay[1]),
        shares=head.shares,
        level=head.sets.level,
        logits=None if logits is None else _scaling_out(logits),
        hidden=None
        if probe is None
        else _Probe(_out(probe.weights), _out(probe.offset), _scaling_out(probe.scaling)),
        biases={
            name: [(session, _out(row)) for session, row in bias.by_session.items()]
            for name, bias in head.biases.items()
        },
        examples=list(head.examples),
    )
    body = msgspec.msgpack.encode(file)
    return MAGIC + bytes([FORMAT]) + hashlib.sha256(body).digest() + body


def read_head(data: bytes, subject: Subject | None = None) -> tuple[Head, Subject]:
    """The head in the bytes, and what it is of. Raises RequestError for bytes that are no
    head, are damaged, or are a head of something else than `subject`."""
    start = len(MAGIC) + 1 + hashlib.sha256().digest_size
    if len(data) > BYTES_MAX or not data.startswith(MAGIC) or len(data) < start:
        raise RequestError(f"expected a flashfeed head of at most {BYTES_MAX} bytes")
    if data[len(MAGIC)] != FORMAT:
        raise RequestError(f"expected a head of format {FORMAT}, got {data[len(MAGIC)]}")
    body = data[start:]
    if hashlib.sha256(body).digest() != data[len(MAGIC) + 1 : start]:
        raise RequestError("expected a whole head, its SHA-256 is another: the file is damaged")
    try:
        file = msgspec.msgpack.decode(body, type=_File)
        head = _made(file)
    except (msgspec.MsgspecError, ValueError) as error:
        raise RequestError(f"expected a flashfeed head: {error}") from None
    if subject is not None and file.subject != subject:
        raise RequestError(f"expected a head of {subject}, got one of {file.subject}")
    return head, file.subject


def _made(file: _File) -> Head:
    k = len(file.subject.choices)
    _check(k >= 2 and len(file.counts) == k and min(file.counts) >= 0, "as many counts as choices")
    _check(len(file.examples) <= EXAMPLES_MAX, f"at most {EXAMPLES_MAX} examples")
    _check(len(file.last) <= SESSIONS_MAX, f"at most {SESSIONS_MAX} sessions")
    _check(all(0 <= label < k for _, label in file.last), "labels among the choices")
    _check(min(file.version, file.fitted_at, file.drifted) >= 0, "numbers from 0 on")
    _check(0 <= file.stay[0] <= file.stay[1], "labels that came again, of those that could")
    _check(0 <= file.level <= LEVEL_MAX, f"a level up to {LEVEL_MAX}")
    fitted = {"logits": file.logits, "hidden": file.hidden}
    shared = {"base_rate", "persistence", "prior", *(name for name in fitted if fitted[name])}
    _check(set(file.shares) == shared, f"weights of {', '.join(sorted(shared))}")
    _check(abs(sum(file.shares.values()) - 1) < 1e-6, "weights that add up to 1")
    _check(min(file.shares.values()) > 0, "weights above 0")
    head = Head(k, file.version, file.fitted_at, file.drifted)
    head.counts = np.array(file.counts, np.int64)
    head.last = OrderedDict(file.last)
    head.stay = list(file.stay)
    head.shares = dict(file.shares)
    head.sets.level = file.level
    head.weights = Weights(
        None if file.logits is None else _scaling_in(file.logits, k),
        None if file.hidden is None else _probe_in(file.hidden, k),
    )
    for name, rows in file.biases.items():
        _check(name in head.biases and len(rows) <= SESSIONS_MAX, "biases of known forecasters")
        for session, row in rows:
            head.biases[name].by_session[session] = _in(row, (k,))
    sizes = {len(one.features.hidden) for one in file.examples} - {0}
    _check(len(sizes) <= 1 and all(not n % 2 and n <= 2 * HIDDEN_MAX for n in sizes), "one size")
    if head.weights.hidden is not None and sizes:  # of two bytes a number
        size = len(head.weights.hidden.weights)
        _check(sizes == {2 * size}, f"hidden states of {size} numbers, as the probe has weights")
    for example in file.examples:
        _check_example(example, k)
    head.examples = deque(file.examples, maxlen=EXAMPLES_MAX)
    return head


def _check_example(example: Example, k: int) -> None:
    features, prediction = example.features, example.prediction
    _check(0 <= example.label < k, "a label among the choices")
    _check(prediction.by in prediction.parts, "the forecast that was published")
    for row in (features.logs, *prediction.parts.values()):
        _check(len(row) == k and _finite(row), "a finite number for each choice")
    _check(all(0 <= choice < k for choice in prediction.answers), "answers among the choices")
    _check(bool(np.isfinite(hidden_row(features)).all()), "finite hidden states")


def _finite(numbers: Iterable[float]) -> bool:
    return all(map(math.isfinite, numbers))


def _check(good: bool, expected: str) -> None:
    if not good:
        raise ValueError(f"expected {expected}")


def _out(array: Matrix) -> bytes:
    return np.ascontiguousarray(array, "<f8").tobytes()


def _in(data: bytes, shape: tuple[int, ...]) -> Matrix:
    _check(len(data) == 8 * int(np.prod(shape)), f"{shape} numbers")
    array = np.frombuffer(data, "<f8").astype(np.float64).reshape(shape)
    _check(bool(np.isfinite(array).all()), "finite numbers")
    return array


def _scaling_out(scaling: Scaling) -> _Scaling:
    return _Scaling(scaling.slope, _out(scaling.bias))


def _scaling_in(scaling: _Scaling, k: int) -> Scaling:
    _check(math.isfinite(scaling.slope), "a finite slope")
    return Scaling(scaling.slope, _in(scaling.bias, (k,)))


def _probe_in(probe: _Probe, k: int) -> Probe:
    rows = len(probe.weights) // (8 * k)
    _check(rows <= HIDDEN_MAX, "fewer weights")
    weights = _in(probe.weights, (rows, k))
    return Probe(weights, _in(probe.offset, (k,)), _scaling_in(probe.scaling, k))
