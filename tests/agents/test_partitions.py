"""Partitions come and go: what the group waits for, and what goes on behind its back."""

from __future__ import annotations

import asyncio
from typing import Any

from flashfeed.agents.kafka_writer import KafkaWriter
from flashfeed.agents.owned_partition import Partition
from flashfeed.agents.partitions import Partitions, Settled
from flashfeed.agents.session_owner import OwnerParts
from flashfeed.agents.step_writer import KafkaStepWriter
from flashfeed.models.config import KafkaConfig
from flashfeed.models.errors import Overloaded

from session_bench import Bench
from session_steps import reading, spec_of


async def test_the_group_does_not_wait_for_what_is_let_go_of() -> None:
    """Until an assignment is taken the member sends no heartbeat (aiokafka 0.14)."""
    bench = Bench(spec_of("exact", 4))
    await bench.apply(reading(0, 7, at=0))
    kafka, failures, may_step = KafkaConfig(), list[BaseException](), []

    def make_parts(_: Settled, event: asyncio.Event) -> OwnerParts:
        may_step.append(event)
        return bench.owner._parts

    writer, claims = KafkaWriter(kafka, failures.append), Any
    steps = KafkaStepWriter(kafka, writer, failures.append)
    partitions = Partitions(kafka, "changelog", "letters", writer, claims, steps, make_parts)
    partitions._owned[0] = Partition(0, epoch=1, live=True, sessions={"s": bench.owner})
    revoked: list[int] = []
    partitions.on_revoked(revoked.append)
    bench.engine.close_errors.append(Overloaded("jobs"))  # it is asked again in a while
    partitions.pause()
    await partitions.assign([])
    assert partitions.numbers == []
    assert bench.engine.held and not revoked and not may_step[0].is_set()
    async with asyncio.timeout(5):
        await may_step[0].wait()
    assert revoked == [0] and not bench.engine.held


async def test_a_rebalance_that_overtakes_another_one_says_when_sessions_step() -> None:
    kafka, failures, may_step = KafkaConfig(), list[BaseException](), []

    def make_parts(_: Settled, event: asyncio.Event) -> Any:
        may_step.append(event)

    writer, claims = KafkaWriter(kafka, failures.append), Any
    steps = KafkaStepWriter(kafka, writer, failures.append)
    partitions = Partitions(kafka, "changelog", "letters", writer, claims, steps, make_parts)
    await partitions.assign([])
    partitions.pause()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not may_step[0].is_set()
    await partitions.assign([])
    async with asyncio.timeout(5):
        await may_step[0].wait()
