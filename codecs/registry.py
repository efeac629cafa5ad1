"""What there is, by name: codecs of bytes, and text codecs of records.

A new format or codec is a module, a test and a line here. An unknown name is a
ConfigError that says the nearest known one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from ..models.errors import ConfigError
from ..models.records import STREAM_TYPES, StreamType
from . import avro, cloudevents, csv, hl7, influx, json, msgpack, protobuf, senml, sparkplug_b
from .codec import Codec, Options, Outside
from .nearest import nearest
from .text import TextCodec
from .text_csv import CsvLine
from .text_delta import DeltaLine
from .text_event import EventLine, TextOrEventLine
from .text_format import PREFIX, FormatLine
from .text_iot import IotLine
from .text_json import JsonLine
from .text_ohlcv import OhlcvLine
from .text_ohlcv_numbers import OhlcvFull, OhlcvNumbers
from .text_spatial import SpatialLine
from .text_vitals import VitalsLine

CLOUDEVENTS: Final = "cloudevents"
SPARKPLUG: Final = "sparkplug_b"


class _Format(NamedTuple):
    """A format's options, what builds its codec, and its media type."""

    options: type[Options]
    build: Callable[[Any, Outside], Codec]
    media_type: str


def _build_cloudevents(options: cloudevents.CloudEventsOptions, outside: Outside) -> Codec:
    if options.data == CLOUDEVENTS:
        raise ConfigError("data: expected a codec other than cloudevents itself")
    try:
        # The names are the event's, not those of its data.
        inner = codec(options.data, options.data_options, replace(outside, fields=None))
    except ConfigError as error:
        raise ConfigError(f"data_options: {error}") from None
    return cloudevents.wrap(inner)


_FORMATS: Final[dict[str, _Format]] = {
    "avro": _Format(avro.AvroOptions, avro.build, "application/avro"),
    CLOUDEVENTS: _Format(
        cloudevents.CloudEventsOptions, _build_cloudevents, "application/cloudevents"
    ),
    "csv": _Format(csv.CsvOptions, csv.build, "text/csv"),
    "hl7": _Format(hl7.Hl7Options, hl7.build, "x-application/hl7-v2+er7"),
    "influx": _Format(influx.InfluxOptions, influx.build, "text/plain"),
    "json": _Format(json.JsonOptions, json.build, "application/json"),
    "json_lines": _Format(json.JsonLinesOptions, json.build_lines, "application/x-ndjson"),
    "msgpack": _Format(msgpack.MsgpackOptions, msgpack.build, "application/msgpack"),
    "protobuf": _Format(protobuf.ProtobufOptions, protobuf.build, "application/x-protobuf"),
    "senml": _Format(senml.SenmlOptions, senml.build, "application/senml+json"),
    SPARKPLUG: _Format(sparkplug_b.SparkplugOptions, sparkplug_b.build, "application/x-protobuf"),
}

_TEXT_CODECS: Final[dict[tuple[StreamType, str], TextCodec]] = {
    (codec.record_type, codec.name): codec
    for codec in (
        OhlcvLine(),
        OhlcvNumbers(),
        OhlcvFull(),
        IotLine(),
        VitalsLine(),
        SpatialLine(),
        EventLine(),
        TextOrEventLine(),
        *(make(one) for one in STREAM_TYPES for make in (DeltaLine, JsonLine, CsvLine)),
    )
}
_FORMATS_KEPT: Final = 256

_format_line: Final = lru_cache(maxsize=_FORMATS_KEPT)(FormatLine)


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


def media_type(name: str) -> str:
    """The media type of what a codec reads."""
    return _FORMATS[name].media_type


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
        return _format_line(name, record_type)
    name = name or default_text_codec(record_type)
    if (record_type, name) in _TEXT_CODECS:
        return _TEXT_CODECS[record_type, name]
    fitting = text_codec_names(record_type)
    others = [one for one, known in _TEXT_CODECS if known == name]
    if others:
        raise ConfigError(
            f"text codec {name!r} is for {others[0]}, not for {record_type}; "
            f"expected one of {', '.join(fitting)}"
        )
    raise ConfigError(f"no text codec called {name!r}{nearest(name, fitting)}")


def text_codec_names(record_type: StreamType | None = None) -> tuple[str, ...]:
    """The text codecs there are, or those of one record type."""
    return tuple(dict.fromkeys(name for one, name in _TEXT_CODECS if record_type in (None, one)))
