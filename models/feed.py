"""How messages of an existing topic become records: the mapping as a value.

The grammar is `codecs/mapping.py`'s business; here is only its shape.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from .records import Record, RecordType


class PivotSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a record's items are, and the paths inside one."""

    items: str = "."
    name: str
    value: str
    unit: str | None = None


class MappingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One mapping table, as it stands in a preset's file or in a feed's configuration.

    `root` goes to a part of the value first, `each` fans out over an array or object,
    `when` skips what does not match (a counted skip, no fault), `key` says which
    session a record belongs to, `time` its event time (`path:unit`), `final` whether
    a bar is closed (not final: skipped), `map` the record's fields, `units` the units of
    those that come in others than the field's. `unwrap` takes an envelope off before all
    that (codecs/unwrap.py); with `pivot` a record is made of items with a name each, and
    `map` holds their names (codecs/pivot.py).
    """

    model: RecordType
    key: str
    time: str | None = None
    root: str | None = None
    each: str | None = None
    when: dict[str, Any] = {}
    final: str | None = None
    map: dict[str, str] = {}
    units: dict[str, str | float] = {}
    unwrap: Literal["debezium", "connect", "cloudevents", "ksql"] | None = None
    pivot: PivotSpec | None = None


Keyed: TypeAlias = tuple[str, dict[str, Any]]
"""The session key and the fields of a valid record, ready for JSON."""


class MappedRecord(msgspec.Struct, frozen=True, gc=False):
    """A record that came out of a message, and the session key it belongs to.

    `index` is its place in the message (0 where a message is one record).
    """

    key: str
    index: int
    record: Record


class Fault(msgspec.Struct, frozen=True):
    """Why a message, or one record in it, could not be used."""

    reason: str
    path: str
    detail: str
    index: int | None = None


Outcome: TypeAlias = Keyed | Fault | None
"""What became of one part of a message; None where a rule skips it."""


class Mapped(msgspec.Struct, frozen=True, gc=False):
    """What one message gave: records, faults, and how many parts were skipped by rule."""

    records: tuple[MappedRecord, ...] = ()
    faults: tuple[Fault, ...] = ()
    skipped: int = 0
