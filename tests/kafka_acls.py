"""Access control lists of a node, granted and taken as `kafka-acls.sh` lines say."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

TOPIC, GROUP, TRANSACTIONAL_ID = 2, 3, 5
LITERAL, PREFIXED = 3, 4
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
ALLOW = 3

Acl = tuple[int, str, int, str, str, int, int]
"""Resource type, name, pattern type, principal, host, operation, permission."""


def documented(who: str) -> list[str]:
    """The `kafka-acls.sh` lines that docs/KAFKA.md has for a kind of user."""
    page = (Path(__file__).parents[1] / "docs" / "KAFKA.md").read_text()
    [block] = re.findall(rf"```acls {who}\n(.*?)```", page, flags=re.S)
    return str(block).splitlines()


def acls_of(line: str) -> list[Acl]:
    """What a `kafka-acls.sh --add` line grants."""
    grammar = argparse.ArgumentParser(exit_on_error=False)
    grammar.add_argument("--bootstrap-server")
    grammar.add_argument("--command-config")
    grammar.add_argument("--add", action="store_true", required=True)
    grammar.add_argument("--allow-principal", required=True)
    grammar.add_argument("--operation", action="append", choices=OPERATIONS, required=True)
    grammar.add_argument("--topic", action="append", default=[])
    grammar.add_argument("--group", action="append", default=[])
    grammar.add_argument("--transactional-id", action="append", default=[])
    grammar.add_argument("--resource-pattern-type", default="literal")
    command, *words = shlex.split(line)
    assert command == "kafka-acls.sh", line
    given = grammar.parse_args(words)
    pattern = {"literal": LITERAL, "prefixed": PREFIXED}[given.resource_pattern_type]
    named = {TOPIC: given.topic, GROUP: given.group, TRANSACTIONAL_ID: given.transactional_id}
    found = [
        (kind, name, pattern, given.allow_principal, "*", OPERATIONS[operation], ALLOW)
        for kind, names in named.items()
        for name in names
        for operation in given.operation
    ]
    assert found, line
    return found


async def grant(brokers: str, acls: Iterable[Acl]) -> None:
    """Let them; `brokers` is a listener of a super user."""
    await _each(brokers, CreateAclsRequest, acls)


async def take(brokers: str, acls: Iterable[Acl]) -> None:
    """Let them no more."""
    await _each(brokers, DeleteAclsRequest, acls)


async def _each(brokers: str, request: Any, acls: Iterable[Acl]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        for one in acls:
            answer = await admin._send_request(request(*one))
            done = answer.creation_responses if request is CreateAclsRequest else (
                answer.filter_responses
            )  # fmt: skip
            assert [first for first, *_ in done] == [0], (one, done)
    finally:
        await admin.close()
