"""Invariant 6: a reader that does not read holds up nobody, and is let go."""

from __future__ import annotations

from flashfeed.agents.subscribers import EVENTS_MAX, Subscribers
from flashfeed.models.events import DataUpdated


def updated(session_id: str, version: int) -> DataUpdated:
    return DataUpdated(
        session_id=session_id, type="iot", data_version=version, data_count=version, tokens=1,
        decoded_tokens=1, n_tokens=1, update_ms=1.0, pending=0, event_time=None, updated_at="",
        origins=(), records_first=0, records_last=version,
    )  # fmt: skip


async def test_a_reader_gets_its_sessions_events_in_order_and_an_end() -> None:
    subscribers = Subscribers()
    with subscribers.reader("a") as events:
        for version in (1, 2):
            subscribers.publish(updated("a", version))
            subscribers.publish(updated("b", version))
        subscribers.end(lambda session_id: session_id == "a")
        assert [event.data_version async for event in events] == [1, 2]


async def test_a_reader_that_falls_behind_is_let_go_and_its_neighbour_is_not() -> None:
    subscribers = Subscribers()
    with subscribers.reader("a") as slow, subscribers.reader("a") as quick:
        for version in range(EVENTS_MAX + 1):
            assert subscribers.publish(updated("a", version)) == (version == EVENTS_MAX)
            assert (await anext(quick)).data_version == version
        assert [event async for event in slow] == []
