"""How much each tenant may take of this worker: token buckets, with time as an argument.

A bucket of a rate holds that rate's worth of BURST_S seconds (tokens: of a minute) and
fills at the rate. What is spent after the fact may leave a debt, which is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from flashfeed.models.config import LimitsConfig
from flashfeed.models.errors import LimitReached

BURST_S: Final = 2.0
SLOT_RETRY_S: Final = 5.0
"""When to try again for a session or a connection: nobody knows when one ends."""


class Bucket:
    """A token bucket, full at first. `per_s` 0 is no limit. Times: seconds of one clock."""

    def __init__(self, per_s: float, capacity: float) -> None:
        self._per_s = per_s
        self._capacity = capacity
        self._level = capacity
        self._filled_s = 0.0

    def wait_s(self, now_s: float, amount: float) -> float:
        """How long until `amount` is there; 0 where it is."""
        if not self._per_s:
            return 0.0
        self._fill(now_s)
        return max(0.0, (min(amount, self._capacity) - self._level) / self._per_s)

    def take(self, now_s: float, amount: float) -> None:
        """Take it, there or not."""
        if self._per_s:
            self._fill(now_s)
            self._level -= amount

    def _fill(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self._filled_s)
        self._level = min(self._capacity, self._level + passed_s * self._per_s)
        self._filled_s = max(now_s, self._filled_s)


class TenantAllowance:
    """What one tenant may still take. An Allowance of the session service, and the gate's."""

    def __init__(self, tenant: str, limits: LimitsConfig, clock: Callable[[], float]) -> None:
        self._tenant = tenant
        self._limits = limits
        self._clock = clock
        burst = max(1.0, limits.requests_per_s * BURST_S)
        self._requests = Bucket(limits.requests_per_s, burst)
        self._tokens = Bucket(limits.tokens_per_minute / 60, limits.tokens_per_minute)
        self._connections = 0
        self._being_made = 0

    def request(self) -> None:
        """One request more. Raises LimitReached."""
        now_s = self._clock()
        wait_s = self._requests.wait_s(now_s, 1)
        if wait_s:
            limit = self._limits.requests_per_s
            raise self._reached(f"{limit:g} requests a second (requests_per_s)", wait_s)
        self._requests.take(now_s, 1)

    def pace_s(self) -> float:
        """One WebSocket frame more, and how long to wait before it is read: a socket is
        slowed down rather than refused."""
        now_s = self._clock()
        wait_s = self._requests.wait_s(now_s, 1)
        self._requests.take(now_s, 1)
        return wait_s

    @contextmanager
    def connection(self) -> Iterator[None]:
        """One connection more while the block lasts. Raises LimitReached."""
        limit = self._limits.connections
        if limit and self._connections >= limit:
            raise self._reached(f"{limit} requests and streams at a time (connections)")
        self._connections += 1
        try:
            yield
        finally:
            self._connections -= 1

    @contextmanager
    def session(self, held: int) -> Iterator[None]:
        """Room for one session beside the `held` ones, while it is being made. Raises
        LimitReached."""
        limit = self._limits.sessions
        if limit and held + self._being_made >= limit:
            raise self._reached(f"{limit} sessions (sessions); delete one")
        self._being_made += 1
        try:
            yield
        finally:
            self._being_made -= 1

    def check_tokens(self) -> None:
        """Whether the model may read and write for the tenant now. Raises LimitReached."""
        wait_s = self._tokens.wait_s(self._clock(), 1)
        if wait_s:
            limit = self._limits.tokens_per_minute
            raise self._reached(f"{limit} tokens a minute (tokens_per_minute)", wait_s)

    def spend_tokens(self, tokens: int) -> None:
        """The model did so many."""
        self._tokens.take(self._clock(), tokens)

    def _reached(self, what: str, retry_after_s: float = SLOT_RETRY_S) -> LimitReached:
        return LimitReached(f"tenant {self._tenant} may have at most {what}", retry_after_s)


class Allowances:
    """Every tenant's allowance: its own limits, or the default ones. One for each tenant
    that has a key and was seen, and so no more than there are keys."""

    def __init__(
        self,
        default: LimitsConfig,
        own: Mapping[str, LimitsConfig],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._default = default
        self._own = own
        self._clock = clock
        self._tenants: dict[str, TenantAllowance] = {}

    def of(self, tenant: str) -> TenantAllowance:
        """The tenant's allowance."""
        allowance = self._tenants.get(tenant)
        if allowance is None:
            limits = self._own.get(tenant, self._default)
            allowance = self._tenants[tenant] = TenantAllowance(tenant, limits, self._clock)
        return allowance
