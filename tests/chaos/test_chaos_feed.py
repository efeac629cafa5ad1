"""What chaos does and feeds: the schedule of faults, the records, and what they must give."""

from __future__ import annotations

from itertools import islice, pairwise
from types import SimpleNamespace

import pytest
from chaos_expected import expected_lines, unique
from chaos_feed import LATE_MAX, POISONS, feed, symbols
from chaos_schedule import OTHERS, Kind, schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfeed.agents.feeds import Feed, ReadBatch, read_batch
from flashfeed.agents.session_step import Waiting
from flashfeed.agents.transport import Batch
from flashfeed.cli.worker import feeds_of
from flashfeed.codecs.codec import Outside
from flashfeed.models.config import Config

from session_steps import apply, lines

AWAY = {Kind.BROKER_KILL, Kind.BROKER_RESTART, Kind.BROKER_STALL}


@pytest.fixture(scope="module")
def reading(config: Config) -> Feed:
    def nothing(_: object) -> bytes:
        raise AssertionError("no schema is needed")

    [one] = feeds_of(config, Outside(nothing))
    return one


@given(st.integers(0, 1000), st.integers(1, 25), st.floats(20, 60))
def test_a_schedule_keeps_its_rules(seed: int, kills: int, slot_s: float) -> None:
    seconds = kills * slot_s
    faults = schedule(seed, seconds, kills, 3, 3, 6.0)
    assert faults == schedule(seed, seconds, kills, 3, 3, 6.0)
    assert sum(one.kind is Kind.KILL for one in faults) == kills
    assert all(one.at_s >= 0 and one.heals_s <= seconds for one in faults)
    assert [one.at_s for one in faults] == sorted(one.at_s for one in faults)
    assert all(one.worker in range(3) and one.broker in range(3) for one in faults)
    away = [one for one in faults if one.kind in AWAY]
    assert all(one.heals_s < after.at_s for one, after in pairwise(away))
    others = [one.kind for one in faults if one.kind is not Kind.KILL]
    assert len(set(others)) == min(kills, len(OTHERS))


def test_seeds_give_different_schedules() -> None:
    assert schedule(1, 600, 12, 3, 3, 6.0) != schedule(2, 600, 12, 3, 3, 6.0)


def test_the_feed_is_the_same_for_a_seed_and_has_everything_in_it() -> None:
    sent = list(islice(feed(7, symbols(20)), 3000))
    assert sent == list(islice(feed(7, symbols(20)), 3000))
    assert {one.poison for one in sent if one.poison} == set(POISONS)
    assert any(one.twice for one in sent)
    late = 0
    for name in symbols(20):
        candles = [one.candle for one in sent if one.session == name and one.candle]
        known = unique(candles)
        assert len({one.number for one in known}) == len(known)
        firsts = [one.candle for one in sent if one.session == name and not one.twice]
        seen: list[int] = []
        for candle in (one for one in firsts if one is not None):
            newer = sum(number > candle.number for number in seen)
            assert newer <= LATE_MAX
            late += newer > 0
            seen.append(candle.number)
        assert seen[0] == 0
    assert late


def read(reading: Feed, *values: bytes, first: int = 0) -> ReadBatch:
    records = [
        SimpleNamespace(value=value, key=b"k", topic="candles", timestamp=1, headers=(), offset=at,
                        partition=0)
        for at, value in enumerate(values, first)
    ]  # fmt: skip
    return read_batch(Batch("candles", 0, 0, records), reading)


@pytest.mark.parametrize("kind", sorted(POISONS))
def test_every_poison_is_a_dead_letter_and_nothing_else(kind: str, reading: Feed) -> None:
    result = read(reading, POISONS[kind]("s000"))
    assert result.messages == []
    assert {letter.offset for letter in result.dead_letters} == {0}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_expected_lines_are_what_any_batching_gives(
    config: Config, reading: Feed, seed: int, cuts: list[int]
) -> None:
    [name] = symbols(1)
    sent = [one for one in islice(feed(seed, [name]), 70) if one.candle is not None][: sum(cuts)]
    spec = config.templates["market"].spec()
    waiting, at = [], 0
    for offset, cut in enumerate(cuts):
        taken = sent[at : at + cut]
        if taken:
            [(_, message)] = read(reading, *(one.value for one in taken), first=at).messages
            waiting.append(Waiting(offset, message))
        at += len(taken)
    state, _ = apply(None, *waiting, find=lambda _: spec)
    assert state is not None
    candles = [one.candle for one in sent if one.candle is not None]
    assert lines(state) == expected_lines(candles, name, spec)
    assert state.head.written == len(unique(candles))
