"""How fast records come: the clock of the transport's sides. It imports nothing of ours, so
that other frameworks' sides, which run in an environment of their own, have it too."""

from __future__ import annotations

import time

COMMIT_S = 0.5
"""How often each side commits what it has handled, where it lets one choose."""


class Clock:
    """Counts records; the rate is over those behind the first batch, whose fetch is a
    start-up cost."""

    def __init__(self, wanted: int = 0) -> None:
        self.wanted = wanted
        self.seen = self.first = 0
        self.began = self.ended = 0.0

    def count(self, records: int) -> bool:
        """Note that many more records as handled; whether those are all."""
        self.seen += records
        if not self.began:
            self.began, self.first = time.perf_counter(), self.seen
        if self.seen >= self.wanted and not self.ended:
            self.ended = time.perf_counter()
        return self.seen >= self.wanted

    def rate(self) -> float:
        """Records a second up to the last that was wanted."""
        return (self.seen - self.first) / (self.ended - self.began)
