"""`flashfeed tail`: the output topics as they come."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from flashfeed.agents.connection import broker_list, client_settings
from flashfeed.agents.rights import READ, denied
from flashfeed.agents.unreachable import why_unreachable
from flashfeed.client import (
    AnswerRemoved,
    ClientError,
    Data,
    Event,
    FlashReady,
    TopicEvents,
    Unreachable,
    Wanted,
)
from flashfeed.models.config import Config
from flashfeed.models.errors import Unavailable
from flashfeed.models.tenant import session_key, split_key

from .settings import load


class TailOptions(NamedTuple):
    """What to follow, and how to print it."""

    config: Path | None = None
    brokers: str | None = None
    session: str | None = None
    tenant: str = ""
    query: str | None = None
    changed: bool = False
    from_beginning: bool = False
    as_json: bool = False
    limit: int | None = None


def tail(options: TailOptions) -> int:
    """Print events until stopped, or `limit` of them. Raises ConfigError, and Unavailable where
    the topics cannot be read."""
    config = load(options.config) if options.config else Config()
    if options.brokers:
        kafka = msgspec.structs.replace(config.kafka, brokers=options.brokers)
        config = msgspec.structs.replace(config, kafka=kafka)
    try:
        with _events(config, options) as events:
            _print(events, options)
    except Unreachable as error:
        why = denied(error, READ) or asyncio.run(why_unreachable(client_settings(config.kafka)))
        raise Unavailable(f"{error}: {why}" if why else str(error)) from error
    except ClientError as error:
        raise Unavailable(str(error)) from error
    return 0


def _print(events: Iterable[Event], options: TailOptions) -> None:
    for shown, event in enumerate(events, 1):
        as_json = options.as_json
        text = msgspec.json.encode(event.data).decode() if as_json else line(event.data)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        if options.limit and shown >= options.limit:
            break


def line(event: Data) -> str:
    """An event as a person reads it. Pure."""
    if isinstance(event, AnswerRemoved):
        return f"{_shown(event.session_id)}: question {event.query_id} is gone"
    when = event.evaluated_at if isinstance(event, FlashReady) else event.updated_at
    start = f"{when[11:23]}  {_shown(event.session_id):<24} v{event.data_version:<5}"
    if isinstance(event, FlashReady):
        mark = "*" if event.changed else " "
        unsure = ", abstained" if event.abstained else ""
        return f"{start}{mark} {event.name}: {event.value} ({event.confidence:.2f}{unsure})"
    return (
        f"{start}  {event.data_count} records, {event.tokens} new tokens, {event.update_ms:.0f} ms"
    )


def _shown(key: str) -> str:
    """A session's key as a person reads it: the id, after its tenant where it has one."""
    tenant, session_id = split_key(key)
    return f"{tenant}/{session_id}" if tenant else session_id


def _events(config: Config, options: TailOptions) -> TopicEvents:
    topics = config.topics
    session = session_key(options.tenant, options.session) if options.session else None
    connection = client_settings(config.kafka)
    connection.pop("bootstrap_servers")
    return TopicEvents(
        broker_list(config.kafka),
        (topics.flash_ready, topics.data_updated),
        wanted=Wanted(session, options.query, options.changed),
        start="earliest" if options.from_beginning else "latest",
        connection=connection,
    )
