"""Token buckets against a plain count of what was let through; a tenant's limits are its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfeed.bridge.limits import Allowances, Bucket, TenantAllowance
from flashfeed.models.config import LimitsConfig
from flashfeed.models.errors import LimitReached


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def allowance(clock: Clock | None = None, **limits: float) -> TenantAllowance:
    none = {"sessions": 0, "requests_per_s": 0.0, "tokens_per_minute": 0, "connections": 0}
    return TenantAllowance("acme", LimitsConfig(**{**none, **limits}), clock or Clock())  # type: ignore[arg-type]


@given(
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5)), max_size=60),
    rate=st.floats(0.1, 20),
    capacity=st.integers(1, 20),
)
def test_no_stretch_of_time_lets_more_through_than_its_share(
    steps: list[tuple[float, int]], rate: float, capacity: int
) -> None:
    bucket, now_s = Bucket(rate, capacity), 50.0
    taken: list[tuple[float, int]] = []
    for passed_s, wanted in steps:
        now_s += passed_s
        amount = min(wanted, capacity)
        if bucket.wait_s(now_s, amount) == 0:
            bucket.take(now_s, amount)
            taken.append((now_s, amount))
    for first, (begin_s, _) in enumerate(taken):
        total = 0
        for at_s, amount in taken[first:]:
            total += amount
            assert total <= capacity + rate * (at_s - begin_s) + 1e-6


@given(spent=st.floats(0, 1000), rate=st.floats(0.5, 50), capacity=st.integers(1, 50))
def test_the_wait_is_exact(spent: float, rate: float, capacity: int) -> None:
    """A debt is paid off by the time that wait_s names, and not well before it."""
    bucket = Bucket(rate, capacity)
    bucket.take(10.0, spent)
    wait_s = bucket.wait_s(10.0, 1)
    if wait_s > 0.001:
        assert bucket.wait_s(10.0 + wait_s * 0.99, 1) > 0
    assert bucket.wait_s(10.0 + wait_s + 1e-6, 1) < 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(1.0, 1)
    bucket.take(100.0, 1)
    assert bucket.wait_s(50.0, 1) == 1.0
    assert bucket.wait_s(100.5, 1) == 0.5


def test_no_rate_is_no_limit() -> None:
    free = allowance()
    for _ in range(10_000):
        free.request()
    free.spend_tokens(10**9)
    free.check_tokens()
    assert free.pace_s() == 0
    with free.session(10**6), free.connection():
        pass


def test_requests_a_second() -> None:
    clock = Clock()
    limited = allowance(clock, requests_per_s=5)
    for _ in range(10):  # two seconds' worth at once
        limited.request()
    with pytest.raises(LimitReached, match=r"acme.*5 requests a second \(requests_per_s\)") as over:
        limited.request()
    assert over.value.status == 429 and over.value.retry_after_s == pytest.approx(0.2)
    clock.now_s += over.value.retry_after_s
    limited.request()
    with pytest.raises(LimitReached):
        limited.request()


def test_a_frame_is_paced_by_as_much_as_the_rate_wants() -> None:
    clock = Clock()
    limited = allowance(clock, requests_per_s=5)
    waits = []
    for _ in range(15):
        wait_s = limited.pace_s()
        waits.append(wait_s)
        clock.now_s += wait_s
    assert waits[:10] == [0] * 10
    assert waits[10:] == pytest.approx([0.2] * 5)


def test_tokens_a_minute_are_spent_after_the_fact_and_waited_for() -> None:
    clock = Clock()
    limited = allowance(clock, tokens_per_minute=60)
    limited.check_tokens()
    limited.spend_tokens(90)
    with pytest.raises(LimitReached, match=r"60 tokens a minute \(tokens_per_minute\)") as over:
        limited.check_tokens()
    assert over.value.retry_after_s == pytest.approx(31)
    clock.now_s += 31
    limited.check_tokens()


def test_connections_come_back_also_after_a_failure() -> None:
    limited = allowance(connections=2)
    with limited.connection():
        with pytest.raises(ValueError, match="broken"), limited.connection():
            raise ValueError("broken")
        says = r"2 requests and streams.*\(connections\)"
        with limited.connection(), pytest.raises(LimitReached, match=says), limited.connection():
            pass
        with limited.connection():
            pass


def test_sessions_count_those_that_are_being_made() -> None:
    limited = allowance(sessions=3)
    says = pytest.raises(LimitReached, match=r"3 sessions \(sessions\)")
    with limited.session(1), limited.session(1), says, limited.session(1):
        pass
    with limited.session(2):
        pass
    with pytest.raises(LimitReached), limited.session(3):
        pass


def test_one_tenants_limits_are_not_anothers() -> None:
    clock = Clock()
    own = {"small": LimitsConfig(requests_per_s=0.5)}
    allowances = Allowances(LimitsConfig(requests_per_s=2), own, clock)
    assert allowances.of("a") is allowances.of("a")
    allowances.of("small").request()
    for tenant, left in (("small", 0), ("a", 4), ("b", 4)):
        for _ in range(left):
            allowances.of(tenant).request()
        with pytest.raises(LimitReached, match=f"tenant {tenant} "):
            allowances.of(tenant).request()
