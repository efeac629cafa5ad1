"""Steps in transactions on Apache Kafka: who lost a partition writes nothing more, and who reads
what is committed sees each version once, with nothing to drop."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from flashfeed.agents.kafka_writer import KafkaWriter, Write
from flashfeed.agents.step_writer import BREAKS_MAX, KafkaStepWriter
from flashfeed.agents.transactions import Transactions
from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import Fenced, RequestError, Unavailable, WriteUncertain

from apache_kafka import available, kafka_node
from cluster import Group, group_of
from plant import MORE, Feed, committed, create, expect_each_once, held, until_all_have

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
]
EACH, RATE = 60, 9.0  # the rate: records a second
SESSION_TIMEOUT_S = 6.0  # the least that a broker allows, as it comes


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with kafka_node(tmp_path_factory.mktemp("kafka")) as node:
        yield node.plain


class Rig:
    """What one worker has to write with."""

    def __init__(self, brokers: str, group: str) -> None:
        self.kafka = KafkaConfig(brokers=brokers, group=group, session_timeout_s=1.0)
        self.failures: list[BaseException] = []
        self.writer = KafkaWriter(self.kafka, self.failures.append)
        self.steps = KafkaStepWriter(self.kafka, self.writer, self.failures.append)

    async def __aenter__(self) -> Rig:
        await self.writer.start()
        await self.steps.open(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.steps.close(0)
        await self.writer.stop()


async def test_steps_that_wait_together_are_all_there(brokers: str) -> None:
    topic = f"steps-{time.time_ns()}"
    await create(brokers, topic)
    async with Rig(brokers, topic) as rig:
        assert rig.steps.atomic
        writes = [[Write(topic, b"k", b"%d" % number)] for number in range(60)]
        thirds = zip(writes[::3], writes[1::3], writes[2::3], strict=True)
        await asyncio.gather(*(rig.steps.publish(0, *third) for third in thirds))
        assert not rig.failures
    got = await committed(brokers, topic)
    assert sorted(int(one.value) for one in got) == list(range(60))
    offsets = [one.offset for one in got]
    assert offsets[-1] - len(offsets) + 1 < 20  # markers between them: fewer than steps


async def test_a_step_with_a_record_too_large_is_refused_alone(brokers: str) -> None:
    topic = f"large-{time.time_ns()}"
    await create(brokers, topic)
    async with Rig(brokers, topic) as rig:
        large = rig.steps.publish(
            0, [Write(topic, b"k", b"a")], [], [Write(topic, b"k", b"x" * 2_000_000)]
        )
        small = rig.steps.publish(0, [], [Write(topic, b"k", b"b")], [])
        done = await asyncio.gather(large, small, return_exceptions=True)
        assert isinstance(done[0], RequestError) and done[1] is None
        await rig.steps.publish(0, [], [Write(topic, b"k", b"c")], [])
    assert [one.value for one in await committed(brokers, topic)] == [b"b", b"c"]


async def test_who_lost_the_partition_is_fenced(brokers: str) -> None:
    topic = f"fenced-{time.time_ns()}"
    await create(brokers, topic)
    async with Rig(brokers, topic) as old:
        await old.steps.publish(0, [], [Write(topic, b"k", b"old")], [])
        async with Rig(brokers, topic) as new:
            for _ in range(2):
                with pytest.raises(Fenced):
                    await old.steps.publish(0, [], [Write(topic, b"k", b"zombie")], [])
            await new.steps.publish(0, [], [Write(topic, b"k", b"new")], [])
            assert not new.failures
        assert not old.failures  # the group will say whose it is
        await asyncio.sleep(6)  # it does not
        [failure] = old.failures
        assert isinstance(failure, Unavailable) and "kafka.group" in str(failure)
        assert old.writer.failures["fenced"] == 1
    assert [one.value for one in await committed(brokers, topic)] == [b"old", b"new"]


async def test_what_was_under_way_is_aborted_by_who_comes(brokers: str) -> None:
    """A worker that was stopped in the middle: its half step is not there, and who reads does
    not wait for it."""
    topic = f"halfway-{time.time_ns()}"
    await create(brokers, topic)
    kafka = KafkaConfig(brokers=brokers, group=topic)
    zombie = AIOKafkaProducer(
        bootstrap_servers=brokers,
        transactional_id=Transactions(topic, 0, KafkaWriter(kafka, print), print, print).id,
    )
    await zombie.start()
    await zombie.begin_transaction()
    await zombie.send_and_wait(topic, b"half")
    async with Rig(brokers, topic) as rig:
        await rig.steps.publish(0, [], [Write(topic, b"k", b"whole")], [])
        assert [one.value for one in await committed(brokers, topic)] == [b"whole"]
    await zombie.stop()


async def test_a_transaction_whose_end_is_not_known_is_ended_by_who_begins_anew(
    brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the broker that has it goes away: the worker stops only where that goes on."""
    topic = f"uncertain-{time.time_ns()}"
    await create(brokers, topic)
    broken: list[int] = []
    async with Rig(brokers, topic) as rig:
        rig.steps.on_broken(broken.append)
        for number in range(BREAKS_MAX + 1):
            assert not rig.failures
            with monkeypatch.context() as short:
                short.setattr("flashfeed.agents.transactions.COMMIT_MAX_S", 0.001)
                with pytest.raises(Fenced, match="begun anew"):
                    await rig.steps.publish(0, [], [Write(topic, b"k", b"?")], [])
            assert rig.steps.broken(0)
            await rig.steps.close(0)
            await rig.steps.open(0)
            await rig.steps.publish(0, [], [Write(topic, b"k", b"%d" % number)], [])
        [failure] = rig.failures
        assert isinstance(failure, WriteUncertain)
    assert broken == [0] * BREAKS_MAX
    known = [one.value for one in await committed(brokers, topic) if one.value != b"?"]
    assert known == [b"%d" % number for number in range(BREAKS_MAX + 1)]


async def test_a_cluster_that_cannot_keep_transactions_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka would ask for ever, and the worker never be ready."""
    monkeypatch.setattr("flashfeed.agents.transactions.START_MAX_S", 4.0)
    with kafka_node(tmp_path, transaction_replicas=3) as node:
        kafka = KafkaConfig(brokers=node.plain)
        writer = KafkaWriter(kafka, print)
        await writer.start()
        steps = KafkaStepWriter(kafka, writer, print)
        assert steps.atomic
        with pytest.raises(Unavailable, match=r"replication\.factor.*transactions = false"):
            await steps.open(0)
        with pytest.raises(Fenced):
            await steps.publish(0, [], [], [])
        await writer.stop()


async def test_transactions_can_be_left_out(brokers: str) -> None:
    topic = f"without-{time.time_ns()}"
    await create(brokers, topic)
    kafka = KafkaConfig(brokers=brokers, group=topic, transactions=False)
    writer = KafkaWriter(kafka, print)
    await writer.start()
    steps = KafkaStepWriter(kafka, writer, print)
    assert writer.idempotent and not steps.atomic and "without" in steps.guarantee
    await steps.open(0)
    await steps.publish(0, [], [Write(topic, b"k", b"x")], [])
    await steps.close(0)
    await writer.stop()
    assert [one.value for one in await committed(brokers, topic)] == [b"x"]


async def trouble(group: Group) -> None:
    """Each worker is stopped for longer than its session lasts, and woken; one is killed."""
    for member in group.members:
        await asyncio.sleep(1.5)
        member.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(SESSION_TIMEOUT_S * 1.8)
        member.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(SESSION_TIMEOUT_S)
    group.members[0].kill()
    await asyncio.to_thread(group.members[0].restart)


@pytest.mark.model
async def test_an_owner_that_was_fenced_by_a_straggler_goes_on(
    brokers: str, tmp_path: Path
) -> None:
    """A worker that stalls between its claim and its first transaction fences, once it wakes,
    who has the partition by then; the group knows of no change, and nothing rebalances."""
    topic = f"straggler-{time.time_ns()}"
    await create(brokers, topic)
    home = tmp_path / topic
    home.mkdir()
    sent: list[int] = []
    async with AIOKafkaProducer(bootstrap_servers=brokers) as source:

        async def feed_one() -> None:
            value = json.dumps({"sid": "s", "val": len(sent)}).encode()
            sent.append((await source.send_and_wait(topic, value, key=b"s")).offset)

        async def reaches(group: Group) -> None:
            deadline = time.monotonic() + 60
            # A block's first line has the sensor's name before its value.
            while str(len(sent) - 1) not in (await held(group, "s"))[-1].split()[:2]:
                assert time.monotonic() < deadline, group.members[0].log.read_text()[-3000:]
                await asyncio.sleep(0.2)

        more = MORE.format(topic=topic)
        with group_of(brokers, home, count=1, partitions=1, more=more) as group:
            await feed_one()
            await reaches(group)
            straggler = AIOKafkaProducer(
                bootstrap_servers=brokers, transactional_id=f"{group.name}-0"
            )
            await straggler.start()
            for _ in range(3):
                await feed_one()
            await reaches(group)
            await straggler.stop()
            member = group.members[0]
            assert member.process.poll() is None
            assert "is begun anew: its writes broke off" in member.log.read_text()
        updated = await committed(brokers, f"{group.name}.data_updated")
    origins = [one for record in updated for one in json.loads(record.value)["origins"]]
    covered = [at for one in origins for at in range(one["first"], one["last"] + 1)]
    assert covered == sent


@pytest.mark.model
async def test_stopped_and_killed_workers_write_each_version_once(
    brokers: str, tmp_path: Path
) -> None:
    topic = f"plant-{time.time_ns()}"
    await create(brokers, topic, 4)
    home = tmp_path / topic
    home.mkdir()
    more = MORE.format(topic=topic)
    kafka = f"session_timeout_s = {SESSION_TIMEOUT_S}"
    feed = Feed(brokers, topic, RATE, EACH)
    with group_of(brokers, home, more=more, kafka=kafka) as group:
        await asyncio.gather(feed.run(), trouble(group))
        await until_all_have(group, feed.last)
        await expect_each_once(group, feed.sent)
        logs = [one.log.read_text() for one in group.members]
        assert all(one.process.poll() is None for one in group.members), logs
    assert sum("the worker cannot go on" in log for log in logs) == 0
