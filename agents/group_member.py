"""This worker as a member of its consumer group: what aiokafka 0.14 lacks of static members
(KIP-345), and what a refusal by the group's coordinator means to the user.

A static member keeps its partitions while it is away for less than the session timeout. Its
name (`group.instance.id`) is sent by aiokafka when it joins, and not with heartbeats and
commits: there a broker cannot tell a member whose name another took from one that was silent
for too long, and answers "unknown member". The two would then take the name from one another
for ever. With the name sent each time the one that was replaced is fenced, and stops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    BrokerResponseError,
    InvalidSessionTimeoutError,
    KafkaError,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import (
    OffsetCommitRequest,
    OffsetCommitRequest_v3,
    OffsetCommitResponse_v3,
)
from aiokafka.protocol.group import HeartbeatRequest, HeartbeatRequest_v1, HeartbeatResponse_v1
from aiokafka.protocol.types import Array, Int32, Int64, Schema, String

from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import ConfigError, Fenced

from .connection import secret

NO_EPOCH = -1


class FencedInstanceIdError(BrokerResponseError):
    """Another member of the group has this one's name."""

    errno = 82
    message = "FENCED_INSTANCE_ID"
    description = "The group has another member of the same group.instance.id."


def instance_id(kafka: KafkaConfig) -> str | None:
    """The static member's name; None where the worker is none. Raises ConfigError."""
    if kafka.instance_id_env:
        return secret(kafka.instance_id_env)
    return kafka.instance_id or None


def carry_instance_id(consumer: AIOKafkaConsumer) -> None:
    """Have a static member's started consumer send its name with all that it sends."""
    aiokafka.errors.kafka_errors.setdefault(FencedInstanceIdError.errno, FencedInstanceIdError)
    coordinator, name = consumer._coordinator, consumer._group_instance_id
    if not name:
        return
    send: Callable[[Request[Any]], Awaitable[Any]] = coordinator._send_req

    async def send_named(request: Request[Any]) -> Any:
        if isinstance(request, HeartbeatRequest):
            return await send(_NamedHeartbeat(request, name))
        if isinstance(request, OffsetCommitRequest):
            return await send(_NamedCommit(request, name))
        return await send(request)

    coordinator._send_req = send_named


def group_error(consumer: AIOKafkaConsumer) -> KafkaError | None:
    """What the coordinator answered that this member cannot get over; None where nothing.

    aiokafka tells who fetches, and waits until it has: who has no partition yet would never
    fetch, and never know.
    """
    coordinator = consumer._coordinator
    if coordinator is None:  # it has not started yet
        return None
    error: KafkaError | None = coordinator._pending_exception
    ended = coordinator._coordination_task
    if error is None and ended.done() and not ended.cancelled():
        error = ended.exception()
    return error


def refusal(error: BaseException, kafka: KafkaConfig) -> BaseException:
    """A coordinator's error in the user's words, with what to do; any other as it is."""
    said = repr(error)  # aiokafka wraps some of them in a KafkaError, as text
    if InvalidSessionTimeoutError.__name__ in said:
        return ConfigError(
            f"kafka.session_timeout_s: the brokers refuse {kafka.session_timeout_s}; it must lie "
            "within their group.min.session.timeout.ms and group.max.session.timeout.ms (6 to "
            "1800 seconds on Apache Kafka, where nobody changed them)"
        )
    if FencedInstanceIdError.__name__ in said:
        return Fenced(
            f"another worker joined group {kafka.group!r} as {instance_id(kafka)!r} too, and this "
            "one is fenced (FencedInstanceIdError); each wants a kafka.instance_id of its own"
        )
    return error


class _HeartbeatResponse_v3(Response):
    API_KEY = 12
    API_VERSION = 3
    SCHEMA = HeartbeatResponse_v1.SCHEMA


class _HeartbeatRequest_v3(RequestStruct):
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse_v3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class _NamedHeartbeat(Request[HeartbeatRequest_v1 | _HeartbeatRequest_v3]):
    API_KEY = 12

    def __init__(self, plain: HeartbeatRequest, name: str) -> None:
        self._plain, self._name = plain, name

    def build(self, request_struct_class: type[Any]) -> Any:
        if request_struct_class is not _HeartbeatRequest_v3:
            return self._plain.build(request_struct_class)
        plain = self._plain
        return request_struct_class(
            plain._group, plain._generation_id, plain._member_id, self._name
        )


class _OffsetCommitResponse_v7(Response):
    API_KEY = 8
    API_VERSION = 7
    SCHEMA = OffsetCommitResponse_v3.SCHEMA


class _OffsetCommitRequest_v7(RequestStruct):
    API_KEY = 8
    API_VERSION = 7
    RESPONSE_TYPE = _OffsetCommitResponse_v7
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", String("utf-8")),
                    ),
                ),
            ),
        ),
    )


class _NamedCommit(Request[OffsetCommitRequest_v3 | _OffsetCommitRequest_v7]):
    API_KEY = 8

    def __init__(self, plain: OffsetCommitRequest, name: str) -> None:
        self._plain, self._name = plain, name

    def build(self, request_struct_class: type[Any]) -> Any:
        if request_struct_class is not _OffsetCommitRequest_v7:
            return self._plain.build(request_struct_class)
        plain = self._plain
        topics = [
            (topic, [(number, offset, NO_EPOCH, note) for number, offset, note in partitions])
            for topic, partitions in plain._topics
        ]
        return request_struct_class(
            plain._consumer_group,
            plain._consumer_group_generation_id,
            plain._consumer_id,
            self._name,
            topics,
        )
