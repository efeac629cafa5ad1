"""What `flashfeed top` makes of a worker's answers: figures, and rates between two of them.
Pure: texts and times in, figures out. Times in seconds of any one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

Place = tuple[str, int]
"""A topic's partition."""

_COUNTERS: Final = {
    "flashfeed_applied_records_total": "records",
    "flashfeed_updates_total": "updates",
    "flashfeed_answers_total": "answers",
    "flashfeed_dead_letters_total": "dead_letters",
    "flashfeed_engine_decode_seconds_total": "device_s",
}
_TOKENS: Final = "flashfeed_engine_tokens_total"
_LAG: Final = "flashfeed_consumer_lag_records"
_AGE: Final = "flashfeed_consumer_lag_seconds"
_SESSIONS: Final = "flashfeed_sessions"
_JOBS: Final = "flashfeed_engine_jobs"
_READ: Final = (*_COUNTERS, _TOKENS, _LAG, _AGE, _SESSIONS, _JOBS)


class Figures(NamedTuple):
    """A worker's own figures at one moment. Counters since its start; of what it does not
    say (to a tenant it says little) there is nothing: None, or an empty mapping."""

    at_s: float
    sessions: float | None = None
    jobs: float | None = None
    counters: Mapping[str, float] = {}
    tokens: Mapping[str, float] = {}
    lag: Mapping[Place, tuple[float, float]] = {}
    """Records and seconds behind, by partition."""


class Answer(NamedTuple):
    """A standing question's last answer; `fresh`: of the session's current version."""

    name: str
    value: str
    confidence: float
    fresh: bool


class SessionRow(NamedTuple):
    """A session as its list shows it. Records and texts `pending` are not applied yet."""

    session_id: str
    type: str
    version: int
    pending: int
    tokens: int
    context: int
    busy: bool
    used_ms: int
    answers: tuple[Answer, ...] = ()


def figures(text: str, at_s: float) -> Figures:
    """What a `/metrics` page says. Raises ValueError where it is none."""
    # A page may have ten thousand lines; the parser sees those that are shown alone.
    lines = [line for line in text.splitlines() if line.startswith(_READ)]
    counters: dict[str, float] = {}
    tokens: dict[str, float] = {}
    behind: dict[Place, float] = {}
    ages: dict[Place, float] = {}
    sessions: float | None = None
    jobs: float | None = None
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for name, labels, value, *_ in family.samples:
            if name in _COUNTERS:
                if name == "flashfeed_applied_records_total" and labels["result"] != "applied":
                    continue
                key = _COUNTERS[name]
                counters[key] = counters.get(key, 0.0) + value
            elif name == _TOKENS:
                tokens[labels["kind"]] = value
            elif name in {_LAG, _AGE}:
                place = labels["topic"], int(labels["partition"])
                (behind if name == _LAG else ages)[place] = value
            elif name == _SESSIONS:
                sessions = value
            elif name == _JOBS:
                jobs = (jobs or 0.0) + value
    lag = {place: (records, ages.get(place, 0.0)) for place, records in behind.items()}
    return Figures(at_s, sessions, jobs, counters, tokens, lag)


def rate(before: Figures | None, now: Figures, read: Callable[[Figures], float]) -> float | None:
    """A counter's rise a second; None where there is no earlier moment. A counter that fell
    is a worker's that started again: it rose from 0."""
    if before is None or now.at_s <= before.at_s:
        return None
    rose = read(now) - read(before)
    return (rose if rose >= 0 else read(now)) / (now.at_s - before.at_s)


def session_rows(body: Mapping[str, Any]) -> list[SessionRow]:
    """The rows of a `/v1/sessions` answer. Raises KeyError where it is none."""
    more = {one["id"]: one for one in body["data"]}
    return [
        SessionRow(
            session_id=one["session_id"],
            type=one["type"],
            version=more[one["session_id"]]["data_version"],
            pending=more[one["session_id"]]["pending"],
            tokens=one["n_tokens"],
            context=one["context"],
            busy=one["in_use"],
            used_ms=one["last_used_at"],
        )
        for one in body["sessions"]
    ]


def answers(body: Mapping[str, Any]) -> tuple[Answer, ...]:
    """The answers of a `/v1/sessions/ID/flash` answer. Raises KeyError where it is none."""
    version = body["current_data_version"]
    return tuple(
        Answer(
            one["name"] or one["query"],
            one["value"],
            one["confidence"],
            one["data_version"] == version,
        )
        for one in body["flash_queries"]
        if one["has_answer"]
    )


def newest(lists: Iterable[Sequence[SessionRow]]) -> list[SessionRow]:
    """The sessions of several workers' lists, the last used first; a session that several
    show (each shows the group's where workers share a secret) once, as it is newest."""
    by_id: dict[str, SessionRow] = {}
    for row in (row for rows in lists for row in rows):
        known = by_id.get(row.session_id)
        if known is None or (row.version, row.used_ms) > (known.version, known.used_ms):
            by_id[row.session_id] = row
    return sorted(by_id.values(), key=lambda row: (-row.used_ms, row.session_id))
