"""The heads of a running group: read from `flashfeed.heads` and `flashfeed.reservoirs`, and
brought in through `flashfeed.examples`.

A head that comes in is learnt anew from its examples, by the owner of their partition and in
their order, as one learns from outcomes: the same examples give the same head (invariant 8),
and nothing races with what the owner writes. An example is named by what it is, so that a
second import of the same file is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from flashfeed.agents.head_learning import HeadLearning, read_reservoirs
from flashfeed.agents.kafka_writer import KafkaWriter, Write
from flashfeed.heads.learner import Head
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError
from flashfeed.models.learning import ExampleRecord, HeadName, HeadRecord, decode_head

NO_HEADS: Final = "no question of this group learns"
"""Why the topics of heads may not be there."""


def group_heads(heads: Iterable[tuple[bytes, bytes | None]]) -> dict[str, HeadRecord]:
    """The newest message of each head, by key. Pure."""
    found: dict[str, HeadRecord] = {}
    for key, value in heads:
        name = key.decode(errors="replace")
        if value is None:
            found.pop(name, None)
            continue
        try:
            found[name] = decode_head(value)
        except msgspec.MsgspecError:
            continue  # a barrier, or none of ours: workers leave it out too
    return found


def one_of(found: dict[str, HeadRecord], wanted: str) -> HeadRecord:
    """The head of that key, or of the question of that name where there is one alone. Raises
    ConfigError."""
    if wanted in found:
        return found[wanted]
    named = [one for one in found.values() if one.head.label == wanted]
    if len(named) == 1:
        return named[0]
    there = named or found.values()
    known = ", ".join(sorted(f"{one.head.key} ({one.head.label})" for one in there))
    raise ConfigError(
        f"expected the key of a head, or the name of a question with one head, got {wanted!r}; "
        f"there are {known or 'none'}"
    )


def restored(record: HeadRecord, reservoirs: Iterable[tuple[bytes, bytes | None]]) -> Head:
    """The head with its examples. Raises RequestError where the message is no head."""
    found, _ = read_reservoirs(reservoirs)
    return HeadLearning.restored(record, found.get(record.head.key, {})).head


def example_records(head: Head, name: HeadName) -> list[ExampleRecord]:
    """The head's examples as messages of `flashfeed.examples`, in their order. Pure."""
    choices = name.subject.choices
    records = []
    for number, example in enumerate(head.examples):
        digest = hashlib.sha256(msgspec.msgpack.encode((number, example))).hexdigest()
        records.append(
            ExampleRecord(
                id=f"import/{digest[:32]}",
                head=name,
                data_version=0,
                label=choices[example.label],
                by="user",
                time=None,
                example=example,
            )
        )
    return records


async def send_examples(config: Config, records: Sequence[ExampleRecord]) -> None:
    """Write the examples, in order, and wait until all are acknowledged. Raises Unavailable."""

    def fails(error: BaseException) -> None:
        raise error

    writer = KafkaWriter(config.kafka, fails)
    await writer.start()
    try:
        topic = config.topics.examples
        await writer.write(
            [Write(topic, one.head.key.encode(), msgspec.json.encode(one)) for one in records]
        )
    finally:
        await writer.stop()
