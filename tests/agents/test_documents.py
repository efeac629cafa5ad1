"""Documents: bounded, of one tenant each, and the same at every worker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from flashfeed.agents import documents as module
from flashfeed.agents.documents import (
    MemoryDocuments,
    Shelf,
    TenantDocuments,
    document_key,
    document_of,
)
from flashfeed.agents.followed_topic import FollowedTopic
from flashfeed.agents.kafka_writer import KafkaWriter
from flashfeed.agents.topics import prepare_topics
from flashfeed.models.config import Config, KafkaConfig, TopicsConfig
from flashfeed.models.errors import ConfigError, RequestError


async def test_a_document_is_what_was_written_last() -> None:
    kept = MemoryDocuments().of("t")
    assert kept.get("agent", "1") is None
    await kept.put("agent", "1", {"name": "one"})
    await kept.put("agent", "2", {"name": "two"})
    await kept.put("agent", "1", {"name": "one again"})
    assert kept.get("agent", "1") == {"name": "one again"}
    assert kept.list("agent") == [("2", {"name": "two"}), ("1", {"name": "one again"})]
    assert kept.list("turn") == []
    assert await kept.delete("agent", "2")
    assert not await kept.delete("agent", "2")
    assert [one for one, _ in kept.list("agent")] == ["1"]


@pytest.mark.parametrize(
    ("tenant", "kind", "document_id"), [("", "a", "b"), ("a/b", "c", "d/e"), ("ä", "%2F", "//")]
)
async def test_a_tenants_documents_are_its_own_whatever_the_names(
    tenant: str, kind: str, document_id: str
) -> None:
    assert document_of(document_key(tenant, kind, document_id)) == (tenant, kind, document_id)
    every = MemoryDocuments()
    await every.of(tenant).put(kind, document_id, {"a": 1})
    assert every.of(tenant + "x").get(kind, document_id) is None
    assert every.of(tenant).list(kind) == [(document_id, {"a": 1})]


async def test_the_least_lately_written_go_when_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KIND_DOCUMENTS_MAX", 3)
    monkeypatch.setattr(module, "KIND_BYTES_MAX", 60)
    kept = MemoryDocuments().of("t")
    for name in "abcad":
        await kept.put("k", name, {"n": name})
    assert [one for one, _ in kept.list("k")] == ["c", "a", "d"]
    await kept.put("k", "big", {"n": "x" * 40})
    assert [one for one, _ in kept.list("k")] == ["d", "big"]
    await kept.put("k", "d", {"n": "y" * 20})  # its old self makes room for the new one
    assert [one for one, _ in kept.list("k")] == ["d"]


async def test_what_is_too_large_or_has_no_name_is_refused() -> None:
    kept = MemoryDocuments().of("t")
    with pytest.raises(RequestError, match="at most 524288 bytes"):
        await kept.put("k", "a", {"n": "x" * 600_000})
    for name in ("", "x" * 600):
        with pytest.raises(RequestError, match="1 to 512 whole characters"):
            await kept.put("k", name, {})


def nested(levels: int) -> Any:
    return {"n": nested(levels - 1)} if levels else 0


@pytest.mark.parametrize("value", ["\ud800", 2**64, -(2**63) - 1, nested(300)])
async def test_what_json_cannot_hold_is_a_callers_fault_and_is_not_kept(value: object) -> None:
    kept = MemoryDocuments().of("t")
    with pytest.raises(RequestError, match="'k a': expected what JSON in UTF-8 can hold: "):
        await kept.put("k", "a", {"n": value})
    with pytest.raises(RequestError, match=r"whole characters, got '\\ud800'"):
        await kept.put("k", "\ud800", {"n": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):  # a fault of ours
        await kept.put("k", "a", {"n": object()})
    assert kept.list("k") == []


def test_what_is_no_document_is_left_out() -> None:
    shelf = Shelf()
    for key in (b"", b"a/b", b"a/b/c/d", b"\xff/a/b"):
        shelf.take(key, b"{}")
    for value in (b"", b"{", b"[1]", b"\xff"):
        shelf.take(b"a/b/c", value)
    assert shelf.kind("a", "b") == {}
    shelf.take(b"a/b/c", b"{}")
    shelf.take(b"a/b/c", b"{garbage")
    assert shelf.kind("a", "b") == {"c": b"{}"}


class Worker:
    """One worker's documents over a broker."""

    def __init__(self, config: Config, writer: KafkaWriter) -> None:
        self.shelf = Shelf()
        self.topic = FollowedTopic(
            config.kafka, config.topics.documents, writer, self.shelf.take, self.failed
        )

    def failed(self, error: BaseException) -> None:
        raise error

    def of(self, tenant: str) -> TenantDocuments:
        return TenantDocuments(self.shelf, self.topic, tenant)


@pytest_asyncio.fixture
async def workers(broker: str) -> AsyncIterator[tuple[Worker, Worker, KafkaWriter, Config]]:
    topics = TopicsConfig(documents=f"documents-{secrets.token_hex(4)}")
    config = Config(kafka=KafkaConfig(brokers=broker), topics=topics)
    await prepare_topics(config)
    writer = KafkaWriter(config.kafka, lambda error: None)
    await writer.start()
    first, second = Worker(config, writer), Worker(config, writer)
    for one in (first, second):
        await one.topic.start()
    yield first, second, writer, config
    for one in (first, second):
        await one.topic.stop()
    await writer.stop()


Started = tuple[Worker, Worker, KafkaWriter, Config]


@pytest.mark.broker
async def test_a_document_is_there_when_put_returns_and_soon_everywhere(workers: Started) -> None:
    first, second, writer, config = workers
    for number in range(5):
        await first.of("t").put("turn", str(number), {"n": number})
        assert first.of("t").get("turn", str(number)) == {"n": number}
    await second.of("t").delete("turn", "0")  # which it may not know of yet
    await second.topic.sync()
    await second.of("t").delete("turn", "0")
    await first.topic.sync()
    expected = [(str(number), {"n": number}) for number in range(1, 5)]
    assert first.of("t").list("turn") == second.of("t").list("turn") == expected
    late = Worker(config, writer)
    await late.topic.start()
    assert late.of("t").list("turn") == expected
    await late.topic.stop()


@pytest.mark.broker
async def test_workers_that_write_at_once_agree_on_what_goes(
    workers: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KIND_DOCUMENTS_MAX", 5)
    first, second, _, _ = workers
    puts = [
        one.of("t").put("k", f"{place}-{number}", {"n": number})
        for number in range(10)
        for place, one in enumerate((first, second))
    ]
    await asyncio.gather(*puts)
    await asyncio.gather(first.topic.sync(), second.topic.sync())
    held = first.of("t").list("k")
    assert held == second.of("t").list("k")
    assert len(held) == 5


@pytest.mark.broker
async def test_a_topic_of_more_partitions_has_no_one_order(broker: str) -> None:
    config = Config(
        kafka=KafkaConfig(brokers=broker, partitions=2),
        # Somebody made it with two: here another of flashfeed's own topics.
        topics=TopicsConfig(documents="split.documents"),
    )
    other = Config(
        kafka=KafkaConfig(brokers=broker, partitions=2),
        topics=TopicsConfig(flash_ready="split.documents"),
    )
    await prepare_topics(other)
    with pytest.raises(ConfigError, match=r"split\.documents must have one partition, has 2"):
        await prepare_topics(config)
