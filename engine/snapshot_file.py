"""A session's KV cache as a file: what is in it, and whether it is to be believed. Pure.

llama.cpp checks of a saved state the number of layers, the type and size of a row and
that it does not end early; not which model it was computed by, nor with which tokens,
nor the numbers in it. An altered position loads without a word, and what is decoded
after it is wrong or refused. So nothing reaches it that does not carry our own
authentication code:

    magic "FFKV", version u32, header bytes u32     little-endian
    header                                          JSON of SnapshotHeader
    HMAC-SHA256 of all before it                    32 bytes
    the sequences' states, one after another

The header holds a digest of every state, so the code vouches for them too, and a
reader knows before the big read whether the file is its own, of which session and how
long. A state's digest is the SHA-256 of the SHA-256 of each CHUNK_BYTES of it, so that
several threads can compute it; its length is in the header, so no two states share one.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from flashfeed.models.errors import EngineError

MAGIC: Final = b"FFKV"
FORMAT_VERSION: Final = 1
PRELUDE_BYTES: Final = 12
MAC_BYTES: Final = 32
HEADER_BYTES_MAX: Final = 1 << 16
SECRET_BYTES_MIN: Final = 16
CHUNK_BYTES: Final = 1 << 20

_PRELUDE: Final = struct.Struct("<4sII")

Refusal: TypeAlias = Literal[
    "format", "truncated", "hmac", "digest", "session", "model", "spec", "engine", "kv_type",
    "tokens", "unreadable",
]  # fmt: skip
"""Why a snapshot is refused.

format      no snapshot, or one of another format version
truncated   shorter or longer than its header says
hmac        not written with this secret, or its header was altered
digest      the header is ours, the states are not what it vouches for
session     another tenant's or session's
model       computed by another model file
spec        made under another session spec
engine      made by another build of llama.cpp
kv_type     the cache's number type or layout (flash attention) is another
tokens      it holds other tokens than expected
unreadable  the file cannot be read
"""


class SnapshotRefused(EngineError):
    """A snapshot that must not be loaded; the session is rebuilt by decoding instead.

    `reason` is the stable short name of why (here, unlike in other errors, no dead
    letter's reason: the session goes on).
    """

    retriable = False

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(f"snapshot refused ({reason}): {message}")
        self.reason: Refusal = reason


class SnapshotIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose snapshot it is and what computed it: equal to the reader's own, or refused.

    `type_k` and `type_v` are ggml type numbers; with flash attention the values lie in
    the cache the other way round. `engine` names the build of llama.cpp.
    """

    tenant: str
    session_id: str
    model_hash: str
    spec_hash: str
    engine: str
    type_k: int
    type_v: int
    flash_attention: bool


_REASONS: Final[dict[str, Refusal]] = {
    "tenant": "session",
    "session_id": "session",
    "model_hash": "model",
    "spec_hash": "spec",
    "engine": "engine",
    "type_k": "kv_type",
    "type_v": "kv_type",
    "flash_attention": "kv_type",
}

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class SavedSequence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sequence's state: its tokens and the digest of the `n_bytes` that hold their KV."""

    name: str
    n_tokens: _Count
    tokens_hash: str
    n_bytes: _Count
    digest: bytes


class SnapshotHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a snapshot but the states. `count` items were ever applied, `start` is the
    first one that the window still held."""

    identity: SnapshotIdentity
    count: _Count
    start: _Count
    created_ms: int
    sequences: tuple[SavedSequence, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of all states together."""
        return sum(saved.n_bytes for saved in self.sequences)

    def sequence(self, name: str) -> SavedSequence | None:
        """The sequence of that name ("senior", "junior"), if it was saved."""
        return next((saved for saved in self.sequences if saved.name == name), None)


def tokens_hash(tokens: Iterable[int]) -> str:
    """SHA-256 in hex of the token ids as 32-bit integers of this machine."""
    return hashlib.sha256(array("i", tokens)).hexdigest()


def chunk_digest(chunk: bytes | memoryview) -> bytes:
    """The digest of at most CHUNK_BYTES; hashlib lets other threads run meanwhile."""
    return hashlib.sha256(chunk).digest()


def joined_digest(chunk_digests: Iterable[bytes]) -> bytes:
    """A state's digest from those of its chunks, in order."""
    return hashlib.sha256(b"".join(chunk_digests)).digest()


def saved_sequence(
    name: str, tokens: Sequence[int], n_bytes: int, chunk_digests: Iterable[bytes]
) -> SavedSequence:
    """What the header says of a sequence that holds `tokens`."""
    return SavedSequence(
        name=name,
        n_tokens=len(tokens),
        tokens_hash=tokens_hash(tokens),
        n_bytes=n_bytes,
        digest=joined_digest(chunk_digests),
    )


def seal(secret: bytes, header: SnapshotHeader) -> bytes:
    """The file's beginning, up to the first state.

    Raises ValueError where the header is longer than a reader would take.
    """
    body = msgspec.json.encode(header)
    if len(body) > HEADER_BYTES_MAX:
        raise ValueError(
            f"expected a snapshot header of at most {HEADER_BYTES_MAX} bytes, got {len(body)}"
        )
    signed = _PRELUDE.pack(MAGIC, FORMAT_VERSION, len(body)) + body
    return signed + _mac(secret, signed)


def sealed_bytes(prelude: bytes) -> int:
    """Bytes from the file's start to the first state, at most some 64 KiB, as the first
    PRELUDE_BYTES say; they are not yet to be believed. Raises SnapshotRefused."""
    if len(prelude) < PRELUDE_BYTES:
        raise SnapshotRefused("truncated", f"expected {PRELUDE_BYTES} bytes, got {len(prelude)}")
    magic, version, header_bytes = _PRELUDE.unpack_from(prelude)
    if magic != MAGIC:
        raise SnapshotRefused("format", f"expected a file that begins with {MAGIC!r}")
    if version != FORMAT_VERSION:
        raise SnapshotRefused("format", f"expected version {FORMAT_VERSION}, got {version}")
    if header_bytes > HEADER_BYTES_MAX:
        raise SnapshotRefused(
            "format", f"expected a header of at most {HEADER_BYTES_MAX} bytes, got {header_bytes}"
        )
    return PRELUDE_BYTES + int(header_bytes) + MAC_BYTES


def unseal(secret: bytes, sealed: bytes, file_bytes: int) -> SnapshotHeader:
    """The header, authenticated, of a file `file_bytes` long. Raises SnapshotRefused.

    The states are not checked by this: compare each with `check_digest`.
    """
    expected = sealed_bytes(sealed)
    if len(sealed) != expected:
        raise SnapshotRefused("truncated", f"expected {expected} bytes, got {len(sealed)}")
    signed, mac = sealed[:-MAC_BYTES], sealed[-MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, signed)):
        raise SnapshotRefused("hmac", "written with another secret, or altered")
    try:
        header = msgspec.json.decode(signed[PRELUDE_BYTES:], type=SnapshotHeader)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SnapshotRefused("format", f"its header: {error}") from error
    if file_bytes != expected + header.n_bytes:
        raise SnapshotRefused(
            "truncated", f"expected {expected + header.n_bytes} bytes, got {file_bytes}"
        )
    return header


def check_identity(header: SnapshotHeader, expected: SnapshotIdentity) -> None:
    """Raises SnapshotRefused where the snapshot is not the reader's own kind."""
    for field, reason in _REASONS.items():
        got, want = getattr(header.identity, field), getattr(expected, field)
        if got != want:
            raise SnapshotRefused(reason, f"expected {field} {want!r}, got {got!r}")


def check_tokens(saved: SavedSequence, tokens: Sequence[int]) -> None:
    """Raises SnapshotRefused where the sequence holds other tokens than these."""
    if saved.n_tokens != len(tokens):
        raise SnapshotRefused(
            "tokens", f"expected {len(tokens)} tokens in {saved.name!r}, got {saved.n_tokens}"
        )
    if saved.tokens_hash != tokens_hash(tokens):
        raise SnapshotRefused("tokens", f"{saved.name!r} holds {saved.n_tokens} other tokens")


def check_digest(saved: SavedSequence, chunk_digests: Iterable[bytes]) -> None:
    """Raises SnapshotRefused where the state's chunks are not those that were saved."""
    if not hmac.compare_digest(saved.digest, joined_digest(chunk_digests)):
        raise SnapshotRefused("digest", f"the state of {saved.name!r} was altered")


def _mac(secret: bytes, signed: bytes) -> bytes:
    # A key of its own, so that a secret used elsewhere too signs nothing else by this.
    key = hmac.digest(secret, b"flashfeed snapshot", "sha256")
    return hmac.digest(key, signed, "sha256")
