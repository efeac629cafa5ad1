"""What a run of faults did to the records and the events. Pure: what was sent, what is
committed and what the sessions hold in, figures out.

    lost              records that no version has, or that their session does not count, and
                      poison that is no dead letter
    applied_twice     records in more than one version, or counted more than once
    events_lost       versions up to the session's last without their event, or without an
                      answer to each question
    events_repeated_after_dedupe   versions or answers that come under more than one id
    version_regressions            versions that are not above the one before
    recover_seconds_max            from a kill to the first record applied on each partition that
                                   the killed worker had. Where another fault was there too: from
                                   the end of the last one that can hold records up (a full disk
                                   cannot). recover_seconds_raw_max is from the kill, whatever
                                   else there was
    wrong_sessions    sessions that do not hold what their records give, or answer otherwise than
                      a fresh context does
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from chaos_expected import unique
from chaos_feed import Candle

Place = tuple[int, int]
"""A source record's partition and offset."""
NONE_ALLOWED = (
    "lost",
    "applied_twice",
    "events_lost",
    "events_repeated_after_dedupe",
    "version_regressions",
    "wrong_sessions",
)
RECOVER_BEYOND_TIMEOUT_S = 20.0
SHOWN_MAX = 5


class Source(NamedTuple):
    """A record as it lies on the source topic; `candle` None: poison. `repeats`: the same
    candle was there before."""

    session: str
    place: Place
    candle: Candle | None
    repeats: bool
    sent_s: float


class Updated(NamedTuple):
    """A committed data_updated, in its topic's order: `origins` are partition, first, last."""

    id: str
    session: str
    version: int
    origins: tuple[tuple[int, int, int], ...]
    at_s: float


class Answered(NamedTuple):
    """A committed flash_ready."""

    id: str
    session: str
    version: int
    query: int


class Final(NamedTuple):
    """A session in the end: its last version, and how many items it ever applied."""

    version: int
    written: int


class Claim(NamedTuple):
    """A worker took a partition of the sessions, or serves it."""

    partition: int
    url: str
    at_s: float


class Trouble(NamedTuple):
    """A fault as it was: `url` is the worker's that was killed, "" where none was; `delays`:
    it can hold records up."""

    at_s: float
    heals_s: float
    url: str = ""
    delays: bool = True


Event = TypeVar("Event", Updated, Answered)


@dataclass(slots=True)
class Verdict:
    """Figures, and what they were counted from, for a person."""

    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, list[str]] = field(default_factory=dict)

    def note(self, name: str, found: Iterable[str]) -> None:
        """A figure that counts what was found."""
        listed = list(found)
        self.figures[name] = len(listed)
        if listed:
            self.details[name] = listed[:SHOWN_MAX]


def verdict(
    source: Sequence[Source],
    letters: Iterable[Place],
    updated: Sequence[Updated],
    answered: Sequence[Answered],
    final: Mapping[str, Final],
    queries: Sequence[int],
) -> Verdict:
    """All figures but those of recovery and of what the sessions hold."""
    found = Verdict()
    covered = _covered(updated)
    taken = [one for one in source if one.candle is not None and not one.repeats]
    counts = {
        name: (len(unique(candles)), final[name].written if name in final else 0)
        for name, candles in by_session(source).items()
    }
    lost = unapplied(source, letters, updated)
    for name, (of, got) in counts.items():
        lost += [f"{name}: {got} items of {of}"] * (of - got)
    found.note("lost", lost)
    twice = [f"{one.session}: {one.place}" for one in taken if _times(covered, one) > 1]
    twice += [f"{name}: {got} items of {of}" for name, (of, got) in counts.items() if got > of]
    found.note("applied_twice", twice)
    versions = _deduped(updated)
    answers = _deduped(answered)
    found.note("events_lost", _missing(final, versions, answers, queries))
    seen = Counter((one.session, one.version, 0) for one in versions)
    seen += Counter((one.session, one.version, one.query) for one in answers)
    found.note("events_repeated_after_dedupe", (str(one) for one, n in seen.items() if n > 1))
    found.note("version_regressions", _regressions(versions))
    found.figures["events_repeated"] = len(updated) + len(answered) - len(versions) - len(answers)
    return found


def by_session(source: Iterable[Source]) -> dict[str, list[Candle]]:
    """Each session's candles, in their source's order."""
    candles: dict[str, list[Candle]] = defaultdict(list)
    for one in source:
        if one.candle is not None:
            candles[one.session].append(one.candle)
    return dict(candles)


def _covered(updated: Iterable[Updated]) -> dict[str, Counter[Place]]:
    """How many versions of a session have each source record. A range has those of other
    sessions too, which nobody asks for."""
    covered: dict[str, Counter[Place]] = defaultdict(Counter)
    for one in _deduped(updated):
        for partition, first, last in one.origins:
            covered[one.session].update((partition, offset) for offset in range(first, last + 1))
    return covered


def _times(covered: Mapping[str, Counter[Place]], one: Source) -> int:
    return covered[one.session][one.place] if one.session in covered else 0


def unapplied(
    source: Iterable[Source], letters: Iterable[Place], updated: Iterable[Updated]
) -> list[str]:
    """Records that no version has, and poison that is no dead letter."""
    covered, known = _covered(updated), set(letters)
    lost = []
    for one in source:
        if one.candle is None:
            if one.place not in known:
                lost.append(f"poison at {one.place} is no dead letter")
        elif not one.repeats and not _times(covered, one):
            lost.append(f"{one.session}: {one.place} is in no version")
    return lost


def _missing(
    final: Mapping[str, Final],
    updated: Iterable[Updated],
    answered: Iterable[Answered],
    queries: Sequence[int],
) -> Iterator[str]:
    moved = {(one.session, one.version) for one in updated}
    answers = {(one.session, one.version, one.query) for one in answered}
    for name, end in final.items():
        for version in range(1, end.version + 1):
            if (name, version) not in moved:
                yield f"{name}: version {version}"
            for query in queries:
                if (name, version, query) not in answers:
                    yield f"{name}: version {version}'s answer to {query}"


def _regressions(updated: Iterable[Updated]) -> Iterator[str]:
    last: dict[str, int] = {}
    for one in updated:
        if one.version <= last.get(one.session, 0):
            yield f"{one.session}: {last[one.session]}, then {one.version}"
        last[one.session] = one.version


def _deduped(events: Iterable[Event]) -> list[Event]:
    """What a reader has that drops an event whose id it has seen."""
    first: dict[str, Event] = {}
    for one in events:
        first.setdefault(one.id, one)
    return list(first.values())


def recoveries(
    troubles: Sequence[Trouble],
    claims: Iterable[Claim],
    applied: Mapping[int, Sequence[float]],
    sent: Mapping[int, Sequence[float]],
) -> list[tuple[Trouble, int, float]]:
    """Each kill, each partition that the killed worker had, and the seconds to the first
    record applied there; inf where records came and none was. `applied` and `sent` are the
    times of a partition's versions, and of the source records of its sessions."""
    known = sorted(claims, key=lambda claim: claim.at_s)
    found = []
    for kill in troubles:
        if not kill.url:
            continue
        owners = {claim.partition: claim.url for claim in known if claim.at_s <= kill.at_s}
        for partition in (number for number, url in owners.items() if url == kill.url):
            if not any(at_s > kill.at_s for at_s in sent.get(partition, ())):
                continue
            first = min((s for s in applied.get(partition, ()) if s > kill.at_s), default=math.inf)
            found.append((kill, partition, first - _healed(kill, first, troubles)))
    return found


def _healed(kill: Trouble, first_s: float, troubles: Iterable[Trouble]) -> float:
    """When the last fault ended that was there between a kill and the first record applied."""
    ends = [kill.at_s]
    for one in troubles:
        end = one.at_s if one.url else one.heals_s
        if one.delays and one.at_s < first_s and kill.at_s < end <= first_s:
            ends.append(end)
    return max(ends)


def logits_apart(fresh: Mapping[str, float], live: Mapping[str, float]) -> float:
    """How far apart two distributions over a question's choices are: the least bound on every
    logit's difference, up to what is common to all; inf where the choices differ. Within 0.1
    (invariant 5) both have the same first choice wherever one's lead exceeds 0.2."""
    if not fresh or set(fresh) != set(live):
        return math.inf
    off = [math.log(max(live[name], 1e-12)) - math.log(max(fresh[name], 1e-12)) for name in fresh]
    return (max(off) - min(off)) / 2


def failures(figures: Mapping[str, float], kills_wanted: int, timeout_s: float) -> list[str]:
    """Why the run fails; nothing where it does not."""
    bounds = dict.fromkeys(NONE_ALLOWED, 0.0)
    bounds["recover_seconds_max"] = timeout_s + RECOVER_BEYOND_TIMEOUT_S
    wrong = [
        f"{name}: expected at most {bound:g}, got {figures.get(name)}"
        for name, bound in bounds.items()
        if not figures.get(name, math.inf) <= bound
    ]
    at_least = {"kills": max(1, kills_wanted), "events": 1, "sessions_compared": 1, "recoveries": 1}
    wrong += [
        f"{name}: expected at least {least}, got {figures.get(name, 0)}"
        for name, least in at_least.items()
        if figures.get(name, 0) < least
    ]
    return wrong
