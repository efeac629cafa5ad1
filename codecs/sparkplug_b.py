"""Sparkplug B: each birth, data and death message an object with named metrics.

    {"group", "node", "device", "edge", "verb", "timestamp", "seq", "metrics": [
        {"name", "value", "datatype", "timestamp", "alias", "properties"}, ...]}

What is not there is absent; times are milliseconds; `edge` is group/node[/device]. The MQTT
topic, spBv1.0/group/verb/node[/device], is looked for in the message's key, in the header
mqtt.topic and in Kafka's topic (where dots may stand for slashes), unless `mqtt_topic` says
where it is. Commands and STATE messages hold no measurements: they have no value.

A data message may name a metric by its alias alone, and only the birth before it says whose
that is. So births are noted outside, and an alias without one is waited for (BirthWanted)
and in the end a BirthMissing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from ..models.errors import BirthMissing, ConfigError, DecodeFault, FramingFault
from .codec import Birth, Births, Codec, Options, Outside, header
from .parts import Source
from .sparkplug_payload import metric_value, parse_payload, properties

NAMESPACE: Final = "spBv1.0"
MQTT_HEADER: Final = "mqtt.topic"
ALIASES_MAX: Final = 10_000
NAME_CHARS_MAX: Final = 500
_BIRTHS: Final = frozenset(("NBIRTH", "DBIRTH"))
_DATA: Final = frozenset(("NDATA", "DDATA"))
_DEATHS: Final = frozenset(("NDEATH", "DDEATH"))
_NOT_READ: Final = frozenset(("NCMD", "DCMD"))
# A node's own death is its last will: written before its session, without a number.
_NUMBERED: Final = _BIRTHS | _DATA | {"DDEATH"}


class SparkplugOptions(Options, frozen=True, kw_only=True):
    """`mqtt_topic`: where a message's MQTT topic stands: @key, @topic or @header.NAME;
    empty: wherever it is found. `birth_wait_s`: how long an alias waits for its birth."""

    mqtt_topic: str = ""
    birth_wait_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 30.0


class Place(NamedTuple):
    """Where a message comes from, as its MQTT topic says it."""

    group: str
    verb: str
    node: str
    device: str

    @property
    def edge(self) -> str:
        """The edge node, or the device on it."""
        own = f"{self.group}/{self.node}"
        return f"{own}/{self.device}" if self.device else own


def build(options: SparkplugOptions, outside: Outside) -> Codec:
    """A codec of a message a value."""
    where = options.mqtt_topic
    if where not in ("", "@key", "@topic") and not where.startswith("@header."):
        raise ConfigError(f"mqtt_topic: expected @key, @topic or @header.NAME, got {where!r}")
    if outside.births is None:
        raise ConfigError("Sparkplug B needs the births topic, which is not there")
    births = outside.births

    def decode(payload: bytes | None, source: Source) -> Sequence[Any]:
        place = _place(where, source)
        if place is None or place.verb in _NOT_READ or not payload:
            return ()
        return (_message(payload, source, place, births, options.birth_wait_s),)

    return decode


def _place(where: str, source: Source) -> Place | None:
    texts: Sequence[bytes | str | None]
    if where == "@key":
        texts = (source.key,)
    elif where == "@topic":
        texts = (source.topic,)
    elif where:
        texts = (header(source.headers, where.removeprefix("@header.")),)
    else:
        texts = (source.key, header(source.headers, MQTT_HEADER), source.topic)
    for one in texts:
        text = one.decode("utf-8", "replace") if isinstance(one, bytes) else one or ""
        if text.startswith(NAMESPACE):
            return _parse_place(text)
    raise FramingFault(
        f"expected an MQTT topic {NAMESPACE}/group/verb/node[/device] in {where or 'the key, '}"
        f"{'' if where else f'the header {MQTT_HEADER} or the topic'}, got none"
    )


def _parse_place(text: str) -> Place | None:
    parts = text[len(NAMESPACE) + 1 :].split(text[len(NAMESPACE) : len(NAMESPACE) + 1] or "/")
    if parts[0] == "STATE" or (len(parts) > 1 and parts[1] == "STATE"):
        return None
    verb = parts[1] if len(parts) > 1 else ""
    wants_device = verb.startswith("D")
    if (
        verb not in _NUMBERED | _DEATHS | _NOT_READ
        or len(parts) != 3 + wants_device
        or not all(parts)
    ):
        raise FramingFault(f"expected {NAMESPACE}/group/verb/node[/device], got {text[:200]!a}")
    return Place(parts[0], verb, parts[2], parts[3] if wants_device else "")


def _message(
    data: bytes, source: Source, place: Place, births: Births, wait_s: float
) -> dict[str, Any]:
    payload = parse_payload(data)
    if place.verb in _BIRTHS:
        births.note(place.edge, _birth(payload))
    value: dict[str, Any] = {
        "group": place.group,
        "node": place.node,
        "edge": place.edge,
        "verb": place.verb,
        "metrics": _metrics(payload, place, births, wait_s),
    }
    if place.device:
        value["device"] = place.device
    if payload.HasField("timestamp"):
        value["timestamp"] = payload.timestamp
    if payload.HasField("seq"):
        value["seq"] = payload.seq
        if place.verb in _NUMBERED:
            births.sequence(source.topic, f"{place.group}/{place.node}", payload.seq)
    return value


def _birth(payload: Any) -> Birth:
    metrics = {
        metric.alias: (metric.name, metric.datatype)
        for metric in payload.metrics
        if metric.HasField("alias")
    }
    if len(metrics) > ALIASES_MAX:
        raise DecodeFault(f"expected a birth of at most {ALIASES_MAX} aliases, got {len(metrics)}")
    if any(len(name) > NAME_CHARS_MAX for name, _ in metrics.values()):
        raise DecodeFault(f"expected names of at most {NAME_CHARS_MAX} characters in a birth")
    return Birth(metrics)


def _metrics(payload: Any, place: Place, births: Births, wait_s: float) -> list[Any]:
    birth: Birth | None = None
    found = []
    for index, metric in enumerate(payload.metrics):
        name, datatype = metric.name, metric.datatype
        if metric.HasField("alias") and place.verb in _DATA and not (name and datatype):
            if birth is None:
                birth = births.find(place.edge, wait_s)
            born = birth.metrics.get(metric.alias)
            if born is None and not name:
                raise BirthMissing(
                    f"the birth of {place.edge} has no alias {metric.alias}",
                    f"$.metrics[{index}].alias",
                )
            if born is not None:
                name, datatype = name or born[0], datatype or born[1]
        found.append(_metric(metric, name, datatype, payload))
    return found


def _metric(metric: Any, name: str, datatype: int, payload: Any) -> dict[str, Any]:
    one: dict[str, Any] = {
        "name": name,
        "value": metric_value(metric, datatype),
        "datatype": datatype,
    }
    if metric.HasField("timestamp"):
        one["timestamp"] = metric.timestamp
    elif payload.HasField("timestamp"):
        one["timestamp"] = payload.timestamp
    if metric.HasField("alias"):
        one["alias"] = metric.alias
    if metric.is_historical:
        one["is_historical"] = True
    if metric.HasField("properties"):
        one["properties"] = properties(metric)
    return one
