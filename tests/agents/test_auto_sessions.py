"""How many sessions a feed may make, and what it costs to know."""

from __future__ import annotations

from typing import Any

import pytest

from flashfeed.agents.auto_sessions import AutoSessions
from flashfeed.agents.metrics import Metrics
from flashfeed.models.config import FeedConfig
from flashfeed.models.errors import SessionsFull


class Made:
    """An owner as AutoSessions sees it, made by the feed."""

    feed = "f"

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id


def test_a_feed_makes_as_many_as_it_may_and_they_are_counted_seldom() -> None:
    owners: list[Any] = []
    counts = 0

    def every() -> list[Any]:
        nonlocal counts
        counts += 1
        return owners

    feed = FeedConfig(topics=["t"], preset="cryptofeed", template="m", sessions_max=1000)
    auto = AutoSessions({"f": feed}, every, None, "r", Metrics())  # type: ignore[arg-type]
    for number in range(1000):
        auto.admit("f", f"s{number}")
        owners.append(Made(f"s{number}"))
    assert counts < 50  # once a second, and it takes none
    with pytest.raises(SessionsFull, match="f has 1000 sessions"):
        auto.admit("f", "one more")
    owners.pop()
    auto.admit("f", "in its place")
    owners.append(Made("in its place"))
    with pytest.raises(SessionsFull):
        auto.admit("f", "one more")
    auto.admit("other feed", "as many as it likes")
