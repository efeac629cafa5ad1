"""What a worker says of its name in the group, and what the coordinator's refusals mean."""

from __future__ import annotations

from io import BytesIO

import aiokafka.errors
import msgspec
import pytest
from aiokafka.errors import InvalidSessionTimeoutError, KafkaError, UnknownMemberIdError
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest

from flashfeed.agents.group_member import (
    FencedInstanceIdError,
    _NamedCommit,
    _NamedHeartbeat,
    instance_id,
    refusal,
)
from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import ConfigError, Fenced

OLD, NEW = {12: (0, 1), 8: (0, 3)}, {12: (0, 4), 8: (2, 9)}


def test_the_name_is_the_configuration_s_or_a_variable_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert instance_id(KafkaConfig()) is None
    assert instance_id(KafkaConfig(instance_id="w-1")) == "w-1"
    by_variable = KafkaConfig(instance_id_env="THE_POD")
    monkeypatch.setenv("THE_POD", "flashfeed-0")
    assert instance_id(by_variable) == "flashfeed-0"
    monkeypatch.delenv("THE_POD")
    with pytest.raises(ConfigError, match="THE_POD is not set"):
        instance_id(by_variable)


@pytest.mark.parametrize("wrong", [{"instance_id": "a b"}, {"instance_id": "x" * 250}])
def test_a_name_that_kafka_would_not_take_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, KafkaConfig)
    with pytest.raises(msgspec.ValidationError, match="got both"):
        msgspec.convert({"instance_id": "a", "instance_id_env": "B"}, KafkaConfig)


def test_heartbeats_and_commits_have_the_name_where_brokers_know_of_it() -> None:
    beat = _NamedHeartbeat(HeartbeatRequest("g", 7, "member-1"), "w-1")
    commit = _NamedCommit(
        OffsetCommitRequest("g", 7, "member-1", -1, [("t", [(0, 41, ""), (1, 5, "note")])]), "w-1"
    )
    for request in (beat, commit):
        old, new = request.prepare(OLD), request.prepare(NEW)
        assert b"w-1" not in old.encode() and b"w-1" in new.encode()
        assert type(new).decode(BytesIO(new.encode())) == new
    assert (commit.prepare(NEW).API_VERSION, beat.prepare(NEW).API_VERSION) == (7, 3)
    assert commit.prepare(NEW).topics == [("t", [(0, 41, -1, ""), (1, 5, -1, "note")])]


def test_what_a_user_can_mend_is_said_in_their_words() -> None:
    kafka = KafkaConfig(group="g", instance_id="w-1", session_timeout_s=1.0)
    refused = refusal(InvalidSessionTimeoutError(), kafka)
    assert isinstance(refused, ConfigError)
    assert str(refused).startswith("kafka.session_timeout_s: the brokers refuse 1.0")
    wrapped = KafkaError(f"Unexpected exception in heartbeat task: {FencedInstanceIdError()!r}")
    for error in (FencedInstanceIdError(), wrapped):
        fenced = refusal(error, kafka)
        assert isinstance(fenced, Fenced)
        assert "group 'g' as 'w-1' too" in str(fenced)
    other = UnknownMemberIdError()
    assert refusal(other, kafka) is other


def test_aiokafka_has_no_error_of_that_number_of_its_own() -> None:
    known = aiokafka.errors.for_code(82)
    assert known is FencedInstanceIdError or known is aiokafka.errors.UnknownError
