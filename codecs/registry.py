"""What there is, by name: codecs of bytes, and text codecs of records.

A new format or codec is a module, a test and a line here. An unknown name is a
ConfigError that says the nearest known one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ..models.errors import ConfigError
from ..models.records import STREAM_TYPES, StreamType
from . import avro, cloudevents, csv, hl7, influx, json, msgpack, protobuf, senml, sparkplug_b
from .codec import Codec, Options, Outside
from .nearest import nearest
from .text import TextCodec
from .text_event import EventLine, TextOrEventLine
from .text_format import PREFIX, FormatLine
from .text_iot import IotLine
from .text_ohlcv import OhlcvFull, OhlcvShort
from .text_spatial import SpatialLine
from .text_vitals import VitalsLine

CLOUDEVENTS: Final = "cloudevents"
SPARKPLUG: Final = "sparkplug_b"


class _Format(NamedTuple):
    """A format's options, and what builds its codec."""

    options: type[Options]
    build: Callable[[Any, Outside], Codec]


def _build_cloudevents(options: cloudevents.CloudEventsOptions, outside: Outside) -> Codec:
    if options.data == CLOUDEVENTS:
        raise ConfigError("data: expected a codec other than cloudevents itself")
    try:
        inner = codec(options.data, options.data_options, outside)
    except ConfigError as error:
        raise ConfigError(f"data_options: {error}") from None
    return cloudevents.wrap(inner)


_FORMATS: Final[dict[str, _Format]] = {
    "avro": _Format(avro.AvroOptions, avro.build),
    CLOUDEVENTS: _Format(cloudevents.CloudEventsOptions, _build_cloudevents),
    "csv": _Format(csv.CsvOptions, csv.build),
    "hl7": _Format(hl7.Hl7Options, hl7.build),
    "influx": _Format(influx.InfluxOptions, influx.build),
    "json": _Format(json.JsonOptions, json.build),
    "json_lines": _Format(json.JsonLinesOptions, json.build_lines),
    "msgpack": _Format(msgpack.MsgpackOptions, msgpack.build),
    "protobuf": _Format(protobuf.ProtobufOptions, protobuf.build),
    "senml": _Format(senml.SenmlOptions, senml.build),
    SPARKPLUG: _Format(sparkplug_b.SparkplugOptions, sparkplug_b.build),
}

_TEXT_CODECS: Final[dict[str, TextCodec]] = {
    codec.name: codec
    for codec in (
        OhlcvShort(),
        OhlcvFull(),
        IotLine(),
        VitalsLine(),
        SpatialLine(),
        EventLine(),
        TextOrEventLine(),
    )
}


def codec(name: str, options: Mapping[str, Any], outside: Outside) -> Codec:
    """A codec by name, with its own options. Raises ConfigError, which names the option."""
    if name not in _FORMATS:
        raise ConfigError(f"no codec called {name!r}{nearest(name, _FORMATS)}")
    form = _FORMATS[name]
    known = form.options.__struct_fields__
    for key in options:
        if key not in known:
            if not known:
                raise ConfigError(f"{key}: {name} has no options")
            raise ConfigError(f"{key}: no such option{nearest(key, known)}")
    try:
        checked = msgspec.convert(dict(options), form.options)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        raise ConfigError(f"{path.rstrip('`') or name}: {message}") from None
    return form.build(checked, outside)


def codec_names() -> tuple[str, ...]:
    """The codecs there are."""
    return tuple(_FORMATS)


def needs_births(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a codec keeps Sparkplug births, itself or inside CloudEvents."""
    return SPARKPLUG in (name, options.get("data") if name == CLOUDEVENTS else None)


def default_text_codec(record_type: StreamType) -> str:
    """The name of a record type's default text codec, which is the type's own."""
    if record_type not in STREAM_TYPES:
        raise ConfigError(f"no record type called {record_type!r}")
    return record_type


def text_codec(name: str, record_type: StreamType) -> TextCodec:
    """A text codec for a record type; "" is the type's default, `format:...` the user's own."""
    if name.startswith(PREFIX):
        return FormatLine(name, record_type)
    name = name or default_text_codec(record_type)
    if name not in _TEXT_CODECS:
        raise ConfigError(f"no text codec called {name!r}{nearest(name, _TEXT_CODECS)}")
    codec = _TEXT_CODECS[name]
    if codec.record_type != record_type:
        fitting = [c.name for c in _TEXT_CODECS.values() if c.record_type == record_type]
        raise ConfigError(
            f"text codec {name!r} is for {codec.record_type}, not for {record_type}; "
            f"expected one of {', '.join(fitting)}"
        )
    return codec


def text_codec_names(record_type: StreamType | None = None) -> tuple[str, ...]:
    """The text codecs there are, or those of one record type."""
    return tuple(
        name
        for name, codec in _TEXT_CODECS.items()
        if record_type is None or codec.record_type == record_type
    )
