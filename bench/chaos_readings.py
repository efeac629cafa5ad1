"""What there is in the end: what is committed on the topics, and what the sessions hold."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import httpx
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from chaos_expected import expected_lines, unique
from chaos_feed import LARGE_BYTES, Candle, Sent
from chaos_rig import SOURCE, Rig
from chaos_verdict import Answered, Claim, Final, Place, Source, Updated, logits_apart

from flashfeed.agents.barrier import is_barrier
from flashfeed.agents.session_engine import engine_spec
from flashfeed.cli.settings import load
from flashfeed.cli.worker import engine_for
from flashfeed.models.config import Config, TopicsConfig
from flashfeed.models.ownership import decode_owner
from flashfeed.models.state import GRAVE_SLOT, Head, decode_entry

TOPICS = TopicsConfig()
READ_MAX_S = 60.0
ANSWER_MAX_S = 60.0
LOGITS_WITHIN = 0.1


async def send(
    brokers: str, records: Iterable[Sent], rate: float, stop: asyncio.Event
) -> list[Source]:
    """Feed so many records a second until `stop` is set; each once, where it now lies."""
    sent: list[tuple[Sent, float, asyncio.Future[Any]]] = []
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers,
        enable_idempotence=True,
        acks="all",
        max_request_size=2 * LARGE_BYTES,
    )
    began = time.monotonic()
    async with producer:
        for number, one in enumerate(records):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            if stop.is_set():
                break
            future = await producer.send(SOURCE, one.value, key=one.session.encode())
            sent.append((one, time.time(), future))
        await producer.flush()
    return [
        Source(one.session, (at.partition, at.offset), one.candle, one.twice, sent_s)
        for one, sent_s, at in [(one, sent_s, done.result()) for one, sent_s, done in sent]
    ]


async def committed(brokers: str, topic: str) -> list[Any]:
    """All that a reader of what is committed gets, each partition in order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, isolation_level="read_committed")
    found: dict[TopicPartition, list[Any]] = defaultdict(list)
    async with consumer:
        while not (numbers := consumer.partitions_for_topic(topic)):
            await consumer._client.add_topic(topic)
            await asyncio.sleep(0.2)
        places = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        deadline = time.monotonic() + READ_MAX_S
        while True:
            behind = [one for one in places if await consumer.position(one) < ends[one]]
            if not behind:
                return [record for one in places for record in found[one]]
            if time.monotonic() > deadline:
                raise SystemExit(f"{topic}: {behind} cannot be read to its end")
            for place, records in (await consumer.getmany(*behind, timeout_ms=500)).items():
                found[place] += records


async def updates(brokers: str) -> list[Updated]:
    """Every data_updated, in its topic's order."""
    found = []
    for record in await committed(brokers, TOPICS.data_updated):
        event = orjson.loads(record.value)
        origins = tuple((one["partition"], one["first"], one["last"]) for one in event["origins"])
        name, version = event["session_id"], event["data_version"]
        found.append(Updated(_id(record), name, version, origins, _seconds(event["updated_at"])))
    return found


async def answers(brokers: str) -> tuple[list[Answered], dict[str, dict[str, float]]]:
    """Every flash_ready, and each session's last distribution over the choices."""
    found, last = [], {}
    for record in await committed(brokers, TOPICS.flash_ready):
        event = orjson.loads(record.value)
        name = event["session_id"]
        found.append(Answered(_id(record), name, event["data_version"], event["id"]))
        last[name] = event["probabilities"]
    return found, last


async def letters(brokers: str) -> set[Place]:
    """The source records that became dead letters."""
    found = set()
    for record in await committed(brokers, TOPICS.dead_letters):
        headers = dict(record.headers)
        if headers["flashfeed_topic"] == SOURCE.encode():
            found.add((int(headers["flashfeed_partition"]), int(headers["flashfeed_offset"])))
    return found


async def claims(brokers: str) -> list[Claim]:
    """Who took which partition when."""
    return [
        Claim(int(record.key), decode_owner(record.value).url, record.timestamp / 1000)
        for record in await committed(brokers, TOPICS.owners)
        if record.key.isdigit() and record.value
    ]


async def heads(brokers: str) -> dict[str, Head]:
    """Each session's newest head in the changelog."""
    newest: dict[str, Head] = {}
    for record in await committed(brokers, TOPICS.changelog):
        if record.value is None or is_barrier(record.key):
            continue
        if record.key.endswith(f"/{GRAVE_SLOT}".encode()):
            continue
        head = decode_entry(record.value).head
        known = newest.get(head.session_id)
        if known is None or head.steps > known.steps:
            newest[head.session_id] = head
    return newest


def finals(states: Mapping[str, dict[str, Any]], heads: Mapping[str, Head]) -> dict[str, Final]:
    """The sessions in the end: the version as the bridge says it, what it counts as its
    changelog does."""
    return {
        name: Final(state["data_version"], heads[name].written if name in heads else 0)
        for name, state in states.items()
    }


async def held(rig: Rig, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each session's state, asked of the workers in turn; those that nobody has are left out."""
    found: dict[str, dict[str, Any]] = {}
    async with httpx.AsyncClient(timeout=30) as http:
        for number, name in enumerate(names):
            deadline = time.monotonic() + ANSWER_MAX_S
            while name not in found and time.monotonic() < deadline:
                for turn in range(len(rig.seats)):
                    seat = rig.seats[(number + turn) % len(rig.seats)]
                    try:
                        got = await http.get(f"{seat.url}/v1/sessions/{name}/state")
                    except httpx.HTTPError:
                        continue
                    if got.status_code == 200:
                        found[name] = got.json()
                        break
                else:
                    await asyncio.sleep(0.5)
    return found


class Compared(NamedTuple):
    """What is wrong with the sessions' contexts and answers, how many answers were asked for
    again, and how far their logits were apart at most."""

    wrong: list[str]
    answers: int
    logits_apart_max: float


async def compare(
    config: Config,
    candles: Mapping[str, list[Candle]],
    states: Mapping[str, dict[str, Any]],
    last: Mapping[str, Mapping[str, float]],
    sample: Iterable[str],
) -> Compared:
    """Each session against a fresh context over what its records give; the answers of some."""
    spec = config.templates["market"].spec()
    opened = engine_spec(Head("", spec))
    chosen, apart = set(sample), [0.0]
    wrong: list[str] = []
    engine = engine_for(config, snapshots=None)
    engine.start()
    try:
        for name in sorted(candles):
            if name not in states:
                wrong.append(f"{name}: nobody has it")
                continue
            if states[name]["failed"]:
                wrong.append(f"{name}: failed: {states[name]['failed']}")
                continue
            lines = expected_lines(candles[name], name, spec)
            await engine.open(name, opened, lines, count=len(unique(candles[name])))
            expected = (await engine.inspect(name)).text
            if states[name]["context_text"] != expected:
                wrong.append(f"{name}: expected {expected!r}, got {states[name]['context_text']!r}")
            elif name in chosen:
                [answer] = (await engine.update(name, [], spec.flash)).answers
                apart.append(logits_apart(answer.probabilities, last.get(name, {})))
                if apart[-1] > LOGITS_WITHIN:
                    wrong.append(f"{name}: answered {last.get(name)}, {answer.probabilities} fresh")
            await engine.close(name)
    finally:
        await engine.stop()
    return Compared(wrong, len(apart) - 1, max(apart))


def config_of(rig: Rig) -> Config:
    """The workers' configuration."""
    return load(rig.seats[0].config)


def _id(record: Any) -> str:
    return str(dict(record.headers)["ce_id"].decode())


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
