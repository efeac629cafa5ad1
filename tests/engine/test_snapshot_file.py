"""The format: what was sealed is read back; nothing else is believed."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.engine.snapshot_file import (
    HEADER_BYTES_MAX,
    PRELUDE_BYTES,
    SavedSequence,
    SnapshotHeader,
    SnapshotIdentity,
    SnapshotRefused,
    check_digest,
    check_identity,
    check_tokens,
    chunk_digest,
    saved_sequence,
    seal,
    sealed_bytes,
    unseal,
)

SECRET = b"0123456789abcdef0123456789abcdef"
IDENTITY = SnapshotIdentity(
    tenant="acme",
    session_id="AAPL",
    model_hash="m" * 64,
    spec_hash="s" * 64,
    engine="llama-cpp-python 0.3.36",
    type_k=1,
    type_v=1,
    flash_attention=False,
)
TOKENS = (5, 6, 7)
STATE = b"keys and values"


def header() -> SnapshotHeader:
    saved = saved_sequence("senior", TOKENS, len(STATE), [chunk_digest(STATE)])
    return SnapshotHeader(identity=IDENTITY, count=9, start=4, created_ms=1, sequences=(saved,))


SEALED = seal(SECRET, header())
FILE_BYTES = len(SEALED) + len(STATE)


def refusal(sealed: bytes, file_bytes: int = FILE_BYTES, secret: bytes = SECRET) -> str:
    with pytest.raises(SnapshotRefused) as refused:
        unseal(secret, sealed, file_bytes)
    assert refused.value.reason in str(refused.value)
    return refused.value.reason


def test_a_sealed_header_is_read_back() -> None:
    assert sealed_bytes(SEALED[:PRELUDE_BYTES]) == len(SEALED)
    assert unseal(SECRET, SEALED, FILE_BYTES) == header()


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(at: int, change: int) -> None:
    altered = bytearray(SEALED)
    altered[at] ^= change
    assert refusal(bytes(altered)) in {"format", "truncated", "hmac"}


@given(st.integers(0, len(SEALED) - 1))
def test_a_header_cut_short_is_refused(n: int) -> None:
    assert refusal(SEALED[:n]) == "truncated"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert refusal(data) in {"format", "truncated", "hmac"}
    prelude = SEALED[:PRELUDE_BYTES]
    assert refusal(prelude + data) in {"truncated", "hmac"}


@pytest.mark.parametrize("file_bytes", [0, len(SEALED), FILE_BYTES - 1, FILE_BYTES + 1, 1 << 40])
def test_a_file_of_another_length_is_refused(file_bytes: int) -> None:
    assert refusal(SEALED, file_bytes) == "truncated"


def test_another_secret_is_refused() -> None:
    assert refusal(SEALED, secret=b"x" * 32) == "hmac"


def test_another_version_is_refused() -> None:
    assert refusal(SEALED[:4] + struct.pack("<I", 2) + SEALED[8:]) == "format"


def test_an_enormous_header_is_refused_before_it_is_read() -> None:
    with pytest.raises(SnapshotRefused) as refused:
        sealed_bytes(SEALED[:8] + struct.pack("<I", 0xFFFFFFFF))
    assert refused.value.reason == "format"


def test_a_header_no_reader_would_take_is_not_sealed() -> None:
    long = msgspec.structs.replace(IDENTITY, session_id="x" * HEADER_BYTES_MAX)
    with pytest.raises(ValueError, match="at most 65536"):
        seal(SECRET, msgspec.structs.replace(header(), identity=long))


def test_a_signed_header_of_other_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later writer of the same version number, say."""
    monkeypatch.setattr(msgspec.json, "encode", lambda _: b'{"count":-1}')
    sealed = seal(SECRET, header())
    monkeypatch.undo()
    assert refusal(sealed, len(sealed)) == "format"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("tenant", "other", "session"),
        ("session_id", "MSFT", "session"),
        ("model_hash", "n" * 64, "model"),
        ("spec_hash", "t" * 64, "spec"),
        ("engine", "llama-cpp-python 0.3.37", "engine"),
        ("type_k", 8, "kv_type"),
        ("type_v", 8, "kv_type"),
        ("flash_attention", True, "kv_type"),
    ],
)
def test_another_identity_is_refused_with_its_reason(
    field: str, value: object, reason: str
) -> None:
    check_identity(header(), IDENTITY)
    with pytest.raises(SnapshotRefused) as refused:
        check_identity(header(), msgspec.structs.replace(IDENTITY, **{field: value}))
    assert refused.value.reason == reason


def test_every_field_of_the_identity_is_compared() -> None:
    for field in SnapshotIdentity.__struct_fields__:
        other = msgspec.structs.replace(IDENTITY, **{field: object()})
        with pytest.raises(SnapshotRefused):
            check_identity(header(), other)


@pytest.mark.parametrize("tokens", [(), (5, 6), (5, 6, 8), (5, 6, 7, 8)])
def test_other_tokens_are_refused(tokens: tuple[int, ...]) -> None:
    saved = header().sequences[0]
    check_tokens(saved, TOKENS)
    with pytest.raises(SnapshotRefused) as refused:
        check_tokens(saved, tokens)
    assert refused.value.reason == "tokens"


@given(st.integers(0, len(STATE) - 1), st.integers(1, 255))
def test_an_altered_state_is_refused(at: int, change: int) -> None:
    saved = header().sequences[0]
    check_digest(saved, [chunk_digest(STATE)])
    altered = bytearray(STATE)
    altered[at] ^= change
    with pytest.raises(SnapshotRefused) as refused:
        check_digest(saved, [chunk_digest(bytes(altered))])
    assert refused.value.reason == "digest"


def test_chunks_in_another_order_are_another_state() -> None:
    ab = saved_sequence("senior", TOKENS, 2, [chunk_digest(b"a"), chunk_digest(b"b")])
    with pytest.raises(SnapshotRefused):
        check_digest(ab, [chunk_digest(b"b"), chunk_digest(b"a")])


def test_a_sequence_is_found_by_its_name() -> None:
    assert isinstance(header().sequence("senior"), SavedSequence)
    assert header().sequence("junior") is None
