"""Publishes a step: the one place where the order of writes is decided.

Without transactions (any broker). The order, and what breaks where it moves:

1. changelog, acknowledged    before 2, or a crash publishes a version that nobody knows
                              and answers the same records under another id (invariant 2)
2. events, answers, dead      before 3, or a crash commits past events that never went
   letters, acknowledged      out (invariant 1)
3. the batch's offset         by the transport, once `SessionOwner` acknowledged it

A crash between 1 and 2 is mended on recovery: the last version's events are built
again from the changelog's head, byte for byte, and published under the same ids.

A transactional writer puts 1 to 3 into one Kafka transaction; it has the same method.
"""

from __future__ import annotations

from typing import Protocol

from .kafka_writer import KafkaWriter, Write


class StepWriter(Protocol):
    """Makes a step durable and visible."""

    @property
    def guarantee(self) -> str:
        """What the worker says at its start about how it writes."""

    async def publish(self, changelog: list[Write], outputs: list[Write]) -> None:
        """Write a step. Raises Unavailable where Kafka does not take it."""


class OrderedStepWriter:
    """Acknowledged writes in order, no transactions."""

    guarantee = (
        "ordered writes without transactions: a crash may publish a version's events twice, "
        "under the same ids"
    )

    def __init__(self, writer: KafkaWriter) -> None:
        self._writer = writer

    async def publish(self, changelog: list[Write], outputs: list[Write]) -> None:
        """1 the changelog, 2 everything that readers see."""
        await self._writer.write(changelog)
        await self._writer.write(outputs)
