"""The batching transport in a real Faust app on the embedded broker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from flashfeed.agents.transport import IN_FLIGHT_MAX

from batch_app import RECORDS, committed, fill, make_app, records_of, run_app, until

pytestmark = pytest.mark.broker


async def test_what_is_not_acknowledged_is_not_committed_and_comes_again(broker: str) -> None:
    topic = group = f"stuck-{time.time_ns()}"
    await fill(broker, topic)
    got = await run_app(broker, group, topic, 1, lambda got: len(records_of(got, 0)) == RECORDS)
    assert records_of(got, 0) == list(range(RECORDS))
    assert await committed(broker, group, topic) == {0: RECORDS, 1: None}
    assert not list(Path.cwd().glob(f"{group}*"))  # where it runs it leaves nothing
    again = await run_app(
        broker, group, topic, None, lambda got: len(records_of(got, 1)) == RECORDS
    )
    assert records_of(again, 1) == list(range(RECORDS))
    assert records_of(again, 0) == []
    assert await committed(broker, group, topic) == {0: RECORDS, 1: RECORDS}


async def test_a_stuck_partition_is_bounded_and_holds_back_no_other(broker: str) -> None:
    topic = group = f"bounded-{time.time_ns()}"
    await fill(broker, topic)
    got = await run_app(
        broker,
        group,
        topic,
        1,
        lambda got: len(records_of(got, 0)) == RECORDS,
        broker_max_poll_records=5,
    )
    assert records_of(got, 0) == list(range(RECORDS))
    stuck = [batch for batch in got if batch.partition == 1]
    assert 0 < len(stuck) <= IN_FLIGHT_MAX
    assert len(records_of(got, 1)) <= 5 * IN_FLIGHT_MAX


async def test_the_end_of_a_partition_that_is_taken_away_is_not_known(broker: str) -> None:
    """In the client's thread a rebalance may take it at any moment; aiokafka would fail."""
    topic = group = f"taken-{time.time_ns()}"
    await fill(broker, topic)
    app = make_app(broker, group)
    ends: list[int | None] = []

    async def read(batches: Any) -> None:
        async for event in batches.noack().events():
            place = TP(topic, event.value.partition)
            ends.extend((app.consumer.highwater(place), app.consumer.highwater(TP(topic, 7))))
            event.ack()

    app.agent(app.topic(topic))(read)
    await app.start()
    try:
        await until(lambda: ends)
    finally:
        await app.stop()
    assert ends[:2] == [RECORDS, None]
