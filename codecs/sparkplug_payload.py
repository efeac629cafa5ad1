"""Sparkplug B's payload: its Protobuf message, and what a metric's value means.

The message is built here from its field numbers (Sparkplug 3.0.0, section 6.4; the schema
is eclipse/tahu's sparkplug_b.proto). Property sets, data sets and templates are read as far
as plain values go: a data set as its columns and rows, a template as its metrics.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from ..models.errors import DecodeFault

PAYLOAD_BYTES_MAX: Final = 4_000_000
ARRAY_ITEMS_MAX: Final = 100_000
DEPTH_MAX: Final = 8
_COMPRESSED: Final = "SPBV1.0_COMPRESSED"

# Bits of the signed integers, which travel as unsigned ones in two's complement.
_SIGNED: Final = {1: 8, 2: 16, 3: 32, 4: 64}
DATE_TIME: Final = 13
_BOOLEAN_ARRAY: Final = 32
_STRING_ARRAY: Final = 33
_ARRAYS: Final = {
    22: "b", 23: "h", 24: "i", 25: "q", 26: "B", 27: "H", 28: "I", 29: "Q", 30: "f", 31: "d",
    34: "q",
}  # fmt: skip

_Field = tuple[str, int, str]
# name, number, type; `*` is repeated, `?` one of the value's kinds, a capital a message.
_SCALARS: Final[tuple[tuple[str, str], ...]] = (
    ("int_value", "uint32"), ("long_value", "uint64"), ("float_value", "float"),
    ("double_value", "double"), ("boolean_value", "bool"), ("string_value", "string"),
)  # fmt: skip


def _values(first: int) -> list[_Field]:
    return [(name, first + place, f"?{kind}") for place, (name, kind) in enumerate(_SCALARS)]


_MESSAGES: Final[dict[str, list[_Field]]] = {
    "DataSetValue": _values(1),
    "Row": [("elements", 1, "*DataSetValue")],
    "DataSet": [
        ("num_of_columns", 1, "uint64"), ("columns", 2, "*string"), ("types", 3, "*uint32"),
        ("rows", 4, "*Row"),
    ],
    "Template": [
        ("version", 1, "string"), ("metrics", 2, "*Metric"), ("template_ref", 4, "string"),
        ("is_definition", 5, "bool"),
    ],
    "PropertyValue": [("type", 1, "uint32"), ("is_null", 2, "bool"), *_values(3)],
    "PropertySet": [("keys", 1, "*string"), ("values", 2, "*PropertyValue")],
    "Metric": [
        ("name", 1, "string"), ("alias", 2, "uint64"), ("timestamp", 3, "uint64"),
        ("datatype", 4, "uint32"), ("is_historical", 5, "bool"), ("is_transient", 6, "bool"),
        ("is_null", 7, "bool"), ("properties", 9, "PropertySet"), *_values(10),
        ("bytes_value", 16, "?bytes"), ("dataset_value", 17, "?DataSet"),
        ("template_value", 18, "?Template"),
    ],
    "Payload": [
        ("timestamp", 1, "uint64"), ("metrics", 2, "*Metric"), ("seq", 3, "uint64"),
        ("uuid", 4, "string"), ("body", 5, "bytes"),
    ],
}  # fmt: skip


def _file() -> FileDescriptorProto:
    kinds = {
        name: getattr(FieldDescriptorProto, f"TYPE_{name.upper()}")
        for name in ("uint32", "uint64", "float", "double", "bool", "string", "bytes")
    }
    file = FileDescriptorProto(name="sparkplug_b.proto", package="sparkplug_b", syntax="proto2")
    for message, fields in _MESSAGES.items():
        built = DescriptorProto(name=message)
        if any(kind.startswith("?") for _, _, kind in fields):
            built.oneof_decl.add(name="value")
        for name, number, kind in fields:
            field = built.field.add(name=name, number=number)
            bare = kind.lstrip("*?")
            field.label = (
                FieldDescriptorProto.LABEL_REPEATED
                if kind.startswith("*")
                else FieldDescriptorProto.LABEL_OPTIONAL
            )
            if kind.startswith("?"):
                field.oneof_index = 0
            if bare in kinds:
                field.type = kinds[bare]
            else:
                field.type = FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".sparkplug_b.{bare}"
        file.message_type.append(built)
    return file


def _payload_class() -> Any:
    pool = DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("sparkplug_b.Payload"))


Payload: Final = _payload_class()
"""The message class of a payload."""


def parse_payload(data: bytes) -> Any:
    """A payload, unpacked where it is compressed. Raises DecodeFault."""
    try:
        payload = Payload.FromString(data)
        if payload.uuid != _COMPRESSED:
            return payload
        algorithm = next(
            (one.string_value for one in payload.metrics if one.name == "algorithm"), "DEFLATE"
        )
        return Payload.FromString(_unpack(payload.body, algorithm.upper()))
    except (DecodeError, UnicodeDecodeError) as bad:
        raise DecodeFault(f"expected a Sparkplug B payload, got a fault: {bad}") from None


def _unpack(body: bytes, algorithm: str) -> bytes:
    bits = {"DEFLATE": zlib.MAX_WBITS, "GZIP": zlib.MAX_WBITS | 16}.get(algorithm)
    if bits is None:
        raise DecodeFault(f"expected algorithm DEFLATE or GZIP, got {algorithm[:40]!a}")
    unpacker = zlib.decompressobj(bits)
    try:
        data = unpacker.decompress(body, PAYLOAD_BYTES_MAX)
    except zlib.error as bad:
        raise DecodeFault(f"the compressed body cannot be read: {bad}") from None
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise DecodeFault(
            f"the compressed body is cut short, or of more than {PAYLOAD_BYTES_MAX} bytes"
        )
    return data


def metric_value(metric: Any, datatype: int, depth: int = 0) -> Any:
    """A metric's value; None where it is null or has none. Raises DecodeFault."""
    kind = metric.WhichOneof("value")
    if kind is None or metric.is_null:
        return None
    if kind == "dataset_value":
        return _data_set(metric.dataset_value)
    if kind == "template_value":
        if depth >= DEPTH_MAX:
            raise DecodeFault(f"templates nested deeper than {DEPTH_MAX}")
        return {
            one.name: metric_value(one, one.datatype, depth + 1)
            for one in metric.template_value.metrics
        }
    if kind == "bytes_value":
        return _array(metric.bytes_value, datatype)
    return scalar(getattr(metric, kind), datatype)


def properties(metric: Any) -> dict[str, Any]:
    """A metric's properties that are plain values."""
    found: dict[str, Any] = {}
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
        kind = value.WhichOneof("value")
        found[key] = (
            None if kind is None or value.is_null else scalar(getattr(value, kind), value.type)
        )
    return found


def scalar(value: Any, datatype: int) -> Any:
    """A value with its sign."""
    bits = _SIGNED.get(datatype)
    if bits is None or type(value) is not int:
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _data_set(data: Any) -> dict[str, Any]:
    kinds = list(data.types)
    rows = []
    for row in data.rows:
        cells = []
        for place, cell in enumerate(row.elements):
            kind = cell.WhichOneof("value")
            datatype = kinds[place] if place < len(kinds) else 0
            cells.append(None if kind is None else scalar(getattr(cell, kind), datatype))
        rows.append(cells)
    return {"columns": list(data.columns), "rows": rows}


def _array(data: bytes, datatype: int) -> Any:
    code = _ARRAYS.get(datatype)
    if code is not None:
        width = struct.calcsize(f"<{code}")
        if len(data) % width or len(data) // width > ARRAY_ITEMS_MAX:
            raise DecodeFault(
                f"expected an array of at most {ARRAY_ITEMS_MAX} items of {width} bytes, "
                f"got {len(data)} bytes"
            )
        return list(struct.unpack(f"<{len(data) // width}{code}", data))
    if datatype == _STRING_ARRAY:
        return data.decode("utf-8", "replace").rstrip("\0").split("\0") if data else []
    if datatype == _BOOLEAN_ARRAY:
        return _booleans(data)
    return data


def _booleans(data: bytes) -> list[bool]:
    """A 4-byte count, and the booleans as bits, the first highest."""
    count = int.from_bytes(data[:4], "little")
    if len(data) < 4 or count > ARRAY_ITEMS_MAX or (count + 7) // 8 != len(data) - 4:
        raise DecodeFault(f"expected a boolean array, got {len(data)} bytes for {count} items")
    return [bool(data[4 + place // 8] & (0x80 >> place % 8)) for place in range(count)]
