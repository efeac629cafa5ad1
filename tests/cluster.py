"""Two workers of one group over one embedded broker, as real processes, and who owns what."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from flashfeed.agents.key_partition import partition_of
from flashfeed.agents.owners import Owners
from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.worker_process import start_worker, stop_worker, wait_until_ready

SECRET = "a secret of this group's workers"
os.environ["FLASHFEED_TEST_CLUSTER_SECRET"] = SECRET

TOML = """
[kafka]
brokers = "{brokers}"
group = "{group}"
partitions = {partitions}
{kafka}

[topics]
records = "{group}.records"
changelog = "{group}.changelog"
dead_letters = "{group}.dead_letters"
flash_ready = "{group}.flash_ready"
data_updated = "{group}.data_updated"
answers = "{group}.answers"
owners = "{group}.owners"
documents = "{group}.documents"

[bridge]
port = {port}
{bridge}

[engine]
context_tokens = 1024
sessions_max = 16
{more}
"""
CLUSTER = """
[cluster]
secret_env = "FLASHFEED_TEST_CLUSTER_SECRET"
"""


@dataclass
class Member:
    """One worker of the group."""

    url: str
    port: int
    config: Path
    log: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """A clean stop, as a service manager asks for it; the exit code, -9 after 15 s."""
        return stop_worker(self.process)

    def restart(self) -> None:
        """Start it again, at the same address."""
        self.process = start_worker(self.config, self.log)
        wait_until_ready(self.port, self.process, self.log)


@dataclass
class Group:
    """The workers of a group, and where their owners are published."""

    brokers: str
    name: str
    partitions: int
    members: list[Member]
    begin: Callable[[], Member]

    def join(self, count: int) -> None:
        """Start so many workers more, and wait until all are ready."""
        fresh = [self.begin() for _ in range(count)]
        for one in fresh:
            wait_until_ready(one.port, one.process, one.log)

    def owners(self) -> dict[int, str]:
        """The URL of each partition's owner, as the topic has it now."""
        return asyncio.run(read_owners(self.brokers, f"{self.name}.owners"))

    def owner_of(self, session_id: str) -> str:
        """The URL of a session's owner."""
        return self.owners()[partition_of(session_id, self.partitions)]


async def read_owners(brokers: str, topic: str) -> dict[int, str]:
    """The URL of the owner of each partition that is live."""
    owners = Owners("the test")
    place = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    await consumer.start()
    try:
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        while fetched := await consumer.getmany(place, timeout_ms=700):
            for record in fetched[place]:
                if record.key.isdigit():
                    owners.take(record.key, record.value)
    finally:
        await consumer.stop()
    return {owner.partition: owner.url for owner in owners.live()}


@contextlib.contextmanager
def group_of(
    brokers: str,
    home: Path,
    count: int = 2,
    partitions: int = 4,
    bridge: str = "",
    more: str = CLUSTER,
    kafka: str = "",
) -> Iterator[Group]:
    """Workers that are ready, started at once. NUMBER in `kafka` is each one's number."""
    members: list[Member] = []

    def begin() -> Member:
        number, port = len(members), free_port()
        config, log = home / f"worker{number}.toml", home / f"worker{number}.log"
        text = TOML.format(
            brokers=brokers,
            group=home.name,
            partitions=partitions,
            port=port,
            bridge=bridge,
            more=more,
            kafka=kafka.replace("NUMBER", str(number)),
        )
        config.write_text(text)
        url = f"http://127.0.0.1:{port}"
        members.append(Member(url, port, config, log, start_worker(config, log)))
        return members[-1]

    group = Group(brokers, home.name, partitions, members, begin)
    try:
        group.join(count)
        yield group
    finally:
        for one in members:
            stop_worker(one.process)
