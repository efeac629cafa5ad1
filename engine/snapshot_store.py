"""The folder of snapshots: one file a session, at most so many bytes, oldest used first out.

A snapshot is a cache: a lost one costs the decoding of a window. So nothing is synced
to the disk (what a power cut tears, the digests refuse), a file appears whole by a
rename or not at all, and a full disk is an error to log, no more. The bound counts
temporaries and the snapshot being replaced, so that the disk never holds more.

Several processes may share a folder. Names are hashes, since ids come from outside; the
folder is the owner's alone (0700), so are the files (0600). A file is read into
memory of ours before it is checked and used, never mapped: what was checked stays so.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from flashfeed.models.errors import ConfigError, EngineError

from .snapshot_file import (
    CHUNK_BYTES,
    PRELUDE_BYTES,
    SECRET_BYTES_MIN,
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
from .snapshot_secret import make_private

_SUFFIX: Final = ".ffkv"
_TEMPORARY: Final = ".tmp"
_THREADS: Final = min(4, os.cpu_count() or 1)


class SnapshotNotSaved(EngineError):
    """The snapshot could not be written: too big for the bound, or the disk is full or
    failed. Nothing is left of it, and an older one of the session may be gone."""


@dataclass(frozen=True, slots=True)
class State:
    """A sequence to save: its name, its tokens, and what llama.cpp gave for it."""

    name: str
    tokens: Sequence[int]
    data: memoryview


class SnapshotStore:
    """Saves and finds snapshots; every method may be called from any thread."""

    def __init__(self, folder: Path, secret: bytes, bytes_max: int) -> None:
        """Makes the folder where there is none and clears what crashes left in it.

        Raises ConfigError where the folder cannot be used, the secret is shorter than
        16 bytes, or `bytes_max` is negative.
        """
        if len(secret) < SECRET_BYTES_MIN:
            raise ConfigError(
                f"expected a snapshot secret of at least {SECRET_BYTES_MIN} bytes, "
                f"got {len(secret)}"
            )
        if bytes_max < 0:
            raise ConfigError(f"expected a bound of the snapshots >= 0 bytes, got {bytes_max}")
        make_private(folder)
        self.bytes_max: Final = bytes_max
        self._folder: Final = folder
        self._secret: Final = secret
        self._writing: Final = threading.Lock()
        _clear_temporaries(folder)

    def save(
        self,
        identity: SnapshotIdentity,
        states: Sequence[State],
        *,
        count: int,
        start: int,
        now_ms: int,
    ) -> SnapshotHeader:
        """Writes a session's snapshot in place of the one before. Raises SnapshotNotSaved."""
        header = SnapshotHeader(
            identity=identity,
            count=count,
            start=start,
            created_ms=now_ms,
            sequences=tuple(_described(state) for state in states),
        )
        try:
            beginning = seal(self._secret, header)
        except ValueError as error:
            raise SnapshotNotSaved(str(error)) from error
        path = self._path(identity.tenant, identity.session_id)
        with self._writing:
            try:
                self._make_room(path, len(beginning) + header.n_bytes)
                self._write(path, (memoryview(beginning), *(state.data for state in states)))
            except OSError as error:
                raise SnapshotNotSaved(f"cannot write a snapshot to {path}: {error}") from error
        return header

    @contextlib.contextmanager
    def open(self, expected: SnapshotIdentity) -> Iterator[StoredSnapshot | None]:
        """The session's snapshot with its header checked and its states yet unread; None
        where there is none. Raises SnapshotRefused."""
        path = self._path(expected.tenant, expected.session_id)
        descriptor = None
        try:
            # Not a link's target; and opening a pipe that somebody put there does not wait.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SnapshotRefused("unreadable", f"{path}: {error}") from error
        if descriptor is None:
            yield None
            return
        try:
            yield _opened(descriptor, self._secret, expected)
        finally:
            os.close(descriptor)

    def delete(self, tenant: str, session_id: str) -> None:
        """Removes a session's snapshot, if there is one and it can be removed."""
        with contextlib.suppress(OSError):
            self._path(tenant, session_id).unlink()

    @property
    def bytes_used(self) -> int:
        """Bytes of all snapshots, temporaries included."""
        return sum(size for _, size, _ in self._files())

    def _path(self, tenant: str, session_id: str) -> Path:
        # JSON keeps the two apart: ("a", "bc") and ("ab", "c") have different names.
        key = json.dumps((tenant, session_id))
        return self._folder / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)

    def _files(self) -> list[tuple[int, int, Path]]:
        """(last used in ns, bytes, path) of every snapshot and temporary."""
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith((_SUFFIX, _TEMPORARY)):
                    # Another process may have removed it meanwhile.
                    with contextlib.suppress(FileNotFoundError):
                        known = entry.stat(follow_symlinks=False)
                        files.append((known.st_mtime_ns, known.st_size, Path(entry.path)))
        return files

    def _make_room(self, path: Path, n_bytes: int) -> None:
        """Removes snapshots until `n_bytes` more fit; first the one that is replaced."""
        if n_bytes > self.bytes_max:
            raise SnapshotNotSaved(
                f"expected a snapshot of at most {self.bytes_max} bytes "
                f"(the bound of the folder), got {n_bytes}"
            )
        files = self._files()
        used = sum(size for _, size, _ in files)
        files.sort(key=lambda file: (file[2] != path, file[0]))
        for _, size, old in files:
            if used + n_bytes <= self.bytes_max:
                return
            # A temporary is being written by another process.
            if old.suffix == _SUFFIX:
                old.unlink(missing_ok=True)
                used -= size
        if used + n_bytes > self.bytes_max:
            raise SnapshotNotSaved(f"no room for {n_bytes} bytes beside what is being written")

    def _write(self, path: Path, parts: Sequence[memoryview]) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, suffix=_TEMPORARY)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                # Held while it is written: what nobody holds was left by a crash.
                fcntl.flock(file, fcntl.LOCK_EX)
                for part in parts:
                    rest = part
                    while rest:
                        rest = rest[file.write(rest) :]
                os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


class StoredSnapshot:
    """A snapshot whose header is ours and as expected; the states are read on demand."""

    def __init__(self, descriptor: int, header: SnapshotHeader, offset: int) -> None:
        self.header: Final = header
        self._descriptor: Final = descriptor
        self._offset: Final = offset

    def read(self, tokens: Mapping[str, Sequence[int]]) -> dict[str, memoryview]:
        """The states of the named sequences, read and checked, whose tokens are these.

        The cost is that of one pass over the bytes by up to four threads, each hashing
        a chunk as it was read. Raises SnapshotRefused; also where one was not saved.
        """
        wanted = []
        offset = self._offset
        for saved in self.header.sequences:
            if saved.name in tokens:
                check_tokens(saved, tokens[saved.name])
                wanted.append((saved, offset))
            offset += saved.n_bytes
        missing = set(tokens) - {saved.name for saved, _ in wanted}
        if missing:
            raise SnapshotRefused("tokens", f"expected sequences {sorted(missing)}, got none")
        # Marks it as used now.
        with contextlib.suppress(OSError):
            os.utime(self._descriptor)
        with ThreadPoolExecutor(_THREADS) as threads:
            return {saved.name: self._state(saved, at, threads) for saved, at in wanted}

    def _state(self, saved: SavedSequence, offset: int, threads: ThreadPoolExecutor) -> memoryview:
        # The length is authenticated and the file was that long: memory is bounded by it.
        state = np.empty(saved.n_bytes, np.uint8).data

        def read_chunk(at: int) -> bytes:
            chunk = state[at : at + CHUNK_BYTES]
            _read_at(self._descriptor, chunk, offset + at)
            return chunk_digest(chunk)

        check_digest(saved, threads.map(read_chunk, range(0, saved.n_bytes, CHUNK_BYTES)))
        return state.toreadonly()


def _described(state: State) -> SavedSequence:
    chunks = (state.data[at : at + CHUNK_BYTES] for at in range(0, len(state.data), CHUNK_BYTES))
    with ThreadPoolExecutor(_THREADS) as threads:
        digests = list(threads.map(chunk_digest, chunks))
    return saved_sequence(state.name, state.tokens, len(state.data), digests)


def _opened(descriptor: int, secret: bytes, expected: SnapshotIdentity) -> StoredSnapshot:
    try:
        known = os.fstat(descriptor)
    except OSError as error:
        raise SnapshotRefused("unreadable", str(error)) from error
    if not stat.S_ISREG(known.st_mode):
        raise SnapshotRefused("unreadable", "expected a file")
    beginning = bytearray(min(PRELUDE_BYTES, known.st_size))
    _read_at(descriptor, memoryview(beginning), 0)
    sealed = bytearray(min(sealed_bytes(bytes(beginning)), known.st_size))
    _read_at(descriptor, memoryview(sealed), 0)
    header = unseal(secret, bytes(sealed), known.st_size)
    check_identity(header, expected)
    return StoredSnapshot(descriptor, header, len(sealed))


def _read_at(descriptor: int, target: memoryview, offset: int) -> None:
    """Fills the target. Raises SnapshotRefused."""
    rest = target
    while rest:
        try:
            n = os.preadv(descriptor, [rest], offset + len(target) - len(rest))
        except OSError as error:
            raise SnapshotRefused("unreadable", str(error)) from error
        if n == 0:
            raise SnapshotRefused("truncated", f"expected {len(rest)} more bytes")
        rest = rest[n:]


def _clear_temporaries(folder: Path) -> None:
    """Removes the temporaries that no living process is writing."""
    for path in folder.glob("*" + _TEMPORARY):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
