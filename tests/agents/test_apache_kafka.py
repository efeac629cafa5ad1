"""A worker on Apache Kafka, over TLS and SCRAM, as somebody's production brokers are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from prometheus_client import CollectorRegistry

from flashfeed.agents.dead_letters import DeadLetter
from flashfeed.agents.kafka_writer import KafkaWriter
from flashfeed.agents.key_partition import partition_of
from flashfeed.agents.letter_box import LetterBox, read_letters
from flashfeed.agents.letters import Chosen
from flashfeed.agents.metrics import Metrics
from flashfeed.agents.sampling import sample_topics
from flashfeed.agents.stall_watch import StallWatch
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.topics import count_partitions, partition_counts, prepare_topics
from flashfeed.agents.transport import Batch
from flashfeed.cli.demo import write_config
from flashfeed.cli.demo_feed import SYMBOLS, create_source_topics, source_records
from flashfeed.cli.settings import load
from flashfeed.cli.worker_process import scrape, wait_until_ready, worker_process
from flashfeed.models.config import Config, KafkaConfig, TopicsConfig
from flashfeed.models.errors import ConfigError, Unavailable

from apache_kafka import PASSWORD, USER, Node, available, kafka_node
from batch_app import RECORDS, committed, fill, make_app, records_of, run_app, until

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
]
EACH = 2


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with kafka_node(tmp_path_factory.mktemp("kafka")) as running:
        yield running


def secure_config(home: Path, node: Node) -> tuple[Path, int]:
    path, port = write_config(home, node.secure)
    security = f"""
[kafka.sasl]
mechanism = "SCRAM-SHA-512"
username = "{USER}"
password_env = "KAFKA_TEST_PASSWORD"

[kafka.tls]
ca_file = "{node.ca_file}"

[bridge]"""
    path.write_text(path.read_text().replace("\n[bridge]", security, 1))
    return path, port


async def feed(brokers: str) -> int:
    records = list(source_records(EACH))
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    for record in records:
        await producer.send_and_wait(record.topic, record.value, key=record.key)
    await producer.stop()
    return len(records)


SPOILT = b'{"slot":0,"head":{"session_id":'


async def spoil(config: Config, brokers: str, session: str) -> None:
    """A slot of the session's holds half an entry from now on."""
    count = await count_partitions(KafkaConfig(brokers=brokers), [config.topics.changelog])
    partition = partition_of(session, count[config.topics.changelog])
    async with AIOKafkaProducer(bootstrap_servers=brokers) as producer:
        await producer.send_and_wait(
            config.topics.changelog, SPOILT, key=f"{session}/0".encode(), partition=partition
        )


def assert_set_aside(url: str, port: int, log: Path) -> None:
    """The session of the spoilt entry is failed, and told everywhere; the others work. It is
    deleted in the end."""
    state = httpx.get(f"{url}/v1/sessions/cgm-01/state").json()
    assert state["failed"].startswith("changelog_corrupt: entry b'cgm-01/0' at offset")
    other = f"NASDAQ:{SYMBOLS[0]}-USD:1d"
    assert httpx.get(f"{url}/v1/sessions/{other}/state").json()["failed"] == ""
    assert scrape(port, 'flashfeed_session_failures_total{reason="changelog_corrupt"}') == 1
    assert scrape(port, 'flashfeed_dead_letters_total{reason="changelog_corrupt"}') == 1
    assert "session cgm-01 is set aside" in log.read_text()
    asked = httpx.post(f"{url}/v1/sessions/cgm-01/generate", json={"prompt": "?", "max_tokens": 2})
    assert (asked.status_code, "changelog_corrupt" in asked.text) == (409, True), asked.text
    assert httpx.delete(f"{url}/v1/sessions/cgm-01").status_code == 200
    assert httpx.get(f"{url}/v1/sessions/cgm-01/state").status_code == 404


def test_a_worker_reads_and_answers_over_tls_and_scram(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_TEST_PASSWORD", PASSWORD)
    asyncio.run(create_source_topics(node.plain))
    config, port = secure_config(tmp_path, node)
    log = tmp_path / "worker.log"
    with worker_process(config, log) as process:
        wait_until_ready(port, process, log)
        sent = asyncio.run(feed(node.plain))
        deadline = time.monotonic() + 60
        while scrape(port, 'flashfeed_applied_records_total{result="applied"}') < sent:
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        assert scrape(port, "flashfeed_sessions ") == len(SYMBOLS) + 1
    asyncio.run(spoil(load(config), node.plain, "cgm-01"))
    with worker_process(config, log) as process:  # and again, from its changelog
        wait_until_ready(port, process, log)
        assert scrape(port, "flashfeed_sessions ") == len(SYMBOLS) + 1
        assert scrape(port, 'flashfeed_applied_records_total{result="applied"}') == 0
        assert_set_aside(f"http://127.0.0.1:{port}", port, log)
    [letter] = asyncio.run(read_letters(load(config), Chosen()))
    assert (letter.reason, letter.value) == ("changelog_corrupt", SPOILT)


async def test_a_topic_that_a_broker_does_not_know_yet_is_waited_for(node: Node) -> None:
    name = f"late-{time.time_ns()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=node.plain)
    await admin.start()
    try:
        counting = asyncio.create_task(partition_counts(admin, [name]))
        await asyncio.sleep(0.5)
        assert not counting.done()
        await admin.create_topics([NewTopic(name, 3, 1)])
        assert await counting == {name: 3}
    finally:
        await admin.close()


async def send_large(brokers: str, topic: str, key: Any, value: Any, headers: Any) -> int:
    """A record as others write it; its offset in partition 0."""
    async with AIOKafkaProducer(bootstrap_servers=brokers, max_request_size=2**21) as producer:
        held = list(headers)
        sent = await producer.send_and_wait(topic, value, key=key, partition=0, headers=held)
    return int(sent.offset)


LARGE = 1_048_000
"""As large as a record can be, all in all (message.max.bytes is 1 MiB)."""


@pytest.mark.parametrize(
    ("key", "value", "header"),
    [(b"k", LARGE, 0), (b"k", 0, LARGE), (b"k" * LARGE, 0, 0), (b"k", LARGE - 200_000, 200_000)],
)
async def test_a_letter_of_the_largest_record_is_taken_and_replayed_whole(
    node: Node, key: bytes, value: int, header: int
) -> None:
    now, failures = time.time_ns(), list[BaseException]()
    source, topic = f"source-{now}", f"letters-{now}"
    await fill(node.plain, source, 0)
    await fill(node.plain, topic, 0)
    kafka = KafkaConfig(brokers=node.plain)
    whole = (key, b"v" * value, (("h", b"h" * header),))
    writer = KafkaWriter(kafka, failures.append)
    await writer.start()
    try:
        at = await send_large(node.plain, source, *whole)
        letter = DeadLetter(
            source, 0, at, "decode", "$", "x" * 2000, *whole, where="feed f", feed="f"
        )
        await writer.write([letter.write(topic)])
    finally:
        await writer.stop()
    assert failures == [] and writer.failures["too_large"] == 0
    config = Config(kafka=kafka, topics=TopicsConfig(dead_letters=topic))
    [found] = await read_letters(config, Chosen())
    assert found.cut
    box = LetterBox(config, [], Supplies(config, Metrics()), None)
    again = await box._whole(found)
    assert (again.key, again.value, again.headers) == whole
    assert not again.cut


async def refused(config: Config, said: str) -> None:
    """It is refused as soon as the broker has heard of what was changed."""
    for _ in range(100):
        try:
            await prepare_topics(config)
        except ConfigError as error:
            assert said in str(error)
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it is not refused")


async def test_topics_have_the_names_and_sizes_that_are_configured_or_it_is_told(
    node: Node,
) -> None:
    kept = TopicsConfig()
    mine = TopicsConfig(
        **{name: f"mine-{time.time_ns()}.{name}" for name in kept.__struct_fields__}
    )
    three = Config(kafka=KafkaConfig(brokers=node.plain, partitions=3), topics=mine)
    with pytest.raises(Unavailable, match=r"kafka\.replication.*[Rr]eplication factor"):
        kafka = msgspec.structs.replace(three.kafka, replication=2)
        await prepare_topics(msgspec.structs.replace(three, kafka=kafka))
    await prepare_topics(three)
    counts = await count_partitions(
        three.kafka, [mine.records, mine.changelog, mine.owners, mine.answers]
    )
    assert [*counts.values()] == [3, 3, 1, 3]
    more = msgspec.structs.replace(three, kafka=msgspec.structs.replace(three.kafka, partitions=5))
    await prepare_topics(more)  # what is there stays
    admin = AIOKafkaAdminClient(bootstrap_servers=node.plain)
    await admin.start()
    try:
        await admin.create_partitions({mine.records: NewPartitions(4)})
        await refused(three, "same number of partitions, have 4 and 3")
        await admin.create_partitions({mine.changelog: NewPartitions(4)})
        wrong = ConfigResource(ConfigResourceType.TOPIC, mine.changelog)
        wrong.configs = {"cleanup.policy": "delete"}
        await admin.alter_configs([wrong])
        await refused(three, "must have cleanup.policy=compact, has delete")
    finally:
        await admin.close()


async def test_what_lies_on_a_topic_is_sampled(node: Node) -> None:
    topic = f"sampled-{time.time_ns()}"
    await fill(node.plain, topic)
    found = await sample_topics(KafkaConfig(brokers=node.plain), [topic], 10)
    assert len(found) == 10


def test_a_wrong_password_is_told_and_not_shown(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_TEST_PASSWORD", "not-the-password")
    config, _ = secure_config(tmp_path, node)
    command = [sys.executable, "-m", "flashfeed.cli.main", "worker", "-v", "-c", str(config)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "cannot reach the brokers" in ended.stderr
    assert "not-the-password" not in ended.stderr + ended.stdout


def test_a_probe_before_there_is_a_topic_says_so(node: Node, tmp_path: Path) -> None:
    config, answers = tmp_path / "flashfeed.toml", f"answers-{time.time_ns()}"
    asyncio.run(fill(node.plain, answers, 0))
    config.write_text(
        f'[kafka]\nbrokers = "{node.plain}"\nrequest_timeout_s = 8\n'
        f'[topics]\nrecords = "not.there"\nflash_ready = "{answers}"\n'
    )
    command = [sys.executable, "-m", "flashfeed.cli.main", "probe", "-c", str(config)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "not.there: its partitions are not known" in ended.stderr


async def test_a_group_that_never_read_a_topic_can_begin_at_its_end(node: Node) -> None:
    topic = group = f"end-{time.time_ns()}"
    await fill(node.plain, topic)
    got = await run_app(node.plain, group, topic, None, lambda _: True, begins_at_end=(topic,))
    assert not got
    assert await committed(node.plain, group, topic) == {0: RECORDS, 1: RECORDS}
    producer = AIOKafkaProducer(bootstrap_servers=node.plain)
    await producer.start()
    await producer.send_and_wait(topic, b"while it was away", partition=0)
    await producer.stop()
    again = await run_app(node.plain, group, topic, None, bool, begins_at_end=(topic,))
    assert records_of(again, 0) == [RECORDS]
    assert records_of(again, 1) == []


async def test_the_end_of_an_empty_partition_is_remembered(node: Node) -> None:
    topic = group = f"empty-end-{time.time_ns()}"
    await fill(node.plain, topic, 0)
    await run_app(node.plain, group, topic, None, lambda _: True, begins_at_end=(topic,))
    assert await committed(node.plain, group, topic) == {0: 0, 1: 0}
    producer = AIOKafkaProducer(bootstrap_servers=node.plain)
    await producer.start()
    await producer.send_and_wait(topic, b"while it was away", partition=0)
    await producer.stop()
    again = await run_app(node.plain, group, topic, None, bool, begins_at_end=(topic,))
    assert records_of(again, 0) == [0]


async def test_rebalances_while_records_come_hand_none_of_them_away(node: Node) -> None:
    topic = group = f"rebalance-{time.time_ns()}"
    rounds = 3
    await fill(node.plain, topic, 1)
    for number in range(rounds):
        await fill(node.plain, f"{topic}-{number}", 0)
    app = make_app(node.plain, group)
    delivered: set[int] = set()

    async def read(batches: Any) -> None:
        async for event in batches.noack().events():
            if event.value.topic == topic and event.value.partition == 0:
                delivered.update(record.offset for record in event.value.records)
            event.ack()

    app.agent(app.topic(topic, config={"feed": "f"}))(read)
    producer = AIOKafkaProducer(bootstrap_servers=node.plain)
    await producer.start()
    await app.start()
    sent: list[int] = []
    producing = asyncio.create_task(produce_steadily(producer, topic, sent))
    try:
        await until(lambda: 1 in delivered)
        for number in range(rounds):
            app.topics.add_topics("f", [f"{topic}-{number}"])
            await until(lambda n=number: f"{topic}-{n}" in app.consumer.subscribed())
            await asyncio.sleep(4)
        producing.cancel()
        await asyncio.sleep(0)
        await until(lambda: max(sent) in delivered)
        assert sorted(set(sent) - delivered) == []
    finally:
        producing.cancel()
        await app.stop()
        await producer.stop()


async def produce_steadily(producer: AIOKafkaProducer, topic: str, sent: list[int]) -> None:
    while True:
        meta = await producer.send_and_wait(topic, b"x", partition=0)
        sent.append(meta.offset)
        await asyncio.sleep(0.03)


async def test_what_ends_with_a_transactions_marker_does_not_stand_still(node: Node) -> None:
    topic = group = f"transactions-{time.time_ns()}"
    await fill(node.plain, topic, 1)
    producer = AIOKafkaProducer(bootstrap_servers=node.plain, transactional_id=group)
    await producer.start()
    for commits in (True, False):  # the end is behind an aborted record and both markers
        await producer.begin_transaction()
        for partition in (0, 1):
            await producer.send_and_wait(topic, b"x", partition=partition)
        await (producer.commit_transaction() if commits else producer.abort_transaction())
    await producer.stop()
    app, got, registry = make_app(node.plain, group), list[Batch](), CollectorRegistry()

    async def read(batches: Any) -> None:
        async for event in batches.noack().events():
            got.append(event.value)
            event.ack()

    app.agent(app.topic(topic))(read)
    await app.start()
    kafka = KafkaConfig(brokers=node.plain, stalled_s=0.4)
    task = asyncio.create_task(StallWatch(app.consumer, kafka, registry).run())
    try:
        await until(lambda: all(set(records_of(got, n)) >= {0, 1} for n in (0, 1)))
        await asyncio.sleep(2)  # twenty looks
        behind = app.consumer.behind()
        assert {(tp.topic, tp.partition): one.records for tp, one in behind.items()} == {
            (topic, 0): 0,
            (topic, 1): 0,
        }
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await app.stop()
    healed = registry.get_sample_value("flashfeed_silent_partitions_total", {"topic": topic})
    assert healed == 0
