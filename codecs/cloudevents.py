"""CloudEvents 1.0 around any other format: an object of the event's attributes and `data`.

    binary      headers ce_id, ce_source, ...; the payload is the data
    structured  content-type application/cloudevents+json, or JSON with a specversion
    batch       content-type application/cloudevents-batch+json: an event a value

The data is read by the codec that `data` names. In a structured event JSON data is taken as
it stands, and data_base64 is read by that codec. Where the data holds several values the
event is repeated for each. Source: the Kafka protocol binding and the JSON event format,
version 1.0.2; other event formats (Avro, Protobuf) are a fault.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ..models.errors import DecodeFault, FramingFault
from .codec import Codec, Options, header, text_headers
from .json import decode as decode_json
from .parts import Source

_REQUIRED: Final = ("id", "source", "type", "specversion")
_STRUCTURED: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
BATCH_MAX: Final = 10_000


class CloudEventsOptions(Options, frozen=True, kw_only=True):
    """`data`: the codec of the data. `data_options`: that codec's own options."""

    data: str = "json"
    data_options: dict[str, Any] = msgspec.field(default_factory=dict)


def wrap(inner: Codec) -> Codec:
    """A codec of an event a value, its data read by `inner`."""

    def decode(payload: bytes | None, source: Source) -> Sequence[Any]:
        media = header(source.headers, "content-type") or b""
        kind = media.decode("utf-8", "replace").partition(";")[0].strip().lower()
        if kind == _BATCH:
            return _batch(payload, source, inner)
        if kind.startswith("application/cloudevents"):
            if kind != _STRUCTURED:
                raise FramingFault(f"expected {_STRUCTURED} or {_BATCH}, got {kind[:100]!a}")
            return _structured(decode_json(payload) if payload else None, source, inner)
        attributes = text_headers(source.headers, "ce_")
        if attributes:
            return _binary(dict(attributes), payload, source, inner)
        if not payload:
            return ()
        if payload.lstrip()[:1] == b"{":
            return _structured(decode_json(payload), source, inner)
        raise FramingFault(
            "expected headers ce_id, ce_source, ce_type and ce_specversion, or content-type "
            f"{_STRUCTURED}; got neither"
        )

    return decode


def _binary(
    attributes: dict[str, Any], payload: bytes | None, source: Source, inner: Codec
) -> Sequence[Any]:
    _check(attributes, "header ce_")
    return _with_data(attributes, inner(payload, source)) if payload else ()


def _structured(event: Any, source: Source, inner: Codec) -> Sequence[Any]:
    if event is None:
        return ()
    if type(event) is not dict:
        raise DecodeFault(f"expected a CloudEvent, got {type(event).__name__}")
    _check(event, "$.")
    encoded = event.pop("data_base64", None)
    if encoded is None:
        return (event,)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, TypeError, ValueError) as bad:
        raise DecodeFault(f"expected base64: {bad}", "$.data_base64") from None
    return _with_data(event, inner(data, source))


def _batch(payload: bytes | None, source: Source, inner: Codec) -> Sequence[Any]:
    events = decode_json(payload) if payload else []
    if type(events) is not list or len(events) > BATCH_MAX:
        raise DecodeFault(f"expected an array of at most {BATCH_MAX} CloudEvents")
    values: list[Any] = []
    for place, event in enumerate(events):
        try:
            values += _structured(event, source, inner)
        except DecodeFault as fault:
            values.append(type(fault)(str(fault), f"$[{place}]{fault.path[1:]}"))
    return values


def _check(attributes: dict[str, Any], where: str) -> None:
    for name in _REQUIRED:
        if not attributes.get(name) or type(attributes[name]) is not str:
            raise FramingFault(f"expected a text in {where}{name}", "$")
    if not attributes["specversion"].startswith("1."):
        raise FramingFault(f"expected CloudEvents 1, got {attributes['specversion'][:20]!a}")


def _with_data(attributes: dict[str, Any], values: Sequence[Any]) -> Sequence[Any]:
    return [
        value if isinstance(value, DecodeFault) else {**attributes, "data": value}
        for value in values
    ]
