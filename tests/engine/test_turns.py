"""Whose turn it is: no class and no session starves, and no pass breaks a limit."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from flashfeed.engine.plan import Run, n_tokens
from flashfeed.engine.settings import Limits
from flashfeed.engine.turns import (
    TURNS_IN_A_ROW,
    WAITS_MAX,
    Ask,
    Priority,
    Turns,
    Waiting,
    _is_next_token,
)

LIMITS = Limits(batch_tokens=64, cells=4096, sequences=8, outputs=8, vocabulary=100)
CHUNK, STEP = 12, 32


@dataclass(eq=False)
class FakeContext:
    limits: Limits = LIMITS


def job(
    context: FakeContext, priority: Priority, tokens: int, session: str = "s", tenant: str = "t"
) -> Waiting:
    run = Run(tuple(range(tokens)), 0, (0,), (tokens - 1,))
    return Waiting(tenant=tenant, session=session, ask=Ask(context, (run,), priority))


class World:
    """Jobs that are never done: each asks again as soon as it was served."""

    def __init__(self, jobs: list[Waiting]) -> None:
        self.jobs, self.turns = jobs, Turns(STEP, CHUNK)
        self.asks = {one: one.asked for one in jobs}
        for place, one in enumerate(jobs):
            one.arrival = place

    def step(self) -> list[Waiting]:
        parts = self.turns.plan(self.jobs)
        assert parts
        assert len({id(part.job.asked.context) for part in parts}) == 1
        assert n_tokens([run for part in parts for run in part.runs]) <= LIMITS.batch_tokens
        assert sum(len(run.outputs) for part in parts for run in part.runs) <= LIMITS.outputs
        for part in parts:
            assert part.runs
            whole = self.asks[part.job] if not part.left else None
            if whole is None:
                part.job.ask = Ask(part.job.asked.context, part.left, part.job.asked.priority)
            else:
                part.job.ask = whole
        return [part.job for part in parts]


JOBS = st.lists(
    st.tuples(
        st.sampled_from(Priority),
        st.integers(1, 200),
        st.integers(0, 2),
        st.sampled_from("ab"),
        st.sampled_from("xyz"),
    ),
    min_size=1,
    max_size=14,
)


@given(JOBS)
@settings(max_examples=150, deadline=None)
def test_no_class_starves(specs: list[tuple[Priority, int, int, str, str]]) -> None:
    contexts = [FakeContext() for _ in range(3)]
    world = World(
        [job(contexts[c], kind, n, session, tenant) for kind, n, c, tenant, session in specs]
    )
    present = {one.priority for one in world.jobs}
    waited = dict.fromkeys(present, 0)
    passed_over = 0
    for _ in range(80):
        read = any(_is_next_token(one) for one in world.jobs)
        lead, *joined = world.step()
        served = {lead.priority, *(one.priority for one in joined)}
        for one in present:
            waited[one] = 0 if one in served else waited[one] + 1
            assert waited[one] <= WAITS_MAX[one] + 2 * len(Priority)
        # A reader waits for one step of others, never for two.
        passed_over = passed_over + 1 if read and lead.priority > Priority.FOREGROUND else 0
        assert passed_over <= 1


@given(JOBS)
@settings(max_examples=60, deadline=None)
def test_no_job_starves(specs: list[tuple[Priority, int, int, str, str]]) -> None:
    contexts = [FakeContext() for _ in range(3)]
    world = World(
        [job(contexts[c], kind, n, session, tenant) for kind, n, c, tenant, session in specs]
    )
    longest = max(WAITS_MAX.values()) + 2 * len(Priority) + 1
    # A tenant's turn comes after the other tenants', and all others of its own go on first.
    bound = longest * TURNS_IN_A_ROW * len(world.jobs) * len({one.tenant for one in world.jobs})
    left = set(world.jobs)
    for _ in range(bound):
        left.difference_update(world.step())
        if not left:
            break
    assert not left


def test_tenants_and_sessions_take_turns() -> None:
    one, other = FakeContext(), FakeContext()
    jobs = [job(one, Priority.FOREGROUND, 1, f"s{n}", "big") for n in range(4)]
    jobs.append(job(other, Priority.FOREGROUND, 1, "s", "small"))
    world = World(jobs)
    served = [world.step() for _ in range(10)]
    # Each pass takes all of a context's readers along; the tenants alternate.
    assert [len(one) for one in served] == [4, 1] * 5


def test_a_begun_update_goes_on_before_its_equals() -> None:
    jobs = [job(FakeContext(), Priority.FLASH, 200, f"s{n}") for n in range(3)]
    world = World(jobs)
    order = [world.step()[0] for _ in range(12)]
    assert order == [jobs[0]] * 12


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.booleans())
def test_a_reader_never_waits_for_more_than_chunks(sizes: list[int], shared: bool) -> None:
    reader = FakeContext()
    jobs = [job(reader, Priority.FOREGROUND, 1, "reader")]
    kinds = (Priority.FLASH, Priority.INGEST, Priority.BACKGROUND)
    for place, size in enumerate(sizes):
        context = reader if shared else FakeContext()
        jobs.append(job(context, kinds[place % 3], size, f"s{place}"))
    world = World(jobs)
    others, waits = 0, 0
    for _ in range(60):
        before = {one: one.asked.n_tokens for one in world.jobs}
        parts = world.turns.plan(world.jobs)
        tokens = {part.job: n_tokens(part.runs) for part in parts}
        assert all(tokens[one] <= before[one] for one in tokens)
        others = sum(n for one, n in tokens.items() if one is not jobs[0])
        assert others <= CHUNK
        waits = 0 if jobs[0] in tokens else waits + 1
        assert waits <= 1


def test_what_is_little_joins_and_what_is_much_goes_alone() -> None:
    context = FakeContext()
    little = [job(context, Priority.FLASH, 10, f"s{n}") for n in range(4)]
    assert len(World(little).step()) == 3  # 30 of 32 tokens
    much = [job(context, Priority.FLASH, 40, f"s{n}") for n in range(4)]
    assert len(World(much).step()) == 1


def test_what_waits_behind_makes_background_work_urgent() -> None:
    background = job(FakeContext(), Priority.BACKGROUND, 5, "a")
    flash = job(FakeContext(), Priority.FLASH, 5, "b")
    assert World([background, flash]).step() == [flash]
    background.hurry = Priority.FOREGROUND
    assert World([background, flash]).step() == [background]
