"""A replay's events in a file, or on standard output: JSON Lines, or Parquet by the file's name."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from flashfeed.agents.replay_sessions import ReplayOut
from flashfeed.models.errors import ConfigError
from flashfeed.models.events import event_identity, event_type
from flashfeed.models.views import SessionEvent

PARQUET: Final = ".parquet"


def line(event: SessionEvent) -> bytes:
    """An event as a line: its CloudEvents type and id, and its value."""
    whole = {"event": event_type(event), "id": event_identity(event), "data": event}
    return msgspec.json.encode(whole) + b"\n"


class JsonLines:
    """Events as JSON, one a line; whole lines, whenever it ends."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    async def write(self, events: Sequence[SessionEvent]) -> None:
        """Write them."""
        self._file.write(b"".join(map(line, events)))


class Nowhere:
    """Events that nobody wants."""

    async def write(self, events: Sequence[SessionEvent]) -> None:
        """Let them go."""


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[ReplayOut]:
    """The file as an output, closed after it; None: standard output. Raises ConfigError where
    it cannot be made: one that is there is nobody's to write over."""
    if path is None:
        yield JsonLines(sys.stdout.buffer)
        return
    parquet = path.suffix == PARQUET
    if parquet:
        from .replay_parquet import ParquetOut, check_pyarrow

        check_pyarrow()
    try:
        file = path.open("xb")
    except OSError as error:
        raise ConfigError(f"--out {path}: expected a file to make: {error.strerror}") from None
    with file:
        if not parquet:
            yield JsonLines(file)
            return
        out = ParquetOut(file)
        try:
            yield out
        finally:
            out.close()
