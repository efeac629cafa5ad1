"""A replay's events as a Parquet file: one row an event, both kinds in one table.

Written in row groups of ROWS_MAX, so that no more than those are in memory. Its end is written
when it is closed, also where the replay is interrupted; a process that is killed leaves a file
that cannot be read. docs/REPLAY.md has the columns; what a kind of event has not is null.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, BinaryIO, Final

import msgspec

from flashfeed.models.errors import ConfigError
from flashfeed.models.events import DataUpdated, FlashReady, event_identity, event_type
from flashfeed.models.views import SessionEvent

ROWS_MAX: Final = 10_000

Row = dict[str, Any]


def check_pyarrow() -> None:
    """Raises ConfigError where Parquet cannot be written."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            "--out FILE.parquet: pyarrow is not installed; try: pip install 'flashfeed[parquet]'"
        )


def schema() -> Any:
    """The columns, as a pyarrow schema."""
    import pyarrow as pa

    shares = pa.map_(pa.string(), pa.float64())
    origin = [("topic", pa.string()), ("partition", pa.int32())]
    origin += [("first", pa.int64()), ("last", pa.int64())]
    time = pa.timestamp("ms", tz="UTC")
    always = [
        ("event", pa.string()),
        ("id", pa.string()),
        ("session_id", pa.string()),
        ("type", pa.string()),
        ("data_version", pa.int64()),
        ("event_time", time),
        ("at", time),
        ("origins", pa.list_(pa.struct(origin))),
        ("records_first", pa.int64()),
        ("records_last", pa.int64()),
    ]
    flash_ready = [
        ("query_id", pa.int32()),
        ("name", pa.string()),
        ("query", pa.string()),
        ("value", pa.string()),
        ("confidence", pa.float64()),
        ("logit_gap", pa.float64()),
        ("probabilities", shares),
        ("previous", pa.string()),
        ("changed", pa.bool_()),
        ("raw_value", pa.string()),
        ("raw_confidence", pa.float64()),
        ("raw_logit_gap", pa.float64()),
        ("raw_probabilities", shares),
        ("model", pa.string()),
        ("spec", pa.string()),
    ]
    data_updated = [
        ("data_count", pa.int64()),
        ("tokens", pa.int64()),
        ("decoded_tokens", pa.int64()),
        ("n_tokens", pa.int64()),
        ("update_ms", pa.float64()),
        ("pending", pa.int64()),
    ]
    return pa.schema([*always, *flash_ready, *data_updated])


def row(event: SessionEvent) -> Row:
    """An event's columns. Pure."""
    answer = isinstance(event, FlashReady)
    columns: Row = {
        "event": event_type(event),
        "id": event_identity(event),
        "session_id": event.session_id,
        "type": event.type,
        "data_version": event.data_version,
        "event_time": _time(event.event_time),
        "at": _time(event.evaluated_at if isinstance(event, FlashReady) else event.updated_at),
        "origins": msgspec.to_builtins(event.origins),
        "records_first": event.records_first,
        "records_last": event.records_last,
    }
    return columns | (_answer(event) if answer else _update(event))


def _answer(event: SessionEvent) -> Row:
    assert isinstance(event, FlashReady)
    raw = event.raw
    return {
        "query_id": event.id,
        "name": event.name,
        "query": event.query,
        "value": event.value,
        "confidence": event.confidence,
        "logit_gap": event.logit_gap,
        "probabilities": list(event.probabilities.items()),
        "previous": event.previous,
        "changed": event.changed,
        "raw_value": raw.value if raw else None,
        "raw_confidence": raw.confidence if raw else None,
        "raw_logit_gap": raw.logit_gap if raw else None,
        "raw_probabilities": list(raw.probabilities.items()) if raw else None,
        "model": event.answered_by.model,
        "spec": event.answered_by.spec,
    }


def _update(event: SessionEvent) -> Row:
    assert isinstance(event, DataUpdated)
    return {
        "data_count": event.data_count,
        "tokens": event.tokens,
        "decoded_tokens": event.decoded_tokens,
        "n_tokens": event.n_tokens,
        "update_ms": event.update_ms,
        "pending": event.pending,
    }


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


class ParquetOut:
    """Writes events into an open file, a row group whenever there are enough."""

    def __init__(self, file: BinaryIO, rows_max: int = ROWS_MAX) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = schema()
        self._writer: Any = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._table: Callable[..., Any] = pa.Table.from_pylist
        self._rows_max = rows_max
        self._rows: list[Row] = []

    async def write(self, events: Sequence[SessionEvent]) -> None:
        """Keep them, and write what is enough."""
        self._rows.extend(map(row, events))
        if len(self._rows) >= self._rows_max:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the file's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._writer.write_table(self._table(rows, schema=self._schema))
