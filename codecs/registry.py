"""What there is, by name: decoders of bytes, and text codecs of records.

A new format or codec is a module, a test and a line here. An unknown name is a
ConfigError that says the nearest known one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from ..models.errors import ConfigError
from ..models.records import STREAM_TYPES, StreamType
from . import json
from .nearest import nearest
from .text import TextCodec
from .text_event import EventLine, TextOrEventLine
from .text_format import PREFIX, FormatLine
from .text_iot import IotLine
from .text_ohlcv import OhlcvFull, OhlcvShort
from .text_spatial import SpatialLine
from .text_vitals import VitalsLine

Decoder: TypeAlias = Callable[[bytes | None], Any]

_DECODERS: Final[dict[str, Decoder]] = {"json": json.decode}

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


def decoder(name: str) -> Decoder:
    """A decoder by name: bytes to a value, None for a tombstone, DecodeFault on bad bytes."""
    if name not in _DECODERS:
        raise ConfigError(f"no codec called {name!r}{nearest(name, _DECODERS)}")
    return _DECODERS[name]


def decoder_names() -> tuple[str, ...]:
    """The decoders there are."""
    return tuple(sorted(_DECODERS))


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
