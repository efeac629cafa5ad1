"""Workers and commands on a node that lets in by TLS and password alone, and allows nothing that
was not granted: docs/KAFKA.md's lists are granted as the page has them, and taken again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from flashfeed.agents.connection import faust_credentials
from flashfeed.agents.kafka_writer import KafkaWriter, Write
from flashfeed.agents.own_topics import own_topics
from flashfeed.agents.rights import denied
from flashfeed.agents.topics import prepare_topics
from flashfeed.agents.transactions import Transactions
from flashfeed.cli.demo import write_config
from flashfeed.cli.demo_feed import SYMBOLS, create_source_topics, source_records
from flashfeed.cli.main import main
from flashfeed.cli.settings import load
from flashfeed.cli.worker_process import scrape, wait_until_ready, worker_process
from flashfeed.models.config import Config, KafkaConfig, SaslConfig, TlsConfig
from flashfeed.models.errors import Denied, FlashfeedError, Unavailable, WriteUncertain

from apache_kafka import PASSWORD, READER, USER, Node, available, certificates, kafka_node
from batch_app import make_app, until
from kafka_acls import Acl, acls_of, documented, grant, take

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(not available(), reason="needs java, mvn and openssl"),
]
SOURCES = (*(f"candles-NASDAQ-{symbol}-USD" for symbol in SYMBOLS), "telegraf")
KINDS = {2: "Topic", 3: "Group", 5: "TransactionalId"}
NAMES = {3: "Read", 4: "Write"}


def listed(who: str, user: str) -> list[Acl]:
    """What the page grants, on the demo's topics."""
    lines = [line.replace("User:flashfeed", f"User:{user}") for line in documented(who)]
    lines = [line.replace("User:reader", f"User:{user}") for line in lines]
    sources = " --topic ".join(SOURCES)
    return [acl for line in lines for acl in acls_of(line.replace("candles", sources))]


WORKER = listed("worker", USER)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with kafka_node(tmp_path_factory.mktemp("kafka"), acls=True) as running:
        asyncio.run(make_topics(running))
        asyncio.run(grant(running.plain, [*WORKER, *listed("reader", READER)]))
        yield running


async def make_topics(node: Node) -> None:
    """As whoever runs the brokers makes them."""
    await create_source_topics(node.plain)
    admin = AIOKafkaAdminClient(bootstrap_servers=node.plain)
    await admin.start()
    await admin.create_topics(own_topics(Config(kafka=KafkaConfig(partitions=1))))
    await admin.close()


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_TEST_PASSWORD", PASSWORD)
    monkeypatch.setenv("KAFKA_TEST_WRONG", "not-the-password")


def login(mechanism: str = "SCRAM-SHA-256", user: str = USER, env: str = "KAFKA_TEST_PASSWORD") -> (
    SaslConfig
):  # fmt: skip
    return SaslConfig(mechanism=mechanism, username=user, password_env=env)  # type: ignore[arg-type]


@pytest.fixture
def kafka(node: Node) -> KafkaConfig:
    tls = TlsConfig(ca_file=str(node.ca_file))
    return KafkaConfig(
        brokers=node.secure, partitions=1, request_timeout_s=8, sasl=login(), tls=tls
    )


def file_of(home: Path, node: Node, sasl: SaslConfig, ca_file: Path | None = None) -> Path:
    """The demo's configuration, over TLS."""
    path, _ = write_config(home, node.secure)
    security = (
        f'\n[kafka.sasl]\nmechanism = "{sasl.mechanism}"\nusername = "{sasl.username}"\n'
        f'password_env = "{sasl.password_env}"\n\n'
        f'[kafka.tls]\nca_file = "{ca_file or node.ca_file}"\n\n[bridge]'
    )
    text = path.read_text().replace("\n[bridge]", security, 1)
    path.write_text(text.replace("flashfeed-demo", KafkaConfig().group))
    return path


# -- who is let in ----------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_each_login_works(kafka: KafkaConfig, mechanism: str) -> None:
    found = await prepare_topics(
        Config(kafka=msgspec.structs.replace(kafka, sasl=login(mechanism)))
    )
    assert "flashfeed.records" in found.existing


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (m, {"sasl": login(m, env="KAFKA_TEST_WRONG")}, f"does not let user 'alice' in by {m}")
    for m in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
] + [
    ("nobody", {"sasl": login(user="bob")}, "does not let user 'bob' in"),
    ("system", {"tls": TlsConfig()}, "certificate is not trusted.*kafka.tls.ca_file"),
    ("no tls", {"tls": None}, r"does this port want TLS \(\[kafka.tls\]\)"),
    ("no sasl", {"sasl": None}, r"does it want a login \(\[kafka.sasl\]\)"),
]


@pytest.mark.parametrize(
    ("change", "said"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG]
)
async def test_what_is_wrong_with_a_connection_names_its_setting(
    kafka: KafkaConfig, change: dict[str, Any], said: str
) -> None:
    wrong = Config(kafka=msgspec.structs.replace(kafka, **change))
    with pytest.raises(Unavailable, match=said) as raised:
        await asyncio.wait_for(prepare_topics(wrong), 30)
    assert "not-the-password" not in str(raised.value)


async def test_a_wrong_authority_or_address_is_told(
    node: Node, kafka: KafkaConfig, tmp_path: Path
) -> None:
    other, _ = certificates(tmp_path)
    host = node.secure.replace("127.0.0.1", "localhost")
    for change, said in (
        ({"tls": TlsConfig(ca_file=str(other))}, "certificate is not trusted"),
        ({"brokers": host}, "certificate is another host's.*localhost"),
        ({"brokers": node.plain}, "does this port speak TLS"),
        ({"brokers": node.plain, "tls": None}, "asks for no login"),
        ({"brokers": f"127.0.0.1:1,{node.plain}"}, "127.0.0.1:1: nobody listens there.*speak TLS"),
    ):
        wrong = Config(kafka=msgspec.structs.replace(kafka, **change))
        with pytest.raises(Unavailable, match=said):
            await asyncio.wait_for(prepare_topics(wrong), 30)


COMMANDS = (
    ("tail",),
    ("dead-letters", "list"),
    ("targets",),
    ("feeds", "guess", "--topic", "telegraf"),
    ("probe", "--timeout", "2"),
    ("replay", "--from", "1h"),
)


def run(capsys: pytest.CaptureFixture[str], *command: object) -> tuple[int, str]:
    """A command's code and all that it said."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in command])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one[0])
def test_every_command_says_who_is_not_let_in(
    node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    config = file_of(tmp_path, node, login("SCRAM-SHA-512", env="KAFKA_TEST_WRONG"))
    code, said = run(capsys, *command, "-c", config)
    assert code == 1
    assert "does not let user 'alice' in by SCRAM-SHA-512" in said
    assert "not-the-password" not in said


# -- who may do what --------------------------------------------------------------------


@pytest.mark.parametrize(
    "acl",
    # What a pattern is to match and the user may not see, it does not match.
    [one for one in WORKER if not one[1].startswith("candles")],
    ids=lambda one: f"{NAMES[one[5]]}-{one[1]}",
)
async def test_without_any_of_the_listed_rights_a_worker_names_it(
    node: Node, kafka: KafkaConfig, tmp_path: Path, acl: Acl
) -> None:
    config = msgspec.structs.replace(load(write_config(tmp_path, node.secure)[0]), kafka=kafka)
    await take(node.plain, [acl])
    try:
        with pytest.raises(Unavailable) as raised:
            await prepare_topics(config)
            writer = KafkaWriter(kafka, lambda _: None)
            await writer.start()
            try:
                await Transactions(kafka.group, 0, writer, print, print).start()
            finally:
                await writer.stop()
        said = str(raised.value)
        assert all(word in said for word in (NAMES[acl[5]], KINDS[acl[0]], acl[1])), said
    finally:
        await grant(node.plain, [acl])


async def test_topics_that_are_not_there_are_asked_for_by_name(
    node: Node, kafka: KafkaConfig
) -> None:
    topics = msgspec.structs.replace(Config().topics, answers="not.there")
    with pytest.raises(Denied, match=r"not\.there are not there at all.*grant Create"):
        await prepare_topics(Config(kafka=kafka, topics=topics))
    create = acls_of(
        f"kafka-acls.sh --add --allow-principal User:{USER} --operation Write --topic not.there"
    )
    await grant(node.plain, create)  # it may be seen then
    with pytest.raises(Denied, match=r"there is no topic not\.there, and user 'alice' may not"):
        await prepare_topics(Config(kafka=kafka, topics=topics))


async def test_a_group_that_is_taken_away_stops_its_reader_by_name(
    node: Node, kafka: KafkaConfig
) -> None:
    [acl] = [one for one in WORKER if KINDS[one[0]] == "Group"]
    app = make_app(
        node.secure, "flashfeed", broker_credentials=faust_credentials(kafka)
    )  # fmt: skip

    async def read(batches: Any) -> None:
        async for event in batches.noack().events():
            event.ack()

    app.agent(app.topic("telegraf"))(read)
    await app.start()
    try:
        await until(app.consumer.assignment)
        await take(node.plain, [acl])
        await until(lambda: app.crashed or app.consumer.crashed)
        said = denied(app.crash_reason or app.consumer.crash_reason)
        assert said.endswith("grant Read on Group flashfeed")
    finally:
        await grant(node.plain, [acl])
        await app.stop()


async def test_a_write_that_is_not_allowed_any_more_is_named_and_the_last(
    node: Node, kafka: KafkaConfig
) -> None:
    failures: list[BaseException] = []
    topic = "flashfeed.data_updated"
    [acl] = [one for one in WORKER if one[1] == topic]
    one = Write(topic, b"k", b"v")
    for transactional in (True, False):
        writer = KafkaWriter(kafka, failures.append)
        await writer.start()
        steps = Transactions(kafka.group, 0, writer, print, print)
        await steps.start()
        write = steps.write if transactional else writer.write
        await write([one])
        await take(node.plain, [acl])
        try:
            with pytest.raises(WriteUncertain, match=f"grant Write on Topic {topic}"):
                await write([one])
            with pytest.raises(FlashfeedError):  # nothing goes out behind it
                await write([Write("flashfeed.answers", b"k", b"v")])
        finally:
            await grant(node.plain, [acl])
            await steps.stop()
            await writer.stop()
    assert len(failures) == 2


# -- the whole --------------------------------------------------------------------------


async def feed(node: Node) -> int:
    records = list(itertools.islice(source_records(2), 6))
    async with AIOKafkaProducer(bootstrap_servers=node.plain) as producer:
        for record in records:
            await producer.send_and_wait(record.topic, record.value, key=record.key)
    return len(records)


@pytest.mark.model
def test_with_the_listed_rights_a_worker_works_and_with_one_taken_it_ends_by_name(
    node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = file_of(tmp_path, node, login("SCRAM-SHA-512"))
    port, log = load(config).bridge.port, tmp_path / "worker.log"
    with worker_process(config, log) as process:
        wait_until_ready(port, process, log)
        sent = asyncio.run(feed(node))
        asyncio.run(applied(port, sent))
        (home := tmp_path / "reader").mkdir()
        reads(file_of(home, node, login("PLAIN", READER)), capsys)
        [acl] = [one for one in WORKER if one[1] == "telegraf"]
        asyncio.run(take(node.plain, [acl]))
        try:
            assert process.wait(30) == 1
        finally:
            asyncio.run(grant(node.plain, [acl]))
    last = log.read_text().splitlines()[-1]
    assert "grant Read on Topic telegraf" in last


async def applied(port: int, records: int) -> None:
    await until(lambda: scrape(port, "flashfeed_applied_records_total") >= records, 60)


def reads(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that reads, by a user who may do nothing else."""
    for command in (
        ("tail", "--from-beginning", "-n", "1"),
        ("dead-letters", "list"),
        ("targets",),
        ("feeds", "guess", "--topic", "telegraf"),
    ):
        code, said = run(capsys, *command, "-c", config)
        assert code == 0, said
    code, said = run(capsys, "probe", "--timeout", "2", "-c", config)
    assert (code, "grant" in said) == (1, True), said
