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
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from flashfeed.agents.owners import Owners
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, Unavailable
from flashfeed.models.ownership import Owner

from .logs import set_up
from .settings import load
from .whole_topics import read_topics

log = logging.getLogger(__name__)


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
    try:
        [messages] = await read_topics(config, [config.topics.owners], "no worker ever ran")
    except ConfigError as error:  # one may run in a moment
        raise Unavailable(str(error)) from None
    for key, value in messages:
        if key.isdigit():  # else a barrier
            owners.take(key, value)
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
