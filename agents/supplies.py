"""What the feeds' codecs need from outside: schemas by id, Sparkplug births.

A codec that misses something raises a Wanted; `bring` gets it, off the hot path, while the
partition that wants it pauses (paused.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from flashfeed.codecs.codec import BirthWanted, Codec, Outside, SchemaWanted, Wanted
from flashfeed.models.config import Config
from flashfeed.models.errors import ConfigError, DecodeFault, Unavailable

from .births import BirthBook
from .followed_topic import FollowedTopic
from .kafka_writer import KafkaWriter, Write
from .own_topics import wants_births
from .schema_registry import SchemaRegistry
from .supply_counts import SupplyCounts
from .transport import Batch, source_of

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 0.5


class Supplies:
    """The schema registry and the births of one worker."""

    def __init__(self, config: Config, counts: SupplyCounts) -> None:
        self._births_topic = config.topics.births
        self._registry = (
            SchemaRegistry.of(config.schema_registry, counts.schema_request)
            if config.schema_registry is not None
            else None
        )
        self._book = BirthBook(counts) if wants_births(config) else None
        self._kafka = config.kafka
        self._topic: FollowedTopic | None = None
        self.outside = Outside(
            read_file=lambda path: Path(path).expanduser().read_bytes(),
            schemas=self._registry,
            births=self._book,
        )

    async def start(self, writer: KafkaWriter, on_failure: Callable[[BaseException], None]) -> None:
        """Read the births there are. Raises Unavailable, ConfigError for a missing secret."""
        self.check()
        if self._book is not None:
            self._topic = FollowedTopic(
                self._kafka, self._births_topic, writer, self._book.take, on_failure
            )
            await self._topic.start()

    def check(self) -> None:
        """Read the secrets and files that the configuration names. Raises ConfigError."""
        if self._registry is not None:
            self._registry.open()

    def registry_client(self) -> httpx.AsyncClient:
        """The connection to the schema registry. Raises ConfigError where there is none."""
        if self._registry is None:
            raise ConfigError("schema_registry: expected the table, there is none")
        return self._registry.open()

    async def stop(self) -> None:
        """Disconnect."""
        if self._topic is not None:
            await self._topic.stop()
        if self._registry is not None:
            await self._registry.stop()

    def begin(self) -> None:
        """A batch is about to be read."""
        if self._book is not None:
            self._book.begin()

    def look_ahead(self, codec: Codec, batch: Batch) -> None:
        """Note the births in a batch that waits: one that it holds itself may end the wait."""
        if self._book is None:
            return
        for raw in batch.records:
            with contextlib.suppress(DecodeFault, Wanted):
                codec(raw.value, source_of(raw))

    def writes(self) -> list[Write]:
        """What a batch that was read has to write beside its records: the births in it."""
        return self._book.writes(self._births_topic) if self._book is not None else []

    def written(self, writes: Sequence[Write]) -> None:
        """Kafka has these."""
        if self._book is not None:
            self._book.written(writes)

    async def bring(self, wanted: Wanted, who: str, where: Mapping[str, object]) -> None:
        """Get what a codec wants; it can be tried again after that. Never gives up on a
        registry that is away: nothing is lost while its partitions are paused. The log names
        `who` waits, with the fields of `where`."""
        if isinstance(wanted, BirthWanted) and self._book is not None:
            await self._book.wait(wanted.edge, wanted.wait_s)
        elif isinstance(wanted, SchemaWanted) and self._registry is not None:
            await self._bring_schema(self._registry, wanted, who, where)
        else:
            raise TypeError(f"nothing here brings {wanted.what}")

    async def _bring_schema(
        self, registry: SchemaRegistry, wanted: SchemaWanted, who: str, where: Mapping[str, object]
    ) -> None:
        attempts, longest = registry.config.attempts, registry.config.retry_max_s
        tried = 0
        while True:
            try:
                await registry.bring(wanted.reference)
                return
            except Unavailable as error:
                tried += 1
                if tried < attempts:
                    log.warning("%s waits for %s: %s", who, wanted.what, error, extra=where)
                elif tried == attempts:
                    log.error(
                        "%s stays paused: %s could not be had in %d attempts (%s); nothing is "
                        "lost, and it is asked for again every %g s",
                        who, wanted.what, attempts, error, longest, extra=where,
                    )  # fmt: skip
            wait = longest if tried >= attempts else FIRST_WAIT_S * 2 ** (tried - 1)
            await asyncio.sleep(min(longest, wait))
