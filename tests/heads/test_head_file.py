"""A head's file: whole again, as it was; and no file but its own kind and subject is taken."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from flashfeed.heads.head_file import FORMAT, MAGIC, Subject, read_head, write_head
from flashfeed.heads.learner import Head
from flashfeed.models.errors import RequestError

from .synthetic import stream, taught

NAN = float("nan")
SUBJECT = Subject("model-a", "spec-a", "Up?", ("no", "yes"))


@pytest.fixture(scope="module")
def head() -> Head:
    one = Head(2)
    taught(one, stream(120, 1.0, 1.0))
    return one


def test_a_head_goes_on_from_its_file_as_if_it_had_never_left(head: Head) -> None:
    data = write_head(head, SUBJECT)
    again, subject = read_head(data, SUBJECT)
    assert subject == SUBJECT
    assert write_head(again, SUBJECT) == data
    for one in (again, read_head(data)[0]):
        other, _ = read_head(data)
        assert taught(one, stream(60, 1.0, 1.0, 9)) == taught(other, stream(60, 1.0, 1.0, 9))


@pytest.mark.parametrize(
    "change",
    [{"model": "model-b"}, {"spec": "spec-b"}, {"query": "Down?"}, {"choices": ("yes", "no")}],
)
def test_a_head_of_another_subject_is_refused(head: Head, change: dict[str, object]) -> None:
    other = msgspec.structs.replace(SUBJECT, **change)
    with pytest.raises(RequestError, match="expected a head of"):
        read_head(write_head(head, SUBJECT), other)


def test_what_is_no_head_or_damaged_is_refused(head: Head) -> None:
    data = write_head(head, SUBJECT)
    with pytest.raises(RequestError, match="expected a flashfeed head"):
        read_head(b"PK\x03\x04" + data)
    with pytest.raises(RequestError, match="expected a flashfeed head"):
        read_head(data[: len(MAGIC) + 5])
    with pytest.raises(RequestError, match="format 1, got 9"):
        read_head(MAGIC + bytes([9]) + data[len(MAGIC) + 1 :])
    for damaged in (data[:-1], data[:-9] + b"\x00" + data[-8:], data + b"x"):
        with pytest.raises(RequestError, match="damaged"):
            read_head(damaged)


def sealed(fields: dict[str, object]) -> bytes:
    """Bytes whose checksum is right, whatever is in them."""
    body = msgspec.msgpack.encode(fields)
    return MAGIC + bytes([FORMAT]) + hashlib.sha256(body).digest() + body


@pytest.mark.parametrize(
    "change",
    [
        {"counts": (1, 2, 3)},
        {"last": [("a", 7)]},
        {"shares": {"somebody": 1.0}},
        {"shares": {"base_rate": 1.0}},
        {"shares": dict.fromkeys(("base_rate", "persistence", "prior", "logits", "hidden"), 0.3)},
        {"shares": dict.fromkeys(("base_rate", "persistence", "prior", "logits", "hidden"), NAN)},
        {"logits": (1.0, b"\x00" * 24)},
        {"logits": (1.0, b"\xff" * 16)},
        {"hidden": (b"\x00" * 80, b"\x00" * 8, (1.0, b"\x00" * 16))},
        {"hidden": (b"\x00" * 48, b"\x00" * 16, (1.0, b"\x00" * 16))},
        {"biases": {"prior": []}},
        {"examples": [("a", ((0.0, 0.0, 0.0), b""), 0, ("prior", 0, {"prior": (0.5, 0.5)}, ()))]},
        {"examples": [("a", ((0.0, 0.0), b""), 5, ("prior", 0, {"prior": (0.5, 0.5)}, ()))]},
        {"examples": [("a", ((0.0, 0.0), b"abc"), 0, ("prior", 0, {"prior": (0.5, 0.5)}, ()))]},
        {"version": -1},
        {"level": float("nan")},
    ],
)
def test_numbers_that_do_not_belong_together_are_refused(
    head: Head, change: dict[str, object]
) -> None:
    body = write_head(head, SUBJECT)[len(MAGIC) + 1 + 32 :]
    fields = msgspec.msgpack.decode(body)
    assert read_head(sealed(fields))[1] == SUBJECT
    with pytest.raises(RequestError):
        read_head(sealed(fields | change))
