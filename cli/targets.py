"""`flashfeed targets`: the group's workers, as Prometheus' file_sd wants them.

Read from the compacted `flashfeed.owners`, to which every worker writes where it is. Nothing
is committed and nothing written there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from flashfeed.agents.connection import client_settings, stop_consumer
from flashfeed.agents.owners import Owners
from flashfeed.agents.rights import READ, denied
from flashfeed.agents.unreachable import why_unreachable
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, Unavailable
from flashfeed.models.ownership import Owner

from .logs import set_up
from .settings import load

log = logging.getLogger(__name__)

SILENCE_S: Final = 1.0
"""Beside the end offset, which the embedded broker may say too low: so long nothing came."""
READ_MAX_S: Final = 20.0


class TargetsOptions(NamedTuple):
    """Whose workers, to which file (None: printed), and seconds between writings (0: once)."""

    config: Path
    out: Path | None = None
    every_s: float = 0.0


def targets(options: TargetsOptions) -> int:
    """Write the group's workers once, or again and again. Raises ConfigError, Unavailable."""
    if options.every_s < 0 or (options.every_s and options.out is None):
        raise ConfigError("--every: expected seconds from 0, and with them --out FILE")
    config = load(options.config)
    if options.every_s:
        set_up(config.log)
    while True:
        try:
            text = file_sd(asyncio.run(live_owners(config)), config.kafka.group)
            _put(text, options.out)
        except Unavailable as error:
            if not options.every_s:
                raise
            # The last list stands: workers do not vanish because a broker is away.
            log.warning("the list stands as it is: %s", error)
        if not options.every_s:
            return 0
        time.sleep(options.every_s)


def file_sd(owners: Iterable[Owner], group: str) -> bytes:
    """The JSON of those partitions' owners: a target a worker, by scheme. A worker without a
    bridge has no metrics to scrape. Pure."""
    by_scheme: dict[str, set[str]] = {}
    for owner in owners:
        url = urlsplit(owner.url)
        if url.netloc:
            by_scheme.setdefault(url.scheme, set()).add(url.netloc)
    groups = [
        {"targets": sorted(places), "labels": {"__scheme__": scheme, "group": group}}
        for scheme, places in sorted(by_scheme.items())
    ]
    return orjson.dumps(groups, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


async def live_owners(config: Config) -> list[Owner]:
    """The owner of each partition that is served. Raises Unavailable."""
    owners = Owners("flashfeed targets")
    place = TopicPartition(config.topics.owners, 0)
    settings = client_settings(config.kafka)
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        **settings,
    )
    try:
        async with asyncio.timeout(READ_MAX_S):
            await consumer.start()
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            end = (await consumer.end_offsets([place]))[place]
            fetched: Any = True
            while fetched or await consumer.position(place) < end:
                fetched = await consumer.getmany(place, timeout_ms=int(SILENCE_S * 1000))
                for record in fetched.get(place, ()):
                    if record.key is not None and record.key.isdigit():  # else a barrier
                        owners.take(record.key, record.value)
    except (KafkaError, TimeoutError, OSError) as error:
        why = denied(error, READ) or await why_unreachable(settings, error or "no answer")
        raise Unavailable(f"cannot read {place.topic}: {why}") from error
    finally:
        await stop_consumer(consumer)
    return owners.live()


def _put(text: bytes, out: Path | None) -> None:
    """Write the whole file at once: Prometheus may read it at any time."""
    if out is None:
        sys.stdout.write(text.decode())
        sys.stdout.flush()
        return
    try:
        number, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(text)
            Path(name).chmod(0o644)
            Path(name).replace(out)
        except OSError:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from None
