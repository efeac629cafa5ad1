"""What must be true of an engine's books whenever no job of it runs: what seats, branches
and prefixes say they hold is what llama.cpp holds, and nothing else is held."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

import llama_cpp.llama_cpp as C

from flashfeed.engine import Engine
from flashfeed.engine.gguf import kv_bytes
from flashfeed.engine.pool import Sessions
from flashfeed.engine.recurrent import kept_sequences
from flashfeed.engine.seats import Group, Seat
from flashfeed.engine.sessions import expect_held
from flashfeed.engine.steps import Steps

_WAIT_S: Final = 60.0


async def quiet(engine: Engine) -> None:
    """Waits until no job is left, those in the background included."""
    scheduler = engine._running()
    for _ in range(int(_WAIT_S / 0.001)):
        if not scheduler._n_jobs:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"jobs that do not end: {scheduler._lanes}, {scheduler._blocked}")


async def expect_books(engine: Engine) -> None:
    """Fails where the books are wrong; no job may wait or run."""
    await quiet(engine)
    sessions = engine._open_sessions()

    def check() -> Steps[None]:
        try:
            _check(sessions)
        except AssertionError as error:
            failures.append(error)
        return
        yield

    failures: list[AssertionError] = []
    await engine._do("", check)  # in the engine's thread
    for failure in failures:
        raise failure


def _check(sessions: Sessions) -> None:
    assert sessions.n_seats <= sessions.settings.seats
    assert sum(len(session.seats) for session in sessions) == sessions.n_seats
    assert not {one: n for one, n in sessions._n_jobs.items() if one}
    seats: dict[Group, list[Seat]] = {group: [] for group in sessions._groups}
    for session in sessions:
        for seat in session.seats:
            assert not seat.retired
            assert not seat.branches
            assert not seat.reserved
            assert seat.prefix is None or seat.prefix.key == session.key
            assert seat.group.context_tokens == session.context_tokens
            seats[seat.group].append(seat)
            expect_held(session, seat)
    for group, own in seats.items():
        _check_group(group, own)
    charged = sum(resident.kv for resident in sessions._homes.residents())
    assert charged == sum(group.n_bytes for group in sessions._groups)


def _check_group(group: Group, seats: list[Seat]) -> None:
    context = group.context
    assert group.n_free == group.n_seats - len(seats)
    users: Counter[int] = Counter()
    lengths: dict[int, int] = {}
    cells = 0
    for prefix in group.prefixes.values():
        assert prefix.ready
        length = len(prefix.key.tokens)
        shared = 0
        if prefix.parent is not None:
            assert group.prefixes[prefix.parent.key] is prefix.parent
            assert prefix.parent.key[:-1] == prefix.key[:-1]
            users[prefix.parent.sequence] += 1
            shared = len(prefix.parent.key.tokens)
        lengths[prefix.sequence] = length
        cells += length - shared
    for seat in seats:
        shared = 0
        if seat.prefix is not None:
            assert group.prefixes[seat.prefix.key] is seat.prefix
            users[seat.prefix.sequence] += 1
            shared = len(seat.prefix.key.tokens)
        assert seat.sequence not in lengths
        lengths[seat.sequence] = seat.held
        cells += seat.held - shared
        assert seat.held <= group.context_tokens
        if seat.chat is not None:
            assert seat.chat.sequence not in lengths
            lengths[seat.chat.sequence] = seat.chat.base + len(seat.chat.tokens)
            cells += len(seat.chat.tokens)
            assert seat.held + len(seat.chat.tokens) <= group.context_tokens
    for prefix in group.prefixes.values():
        assert prefix.users == users[prefix.sequence], (prefix.users, users)
    everything = set(range(group.home.settings.sequences))
    assert len(group._ids) == len(set(group._ids))
    assert set(group._ids) == everything - set(lengths), "a sequence id leaked"
    assert context.ends == lengths
    assert context.cells_used == cells
    assert context.cells_used == sum(context._own.values())
    for sequence in everything:
        length = lengths.get(sequence, 0)
        assert C.llama_memory_seq_pos_max(context._memory, sequence) + 1 == length, sequence
        if context.can_cut:  # else there is the state after the last token alone
            assert C.llama_memory_seq_pos_min(context._memory, sequence) == (0 if length else -1)
    if context.can_cut:
        assert _cells_in_use(group, sum(lengths.values())) == cells
    else:
        _check_copies(group, seats)
    # What unused prefixes keep must not be missing to a seat that grows to its bound.
    free = context.limits.cells - cells
    wanted = sum(group.context_tokens - seat.held for seat in seats)
    for seat in seats:
        wanted -= len(seat.chat.tokens) if seat.chat is not None else 0
    assert free >= wanted, f"{free} cells are free, the seats may still want {wanted}"


def _check_copies(group: Group, seats: list[Seat]) -> None:
    """What a seat goes back to is there; no copy is of anything else."""
    context, n_sequences = group.context, group.home.settings.sequences
    held: dict[int, int] = {}
    for seat in seats:
        positions = context._checkpoints.positions(seat.sequence)
        assert not positions or positions[-1] == seat.held or context.lost is not None
        assert positions or not seat.held or context.lost is not None
        for position in positions:
            copy = context._checkpoints.at(seat.sequence, position)
            assert copy is not None
            held[copy] = position
        if seat.chat is not None:
            for position in context._checkpoints.positions(seat.chat.sequence):
                assert seat.chat.base < position <= seat.chat.base + len(seat.chat.tokens)
                copy = context._checkpoints.at(seat.chat.sequence, position)
                assert copy is not None
                held[copy] = position
    for copy in range(n_sequences, n_sequences + kept_sequences(group.home.settings)):
        end = C.llama_memory_seq_pos_max(context._memory, copy) + 1
        assert end == held.pop(copy, 0), copy
    assert not held


def _cells_in_use(group: Group, n_positions: int) -> int:
    """The cells as llama.cpp counts them, from the size of its whole state: a cell has its
    keys and values, a position, a count of sequences, and the id of each of them."""
    size = int(C.llama_state_seq_get_size(group.context._handle, -1))
    return round((size - 4 * n_positions) / (kv_bytes(group.home.model.header, 1, "f16") + 8))
