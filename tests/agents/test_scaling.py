"""Several workers of one group on Apache Kafka, as real processes: they come and go while the
feed runs, keep their partitions over a restart, and say why the group refuses them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.worker_process import scrape, start_worker, wait_until_ready
from flashfeed.models.errors import Unavailable

from apache_kafka import available, kafka_node
from cluster import Group, Member, group_of, read_owners
from plant import MORE, Feed, create, expect_each_once, until_all_have

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
]
RATE = 12.0  # records a second


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with kafka_node(tmp_path_factory.mktemp("kafka")) as node:
        yield node.plain


@pytest.fixture
async def topic(brokers: str) -> str:
    name = f"plant-{time.time_ns()}"
    await create(brokers, name, 4)
    return name


def home_of(tmp_path: Path, topic: str) -> Path:
    """A folder whose name is the group's."""
    home = tmp_path / topic
    home.mkdir()
    return home


async def grow_and_shrink(group: Group) -> list[int]:
    """From one worker to four and back to one, each stopped as a service manager would; their
    exit codes."""
    await asyncio.sleep(2)
    await asyncio.to_thread(group.join, 3)
    for _ in range(100):
        owners = await read_owners(group.brokers, f"{group.name}.owners")
        if len(owners) == len(set(owners.values())) == 4:
            break
    assert len(set(owners.values())) == 4, owners
    await asyncio.sleep(2)
    first, *others = group.members
    assert first.process.poll() is None
    return [await asyncio.to_thread(one.stop) for one in (others[0], first, others[1])]


async def test_one_worker_four_and_one_again_lose_and_repeat_nothing(
    brokers: str, topic: str, tmp_path: Path
) -> None:
    home = home_of(tmp_path, topic)
    more = f'snapshots = "{home / "kv"}"\n' + MORE.format(topic=topic)
    feed = Feed(brokers, topic, RATE)
    with group_of(brokers, home, count=1, more=more) as group:
        feeding = asyncio.create_task(feed.run())
        try:
            codes = await grow_and_shrink(group)
            feed.stop()
            await feeding
        finally:
            feeding.cancel()
        last = group.members[-1]
        logs = [one.log.read_text() for one in group.members]
        assert codes == [0, 0, 0], logs
        await until_all_have(group, feed.last)
        await expect_each_once(group, feed.sent)
        # What it took over was in a folder that the workers share.
        assert scrape(last.port, 'flashfeed_engine_restores_total{source="snapshot"}') > 0
        assert last.process.poll() is None
    assert not [log for log in logs if "the worker cannot go on" in log]


def another_of(group: Group, member: Member) -> Member:
    """A second worker with all of a member's settings but its port."""
    port = free_port()
    config, log = member.config.with_name("another.toml"), member.log.with_name("another.log")
    text = member.config.read_text()
    config.write_text(text.replace(f"port = {member.port}", f"port = {port}"))
    url = f"http://127.0.0.1:{port}"
    group.members.append(Member(url, port, config, log, start_worker(config, log)))
    return group.members[-1]


async def test_a_static_member_that_is_back_in_time_moves_nothing_and_its_name_is_its_own(
    brokers: str, topic: str, tmp_path: Path
) -> None:
    home = home_of(tmp_path, topic)
    more, kafka = MORE.format(topic=topic), 'instance_id = "w-NUMBER"\nsession_timeout_s = 30.0'
    feed = Feed(brokers, topic, RATE)

    async def owners() -> dict[int, str]:
        return await read_owners(brokers, f"{group.name}.owners")

    with group_of(brokers, home, more=more, kafka=kafka) as group:
        one, other = group.members
        while len(before := await owners()) < 4 or len(set(before.values())) < 2:
            await asyncio.sleep(0.2)
        feeding = asyncio.create_task(feed.run())
        try:
            moves = scrape(other.port, "flashfeed_rebalances_total")
            assert await asyncio.to_thread(one.stop) == 0
            await asyncio.to_thread(one.restart)
            assert await owners() == before
            assert scrape(other.port, "flashfeed_rebalances_total") == moves

            another = another_of(group, one)  # the first of the name has to go, and says why
            code = await asyncio.to_thread(one.process.wait, 60)
            assert code == 1
            said = one.log.read_text()
            assert "as 'w-0' too, and this one is fenced (FencedInstanceIdError)" in said, said
            await asyncio.to_thread(wait_until_ready, another.port, another.process, another.log)
            feed.stop()
            await feeding
        finally:
            feeding.cancel()
        await until_all_have(group, feed.last)
        await expect_each_once(group, feed.sent)
        assert scrape(other.port, "flashfeed_rebalances_total") == moves


async def test_a_session_timeout_that_the_brokers_refuse_is_told_and_ends_the_worker(
    brokers: str, topic: str, tmp_path: Path
) -> None:
    home = home_of(tmp_path, topic)
    refused = pytest.raises(Unavailable, match=r"session_timeout_s: the brokers refuse 1\.0")
    with refused, group_of(brokers, home, count=1, kafka="session_timeout_s = 1.0"):
        raise AssertionError("it came to be ready")
