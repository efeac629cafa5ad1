"""Publishes a step: the one place where the order of writes is decided.

Without transactions (any broker). The order, and what breaks where it moves:

1. dead letters, tombstones   before 2, or a crash moves the session past a record whose
   of removed answers         letter was never written: nobody writes it again. A repeat
                              of either does no harm
2. changelog                  before 3, or a crash publishes a version that nobody knows
                              and answers the same records under another id (invariant 2)
3. events, answers            before 4, or a crash commits past events that never went
                              out (invariant 1)
4. the batch's offset         by the transport, once every message of it is settled

Each is acknowledged before the next begins. A crash between 2 and 3 is mended on
recovery: the last version's events are built again from the changelog's head, byte for
byte, and published under the same ids.

A transactional writer puts 1 to 4 into one Kafka transaction; it has the same method.
"""

from __future__ import annotations

from typing import Protocol

from .kafka_writer import KafkaWriter, Write


class StepWriter(Protocol):
    """Makes a step durable and visible."""

    @property
    def guarantee(self) -> str:
        """What the worker says at its start about how it writes."""

    async def publish(
        self, refused: list[Write], changelog: list[Write], events: list[Write]
    ) -> None:
        """Write a step. Raises RequestError where one of its records is larger than its topic
        takes: then none is written; else what a KafkaWriter raises."""


class OrderedStepWriter:
    """Acknowledged writes in order, no transactions."""

    guarantee = (
        "ordered writes without transactions: a crash may publish a version's events twice, "
        "under the same ids"
    )

    def __init__(self, writer: KafkaWriter) -> None:
        self._writer = writer

    async def publish(
        self, refused: list[Write], changelog: list[Write], events: list[Write]
    ) -> None:
        """1 what was refused or removed, 2 the changelog, 3 what readers see."""
        self._writer.check([*refused, *changelog, *events])
        for writes in (refused, changelog, events):
            await self._writer.write(writes)
