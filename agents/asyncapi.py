"""What a worker reads and writes on Kafka, as an AsyncAPI 3 document. Pure.

Generated from the configuration and from what the worker itself goes by: topics from
topics.py, schemas from the event types, headers from dead_letters.py. Topics that only
workers read (records, changelog, owners, documents, births, heads) are not in it.
"""

from __future__ import annotations

import itertools
import re
from importlib.metadata import version
from typing import Any, Final

from aiokafka.admin import NewTopic

from flashfeed.codecs.presets import codec_of
from flashfeed.codecs.registry import media_type
from flashfeed.models.config import Config, FeedConfig, KafkaConfig
from flashfeed.models.control import CONTROL_TYPES, Reply, control_schema_components
from flashfeed.models.event_avro import avro_schema
from flashfeed.models.event_format import CONTENT_TYPES, registered_schema
from flashfeed.models.event_schemas import (
    EVENT_TYPES,
    event_header_schema,
    event_schema_components,
)

from .asyncapi_learning import learning_channels, learning_schemas
from .connection import broker_list
from .control import CORRELATION_ID, REPLY_TO
from .dead_letters import header_schema
from .own_topics import own_topics, reply_topics

ASYNCAPI: Final = "3.0.0"
BINDING: Final = "0.5.0"
KEY: Final = {"type": "string", "description": "The session's key."}
ANSWER_KEY: Final = {"type": "string", "description": "session/question: key and question id."}

SCHEMA_FORMATS: Final = {
    "AVRO": "application/vnd.apache.avro+json;version=1.9.0",
    "PROTOBUF": "application/vnd.google.protobuf;version=3",
}
SCHEMAS: Final = "#/components/schemas/{name}"

Object = dict[str, Any]


def asyncapi_document(config: Config) -> Object:
    """The document of a worker with this configuration."""
    outputs = _outputs(config)
    feeds: Object = {}
    for name, feed in config.feeds.items():
        feeds |= _feed_channels(name, feed)
    control = _control(config) if config.control.enabled else {}
    if config.control.enabled:
        outputs |= _replies(config)
    learning = _learning(config) if config.learns else {}
    outputs |= learning
    control |= {name: one for name, one in learning.items() if name == "outcomes"}
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": config.kafka.group,
            "version": version("flashfeed"),
            "description": "Records in, answers of resident sessions out. Events are "
            "CloudEvents 1.0 in binary mode.",
        },
        "defaultContentType": "application/json",
        "servers": _servers(config),
        "channels": {**feeds, **control, **outputs},
        "operations": {
            **{f"read_{name}": _receive(config.kafka, name) for name in (*feeds, *control)},
            **{f"send_{name}": _send(name, channel) for name, channel in outputs.items()},
        },
        "components": {
            "schemas": event_schema_components(SCHEMAS)
            | control_schema_components(SCHEMAS)
            | (learning_schemas(SCHEMAS) if config.learns else {})
        },
    }


# -- servers ------------------------------------------------------------------------


def _servers(config: Config) -> Object:
    kafka = config.kafka
    server: Object = {"protocol": "kafka-secure" if kafka.tls else "kafka"}
    if kafka.sasl is not None:
        kinds = {"SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}
        server["security"] = [{"type": kinds.get(kafka.sasl.mechanism, "plain")}]
    registry = config.schema_registry
    if registry is not None:
        bound = {
            "schemaRegistryUrl": registry.url,
            "schemaRegistryVendor": registry.kind.partition("_")[0],
            "bindingVersion": BINDING,
        }
        server["bindings"] = {"kafka": bound}
    hosts = broker_list(kafka)
    return {f"broker{number}": {"host": host, **server} for number, host in enumerate(hosts, 1)}


# -- feeds: what is read --------------------------------------------------------------


def _feed_channels(name: str, feed: FeedConfig) -> Object:
    """A channel for each topic or pattern of the feed."""
    codec, _ = codec_of(feed.preset, feed.codec, feed.codec_options)
    message = {
        "name": name,
        "title": f"A message of the feed {name}",
        "contentType": media_type(codec),
    }
    made = f"preset {feed.preset}" if feed.preset else "the feed's own mapping"
    channels = {}
    for place, topic in enumerate(feed.topics, 1):
        key = f"feed_{_identifier(name)}" + (f"_{place}" if len(feed.topics) > 1 else "")
        channels[key] = {
            **_address(topic),
            "title": topic,
            "description": f"Read as {codec} by {made}, for sessions of the template "
            f"{feed.template}. A message that cannot be used is a dead letter.",
            "messages": {_identifier(name): message},
        }
    return channels


def _address(topic: str) -> Object:
    """A topic, or what a pattern stands for: a parameter for each `*`. What AsyncAPI cannot
    say (`?`, `[...]`) has no address; the channel's title is the pattern."""
    if re.search(r"[?\[{]", topic):
        return {"address": None}
    numbers = itertools.count(1)
    address = re.sub(r"\*", lambda _: f"{{any{next(numbers)}}}", topic)
    if "*" not in topic:
        return {"address": address}
    text = {"description": "Any characters, none too."}
    return {"address": address, "parameters": {f"any{n}": text for n in range(1, next(numbers))}}


def _receive(kafka: KafkaConfig, channel: str) -> Object:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "bindings": {
            "kafka": {
                "groupId": {"type": "string", "enum": [kafka.group]},
                "bindingVersion": BINDING,
            }
        },
    }


# -- control: what is asked for and answered --------------------------------------------


def _control(config: Config) -> Object:
    made = {topic.name: topic for topic in own_topics(config)}
    texts = {"type": "string"}
    headers = {
        "type": "object",
        "properties": {
            REPLY_TO: {"type": "string", "enum": list(reply_topics(config))},
            CORRELATION_ID: texts,
        },
    }
    messages = {
        op: {
            "name": op,
            "contentType": "application/json",
            "headers": headers,
            "payload": {"$ref": SCHEMAS.format(name=kind.__name__)},
        }
        for op, kind in CONTROL_TYPES.items()
    }
    about = "Creates, changes and deletes sessions and their questions."
    return {"control": _channel(made[config.topics.control], about, messages)}


def _replies(config: Config) -> Object:
    """A channel for each topic that a control message may have its reply on."""
    made = {topic.name: topic for topic in own_topics(config)}
    reply = {
        "name": "reply",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                CORRELATION_ID: {"type": "string"},
                "content-type": {"const": "application/json"},
            },
            "required": ["content-type"],
        },
        "payload": {"$ref": SCHEMAS.format(name=Reply.__name__)},
        "bindings": _keyed(KEY),
    }
    about = "What became of a control message, under the correlation_id that it had."
    channels = {}
    for place, topic in enumerate(reply_topics(config)):
        channels["replies" + (f"_{place}" if place else "")] = _channel(
            made[topic], about, {"reply": reply}
        )
    return channels


def _learning(config: Config) -> Object:
    made = {topic.name: topic for topic in own_topics(config)}
    return {
        name: _channel(made[topic], about, messages)
        for name, (topic, about, messages) in learning_channels(config).items()
    }


# -- outputs: what is sent ------------------------------------------------------------


def _outputs(config: Config) -> Object:
    made = {topic.name: topic for topic in own_topics(config)}
    topics = config.topics
    events = {name: _event(name, KEY, config) for name in EVENT_TYPES}
    removed = {
        "name": "answer_removed",
        "title": "A standing question is gone, alone or with its session",
        "payload": {"type": "null"},
        "bindings": _keyed(ANSWER_KEY),
    }
    letter = {
        "name": "dead_letter",
        "title": "A message or record that could not be used, as it came",
        "contentType": "application/octet-stream",
        "headers": header_schema(),
    }
    flash_ready = EVENT_TYPES["flash_ready"].__name__
    return {
        "flash_ready": _channel(
            made[topics.flash_ready],
            "An answer of a standing question at a data version, in each session's order.",
            {"flash_ready": events["flash_ready"]},
        ),
        "data_updated": _channel(
            made[topics.data_updated],
            "A session moved to a new data version, and what that took.",
            {"data_updated": events["data_updated"]},
        ),
        "answers": _channel(
            made[topics.answers],
            f"The latest {flash_ready} of each question.",
            {
                "answer": _event("flash_ready", ANSWER_KEY, config),
                "answer_removed": removed,
            },
        ),
        "dead_letters": _channel(
            made[topics.dead_letters],
            "Value, key and headers are the original's; further headers say where it came "
            "from and why it could not be used.",
            {"dead_letter": letter},
        ),
    }


def _event(name: str, key: Object, config: Config) -> Object:
    format_, traces = config.output.format, config.traces
    content_type = CONTENT_TYPES[format_]
    bound = _keyed(key)
    payload: Object = {"$ref": SCHEMAS.format(name=EVENT_TYPES[name].__name__)}
    if format_ != "json":
        kind, text = registered_schema(name, format_)
        schema = avro_schema(name) if kind == "AVRO" else text
        payload = {"schemaFormat": SCHEMA_FORMATS[kind], "schema": schema}
        bound["kafka"] |= {
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "confluent",
            "schemaLookupStrategy": "TopicNameStrategy",
        }
    return {
        "name": f"flashfeed.{name}",
        "contentType": content_type,
        "headers": event_header_schema(name, content_type, traces is not None and traces.enabled),
        "payload": payload,
        "bindings": bound,
    }


def _keyed(key: Object) -> Object:
    return {"kafka": {"key": key, "bindingVersion": BINDING}}


def _channel(topic: NewTopic, description: str, messages: Object) -> Object:
    """One of our own topics, as it is created where it is missing."""
    configured = dict(topic.topic_configs)
    settings: Object = {"cleanup.policy": configured["cleanup.policy"].split(",")}
    if "retention.ms" in configured:
        settings["retention.ms"] = int(configured["retention.ms"])
    bound = {
        "partitions": topic.num_partitions,
        "replicas": topic.replication_factor,
        "topicConfiguration": settings,
        "bindingVersion": BINDING,
    }
    return {
        "address": topic.name,
        "description": description,
        "messages": messages,
        "bindings": {"kafka": bound},
    }


def _send(name: str, channel: Object) -> Object:
    messages = [{"$ref": f"#/channels/{name}/messages/{one}"} for one in channel["messages"]]
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": messages,
    }


def _identifier(name: str) -> str:
    """A feed's name as AsyncAPI takes it for a key."""
    return re.sub(r"[^A-Za-z0-9.\-_]", lambda sign: f"_{ord(sign[0]):x}_", name)
