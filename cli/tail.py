"""`flashfeed tail`: the output topics as they come."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson
from aiokafka import AIOKafkaConsumer

from flashfeed.agents.connection import client_settings
from flashfeed.models.config import Config

from .settings import load


class TailOptions(NamedTuple):
    """What to follow, and how to print it."""

    config: Path | None = None
    brokers: str | None = None
    session: str | None = None
    query: str | None = None
    changed: bool = False
    from_beginning: bool = False
    as_json: bool = False
    limit: int | None = None


def tail(options: TailOptions) -> int:
    """Print events until stopped, or `limit` of them."""
    config = load(options.config) if options.config else Config()
    if options.brokers:
        kafka = msgspec.structs.replace(config.kafka, brokers=options.brokers)
        config = msgspec.structs.replace(config, kafka=kafka)
    return asyncio.run(_follow(config, options))


def wanted(event: dict[str, Any], options: TailOptions) -> bool:
    """Whether an event's value passes the options. Pure."""
    if options.session and event["session_id"] != options.session:
        return False
    if options.query and event.get("name") != options.query:
        return False
    return not options.changed or event.get("changed", False)


def line(event: dict[str, Any]) -> str:
    """An event as a person reads it. Pure."""
    when = event.get("evaluated_at") or event["updated_at"]
    start = f"{when[11:23]}  {event['session_id']:<24} v{event['data_version']:<5}"
    if "query" in event:
        mark = "*" if event["changed"] else " "
        return f"{start}{mark} {event['name']}: {event['value']} ({event['confidence']:.2f})"
    return (
        f"{start}  {event['data_count']} records, {event['tokens']} new tokens, "
        f"{event['update_ms']:.0f} ms"
    )


async def _follow(config: Config, options: TailOptions) -> int:
    topics = config.topics
    consumer = AIOKafkaConsumer(
        topics.flash_ready,
        topics.data_updated,
        auto_offset_reset="earliest" if options.from_beginning else "latest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
        **client_settings(config.kafka),
    )
    await consumer.start()
    shown = 0
    try:
        async for record in consumer:
            event = orjson.loads(record.value)
            if not wanted(event, options):
                continue
            text = record.value.decode() if options.as_json else line(event)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            shown += 1
            if options.limit and shown >= options.limit:
                break
    except asyncio.CancelledError:
        pass
    finally:
        await consumer.stop()
    return 0
