"""What the demo knows: what was sent, what came back, and whether it is whole. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any, Final

from flashfeed.models.session import WindowSpec
from flashfeed.models.window import window_length

_KEEPS_ALL: Final = WindowSpec("grow")


@dataclass(frozen=True, slots=True)
class Sent:
    """One source record: its session, its line for the table, when it was sent (s), and
    whether it came live or as part of the history at the start."""

    session: str
    shown: str
    at: float
    live: bool = True


@dataclass(slots=True)
class SessionBoard:
    """One session as its events show it."""

    version: int = 0
    data_count: int = 0
    last: str = ""
    answers: dict[str, tuple[str, float, int]] = field(default_factory=dict)
    decoded_tokens: int = 0
    update_ms: float = 0.0
    new_tokens: int = 0


@dataclass(slots=True)
class Board:
    """All sessions, and the figures of the summary."""

    queries: dict[str, tuple[str, ...]]
    """The names of the questions that each session must answer."""
    windows: dict[str, WindowSpec] = field(default_factory=dict)
    """How each session forgets; without one it keeps all."""
    sent: dict[tuple[str, int, int], Sent] = field(default_factory=dict)
    sessions: dict[str, SessionBoard] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    live_latencies_s: list[float] = field(default_factory=list)
    flash_ready: int = 0
    updates: int = 0
    dead_letters: int = 0
    seen_ids: set[str] = field(default_factory=set)
    repeats: int = 0
    waiting: dict[tuple[str, int, int], Sent] = field(default_factory=dict)
    answered: dict[tuple[str, int, int], float] = field(default_factory=dict)

    def note_sent(self, origin: tuple[str, int, int], sent: Sent) -> None:
        """A source record was acknowledged at (topic, partition, offset)."""
        self.sent[origin] = sent
        self.sessions.setdefault(sent.session, SessionBoard())
        if origin in self.answered:  # the answer overtook the acknowledgement
            self._note_latency(origin, sent)
        else:
            self.waiting[origin] = sent

    def note_event(self, event_id: str, event: dict[str, Any], now: float) -> None:
        """An output event arrived; `now` in seconds. A repeated id is counted, not applied."""
        if event_id in self.seen_ids:
            self.repeats += 1
            return
        self.seen_ids.add(event_id)
        session = self.sessions.setdefault(event["session_id"], SessionBoard())
        version = event["data_version"]
        session.version = max(session.version, version)
        if "query" in event:
            self.flash_ready += 1
            session.answers[event["name"]] = (event["value"], event["confidence"], version)
            self._note_answered(event, now)
        else:
            self.updates += 1
            session.data_count = event["data_count"]
            session.decoded_tokens = event["decoded_tokens"]
            session.update_ms = event["update_ms"]
            session.new_tokens += event["tokens"]

    def _note_answered(self, event: dict[str, Any], now: float) -> None:
        """Latency runs to the first flash_ready whose update holds the record."""
        for origin in event["origins"]:
            for offset in range(origin["first"], origin["last"] + 1):
                place = (origin["topic"], origin["partition"], offset)
                if place in self.answered:
                    continue
                self.answered[place] = now
                sent = self.waiting.pop(place, None)
                if sent is not None:
                    self._note_latency(place, sent)

    def _note_latency(self, place: tuple[str, int, int], sent: Sent) -> None:
        latency_s = self.answered[place] - sent.at
        self.latencies_s.append(latency_s)
        if sent.live:
            self.live_latencies_s.append(latency_s)
        self.sessions[sent.session].last = sent.shown

    def complete(self) -> bool:
        """Whether every sent record is in an answered update and every answer is fresh."""
        return not self.waiting and not self.unanswered()

    def unanswered(self) -> list[str]:
        """Which question of which session lacks an answer for the session's last version."""
        missing = []
        for name, session in self.sessions.items():
            for query in self.queries[name]:
                answer = session.answers.get(query)
                if answer is None or answer[2] != session.version:
                    missing.append(f"{name}/{query}")
        return missing

    def lost(self) -> list[str]:
        """What is wrong with the records, session by session; empty when nothing is lost."""
        problems = [
            f"{place[0]}[{place[1]}] offset {place[2]} never came to an answered update"
            for place in self.waiting
        ]
        expected: dict[str, int] = {}
        for sent in self.sent.values():
            expected[sent.session] = expected.get(sent.session, 0) + 1
        for name, count in expected.items():
            have = self.sessions[name].data_count
            want = window_length(self.windows.get(name, _KEEPS_ALL), count)
            if have != want:
                problems.append(f"{name} holds {have} records, not {want} of {count} sent")
        return problems

    def tokens_a_record(self) -> float:
        """New tokens decoded for a record, mean."""
        tokens = sum(session.new_tokens for session in self.sessions.values())
        return tokens / max(1, len(self.sent))


def median_and_p99(latencies_s: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, both 0 of nothing."""
    ordered = sorted(latencies_s) or [0.0]
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
