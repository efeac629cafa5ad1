"""How fast records come: the clock of the transport's sides. It imports nothing of ours, so
that other frameworks' sides, which run in an environment of their own, have it too."""

from __future__ import annotations

import time

COMMIT_S = 0.5
"""How often each side commits what it has handled, where it lets one choose."""
WARM = 0.5
"""The share of the records that is not timed: what a client fetches before its first handler
runs, and librdkafka fetches 100,000 ahead. With fewer than 200,000 records its sides are timed
on what they have already."""


class Clock:
    """Counts records; the rate is over those behind the first WARM of them."""

    def __init__(self, wanted: int = 0) -> None:
        self.wanted = wanted
        self.seen = self.first = 0
        self.began = self.ended = 0.0

    def count(self, records: int) -> bool:
        """Note that many more records as handled; whether those are all."""
        if self.ended:
            return True
        self.seen += records
        if not self.began and self.seen >= WARM * self.wanted:
            self.began, self.first = time.perf_counter(), self.seen
        if self.seen < self.wanted:
            return False
        self.ended = time.perf_counter()
        return True

    def rate(self) -> float:
        """Records a second up to the last that was wanted."""
        return (self.seen - self.first) / (self.ended - self.began)
