"""Asks the brokers what we are allowed to do, and says all that is missing at once.

Metadata and DescribeGroups tell it since Kafka 2.3 (KIP-430); a broker that knows neither
version is not asked, and says no when it comes to that (rights.denied). Transactional ids have
no such question: transactions.py says what is missing when it opens one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import Denied

from .rights import Right, missing, refusal

log = logging.getLogger(__name__)

NOT_TOLD: Final = -(2**31)
TOPIC_DENIED, GROUP_DENIED = 29, 30


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _TopicRights(Request[_MetadataRequest]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        return request_struct_class(self._topics, False, False, True)


class _GroupsResponse(Response):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", String("utf-8")),
                ("state", String("utf-8")),
                ("protocol_type", String("utf-8")),
                ("protocol", String("utf-8")),
                (
                    "members",
                    Array(
                        ("member_id", String("utf-8")),
                        ("client_id", String("utf-8")),
                        ("client_host", String("utf-8")),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _GroupsRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = _GroupsResponse
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class _GroupRights(Request[_GroupsRequest]):  # type: ignore[misc]
    API_KEY = 15

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = list(groups)

    def build(self, request_struct_class: type[_GroupsRequest]) -> _GroupsRequest:
        return request_struct_class(self._groups, True)


async def check_rights(client: AIOKafkaClient, kafka: KafkaConfig, rights: Iterable[Right]) -> None:
    """Raises Denied, which names every right that is missing, as far as the brokers tell.
    `client` is connected."""
    rights = list(rights)
    try:
        allowed = await _allowed(client, rights)
    except (KafkaError, NotImplementedError, TimeoutError) as error:
        log.info("the brokers do not tell what we are allowed to do: %r", error)
        return
    lacking = missing(rights, allowed)
    if lacking:
        raise Denied(refusal(lacking, user_of(kafka)))


def user_of(kafka: KafkaConfig) -> str:
    """Who the brokers take us for; with a client certificate alone they have a longer name."""
    return kafka.sasl.username if kafka.sasl else "ANONYMOUS"


async def _allowed(
    client: AIOKafkaClient, rights: Sequence[Right]
) -> dict[tuple[str, str], int | None]:
    """The bits of what is allowed by resource and name; None: not even to see it. What the
    brokers do not tell (a topic that is not there) is left out."""
    allowed: dict[tuple[str, str], int | None] = {}
    topics = sorted({one.name for one in rights if one.resource == "Topic"})
    answer: Any = await client.send(client.get_random_node(), _TopicRights(topics))
    for code, name, _, _, bits in answer.topics:
        if code == TOPIC_DENIED:
            allowed["Topic", name] = None
        elif code == 0 and bits != NOT_TOLD:
            allowed["Topic", name] = bits
    for group in {one.name for one in rights if one.resource == "Group"}:
        allowed |= await _group(client, group)
    return allowed


async def _group(client: AIOKafkaClient, group: str) -> dict[tuple[str, str], int | None]:
    """What is allowed on a group. Any broker refuses who may not see it; only its coordinator
    tells the rest, which the group's own join finds out as well."""
    try:
        answer: Any = await client.send(client.get_random_node(), _GroupRights([group]))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return {}
    for code, name, _, _, _, _, bits in answer.groups:
        if code == GROUP_DENIED:
            return {("Group", name): None}
        if code == 0 and bits != NOT_TOLD:
            return {("Group", name): bits}
    return {}
