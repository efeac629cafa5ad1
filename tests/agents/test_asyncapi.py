"""The AsyncAPI document against the published schema. What a real worker makes of it is in
tests/cli/test_end_to_end.py."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from jsonschema import Draft7Validator

from flashfeed.agents.asyncapi import asyncapi_document
from flashfeed.models.config import (
    Config,
    FeedConfig,
    KafkaConfig,
    LearningConfig,
    OutputConfig,
    SaslConfig,
    SchemaRegistryConfig,
    SessionTemplate,
    TlsConfig,
)

from client_packages import node_modules

SECURE = KafkaConfig(
    brokers="a:9093, b:9093",
    group="desk",
    partitions=3,
    sasl=SaslConfig(mechanism="SCRAM-SHA-512", username="u", password_env="P"),
    tls=TlsConfig(),
)
CONFIGS = {
    "defaults": Config(),
    "secure": Config(kafka=SECURE),
    "registry": Config(schema_registry=SchemaRegistryConfig(url="http://r", kind="apicurio_v2")),
    "learning": Config(learning=LearningConfig(enabled=True)),
    "avro": Config(output=OutputConfig(format="avro")),
    "protobuf": Config(output=OutputConfig(format="protobuf")),
    "feeds": Config(
        templates={"t": SessionTemplate(type="iot")},
        feeds={
            "a b": FeedConfig(topics=("x", "y-*-z*", "q?"), template="t", codec="avro"),
            "a_b": FeedConfig(topics=("x",), template="t", preset="telegraf"),
        },
    ),
}


@pytest.fixture(scope="module")
def published() -> Draft7Validator:
    text = (node_modules() / "@asyncapi/specs/schemas/3.0.0.json").read_bytes()
    return Draft7Validator(orjson.loads(text))


def problems(published: Draft7Validator, document: dict[str, Any]) -> list[str]:
    return [error.message[:300] for error in published.iter_errors(document)]


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_valid(published: Draft7Validator, name: str) -> None:
    assert not problems(published, asyncapi_document(CONFIGS[name]))


def test_the_published_schema_refuses_a_wrong_document(published: Draft7Validator) -> None:
    document = asyncapi_document(Config())
    document["channels"]["answers"]["bindings"]["kafka"]["partitions"] = 0
    assert problems(published, document)
    document = asyncapi_document(Config())
    document["operations"]["send_answers"]["action"] = "publish"
    assert problems(published, document)


def references(node: Any) -> list[str]:
    """Every `$ref` in a document."""
    if isinstance(node, list):
        return [one for part in node for one in references(part)]
    if not isinstance(node, dict):
        return []
    here = [node["$ref"]] if "$ref" in node else []
    return here + [one for part in node.values() for one in references(part)]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_reference_leads_somewhere(name: str) -> None:
    document = asyncapi_document(CONFIGS[name])
    assert references(document)
    for reference in references(document):
        here: Any = document
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]


def test_a_feed_has_a_channel_for_each_topic_and_pattern() -> None:
    document = asyncapi_document(CONFIGS["feeds"])
    feeds = {k: v for k, v in document["channels"].items() if k.startswith("feed_")}
    addresses = [(channel["title"], channel["address"]) for channel in feeds.values()]
    assert addresses == [("x", "x"), ("y-*-z*", "y-{any1}-z{any2}"), ("q?", None), ("x", "x")]
    assert len({f"read_{name}" for name in feeds} & set(document["operations"])) == 4


def test_where_the_brokers_are_and_how_to_log_in() -> None:
    document = asyncapi_document(CONFIGS["secure"])
    servers = document["servers"].values()
    assert [one["host"] for one in servers] == ["a:9093", "b:9093"]
    assert all(one["protocol"] == "kafka-secure" for one in servers)
    assert all(one["security"] == [{"type": "scramSha512"}] for one in servers)
    assert document["channels"]["answers"]["bindings"]["kafka"]["partitions"] == 3
