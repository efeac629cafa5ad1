"""What flashfeed must be allowed to do, and how it says what it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from flashfeed.agents.rights import (
    READ,
    WRITE,
    Right,
    acl_commands,
    denied,
    missing,
    refusal,
    worker_rights,
)
from flashfeed.cli.main import main
from flashfeed.models.config import Config, ControlConfig, FeedConfig, KafkaConfig, TopicsConfig

from kafka_acls import LITERAL, PREFIXED, TOPIC, acls_of, documented

FEED = {"prices": ["candles"]}
MINE = [Right("Topic", "t", READ, "feed f"), Right("Topic", "t", WRITE, "feed f")]


def test_the_page_has_what_a_worker_needs_and_no_more() -> None:
    listed = [acl for line in documented("worker") for acl in acls_of(line)]
    needed = acl_commands(worker_rights(Config(), FEED), "flashfeed")
    assert set(listed) == {acl for line in needed for acl in acls_of(line)}
    assert len(listed) == len(set(listed))


def test_names_and_switches_change_what_is_needed() -> None:
    feed = FeedConfig(topics=("spBv1.0",), template="t", preset="sparkplug_b")
    config = Config(
        kafka=KafkaConfig(group="mine", transactions=False),
        topics=TopicsConfig(records="my.records"),
        control=ControlConfig(enabled=False),
        feeds={"f": feed},
    )
    rights = {(one.resource, one.name, one.operation) for one in worker_rights(config, FEED)}
    assert {("Topic", "my.records", READ), ("Topic", "my.records", WRITE)} <= rights
    assert {("Topic", "flashfeed.births", READ), ("Topic", "flashfeed.births", WRITE)} <= rights
    assert ("Group", "mine", READ) in rights
    assert not {name for _, name, _ in rights} & {"flashfeed.control", "flashfeed.replies", "mine-"}


def test_what_a_pattern_reads_is_granted_by_its_beginning() -> None:
    feeds = {"f": ["prices", "candles-*", "a?c*", "*"]}
    rights = [one for one in worker_rights(Config(), feeds) if one.purpose == "feed f"]
    assert [(one.name, one.prefix) for one in rights] == [
        ("prices", False), ("candles-", True), ("a", True), ("*", False),
    ]  # fmt: skip


def test_check_prints_what_a_configuration_needs(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(__file__).parents[2] / "flashfeed.toml"
    with pytest.raises(SystemExit) as ended:
        main(["check", "-c", str(file), "--acls", "flashfeed"])
    assert ended.value.code == 0
    printed = [acl for line in capsys.readouterr().out.splitlines() for acl in acls_of(line)]
    listed = {acl for line in documented("worker") for acl in acls_of(line)}
    own = {acl for acl in listed if acl[1] != "candles"}
    feeds = {(kind, name, pattern) for kind, name, pattern, *_ in set(printed) - own}
    assert own < set(printed)
    assert feeds == {(TOPIC, "candles-", PREFIXED), (TOPIC, "telegraf", LITERAL)}


@pytest.mark.parametrize(
    ("allowed", "lacking"),
    [
        ({("Topic", "t"): 1 << 3 | 1 << 4}, []),
        ({("Topic", "t"): 1 << 3 | 1 << 8}, MINE[1:]),
        ({("Topic", "t"): 1 << 4}, MINE[:1]),
        ({("Topic", "t"): None}, MINE),
        ({("Topic", "t"): 0}, MINE),
        ({}, []),  # the brokers did not tell
        ({("Group", "t"): None}, []),
    ],
)
def test_what_is_missing_is_what_the_brokers_left_out(
    allowed: dict[tuple[str, str], int | None], lacking: list[Right]
) -> None:
    assert missing(MINE, allowed) == lacking


def test_a_refusal_names_everything_and_how_to_grant_it() -> None:
    said = refusal([*MINE, Right("Group", "g", READ, "the workers' group")], "bob")
    assert said == (
        "user 'bob' lacks Read and Write on Topic t (feed f); Read on Group g (the workers' "
        "group). Grant: kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal "
        "User:bob --operation Read --operation Write --topic t; kafka-acls.sh "
        "--bootstrap-server HOST:PORT --add --allow-principal User:bob --operation Read --group g"
    )


def test_an_error_of_the_brokers_names_what_to_grant() -> None:
    hidden = KafkaError("Unexpected error during coordination")
    hidden.__cause__ = GroupAuthorizationFailedError("g")
    for error, operation, said in (
        (TopicAuthorizationFailedError("t"), "", "grant Read on Topic t"),
        (TopicAuthorizationFailedError({"b", "a"}), WRITE, "grant Write on Topic a, b"),
        (hidden, "", "grant Read on Group g"),
        (TransactionalIdAuthorizationFailed("x-0"), "", "grant Write on TransactionalId x-0"),
    ):
        assert denied(error, operation).endswith(said)
    assert denied(KafkaError("else")) == denied(None) == ""
