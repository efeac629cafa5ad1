"""What flashfeed must be allowed to do, as access control lists of Kafka have it. Pure.

docs/KAFKA.md has the same lists for people; its tests hold the two against one another.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from flashfeed.models.config import Config

from .own_topics import reply_topics, wants_births

READ, WRITE = "Read", "Write"
OPERATIONS: Final = {READ: 3, WRITE: 4, "Create": 5, "Describe": 8}
"""Their numbers in the protocol (org.apache.kafka.common.acl.AclOperation)."""


class Right(NamedTuple):
    """One operation on one resource, and what for. `prefix`: on all whose names begin so."""

    resource: str
    name: str
    operation: str
    purpose: str = ""
    prefix: bool = False


def worker_rights(config: Config, feeds: Mapping[str, Sequence[str]]) -> list[Right]:
    """What a worker needs where its topics exist: `feeds` are each feed's topics. To read or
    to write a topic brings the right to describe it."""
    topics = config.topics
    both = {
        topics.records: "every session's history",
        topics.changelog: "the sessions' state",
        topics.owners: "who owns which partition",
        topics.documents: "what the HTTP dialects remember",
    }
    if wants_births(config):
        both[topics.births] = "Sparkplug births"
    if config.learns:
        both |= {
            topics.outcomes: "outcomes of answers",
            topics.examples: "labels of answers",
            topics.reservoirs: "what heads have learnt from",
            topics.heads: "heads",
        }
    rights = [_feed_right(feed, name) for feed, names in feeds.items() for name in names]
    for name, purpose in both.items():
        rights += [Right("Topic", name, READ, purpose), Right("Topic", name, WRITE, purpose)]
    written = {
        topics.dead_letters: "dead letters",
        topics.flash_ready: "answers",
        topics.data_updated: "updates",
        topics.answers: "the latest answers",
    }
    if config.control.enabled:
        rights.append(Right("Topic", topics.control, READ, "control messages"))
        written |= dict.fromkeys(reply_topics(config), "replies to control messages")
    if config.learns:
        written[topics.scores] = "scores of questions"
    rights += [Right("Topic", name, WRITE, purpose) for name, purpose in written.items()]
    rights.append(Right("Group", config.kafka.group, READ, "the workers' group"))
    if config.kafka.transactions:
        rights.append(
            Right("TransactionalId", f"{config.kafka.group}-", WRITE, "transactions", prefix=True)
        )
    return rights


def _feed_right(feed: str, name: str) -> Right:
    """To read a feed's topic, or those that a pattern names: all with what stands before its
    first sign, for there are no other patterns in these lists."""
    plain = re.split(r"[*?\[]", name)[0]
    return Right("Topic", plain or "*", READ, f"feed {feed}", prefix=bool(plain) and plain != name)


def missing(rights: Iterable[Right], allowed: Mapping[tuple[str, str], int | None]) -> list[Right]:
    """The rights that the brokers' answer leaves out: `allowed` has, by resource and name, the
    bits of the operations, None where nothing may even be seen. What is not in it was not told.
    """
    lacking: list[Right] = []
    for right in rights:
        key = (right.resource, right.name)
        if key not in allowed:
            continue
        bits = allowed[key]
        if bits is None or not bits >> OPERATIONS[right.operation] & 1:
            lacking.append(right)
    return lacking


def refusal(lacking: Sequence[Right], user: str) -> str:
    """What is not allowed, and the commands that allow it."""
    by_resource: dict[tuple[str, str, str], list[str]] = {}
    for one in lacking:
        by_resource.setdefault((one.resource, one.name, one.purpose), []).append(one.operation)
    what = "; ".join(
        f"{' and '.join(operations)} on {resource} {name} ({purpose})"
        for (resource, name, purpose), operations in by_resource.items()
    )
    return f"user {user!r} lacks {what}. Grant: {'; '.join(acl_commands(lacking, user))}"


def acl_commands(rights: Iterable[Right], user: str) -> list[str]:
    """The fewest `kafka-acls.sh` calls that grant these rights."""
    by_resource: dict[tuple[str, str, bool], list[str]] = {}
    for one in rights:
        held = by_resource.setdefault((one.resource, one.name, one.prefix), [])
        if one.operation not in held:
            held.append(one.operation)
    together: dict[tuple[str, bool, tuple[str, ...]], list[str]] = {}
    for (resource, name, prefix), operations in by_resource.items():
        together.setdefault((resource, prefix, tuple(operations)), []).append(name)
    options = {"Topic": "--topic", "Group": "--group", "TransactionalId": "--transactional-id"}
    return [
        f"kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal User:{user} "
        + " ".join(f"--operation {one}" for one in operations)
        + " "
        + " ".join(f"{options[resource]} {shlex.quote(name)}" for name in names)
        + (" --resource-pattern-type prefixed" if prefix else "")
        for (resource, prefix, operations), names in together.items()
    ]


def denied(error: BaseException | None, operation: str = "") -> str:
    """The sentence of an error by which a broker says that we may not; "" where it is none.
    `operation` is what was tried, where the error alone does not tell."""
    while error is not None:
        for kind, resource, operations in _REFUSALS:
            if isinstance(error, kind):
                what = f"{operation or operations} on {resource}{_named(error)}"
                return f"the brokers do not allow it: grant {what}"
        error = error.__cause__
    return ""


_REFUSALS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (TopicAuthorizationFailedError, "Topic", READ),
    (GroupAuthorizationFailedError, "Group", READ),
    (TransactionalIdAuthorizationFailed, "TransactionalId", WRITE),
    (ClusterAuthorizationFailedError, "Cluster", "IdempotentWrite"),
)


def _named(error: Any) -> str:
    """What the error is about: a topic's name, or a set of them."""
    if not error.args:
        return ""
    what = error.args[0]
    return f" {', '.join(sorted(what)) if isinstance(what, (set, frozenset, list)) else what}"
