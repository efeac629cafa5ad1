"""The checks of one worker, from what its parts show.

alive    the worker goes on, the engine's thread runs
ready    and a broker answers, partitions are assigned, their sessions are there, every
         partition that has records is read
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from flashfeed.engine import Engine
from flashfeed.models.health import Check

from .broker_probe import BrokerProbe
from .owners import Owners
from .partitions import Partitions

Failure = BaseException | None


def worker_check(failure: Failure) -> Check:
    """Whether the worker can go on."""
    if failure is not None:
        return Check("worker", False, f"it stops: {failure}")
    return Check("worker", True, "nothing has failed")


def engine_check(failure: Failure) -> Check:
    """Whether the engine's thread lives."""
    if failure is not None:
        return Check("engine", False, f"its thread ended: {failure}")
    return Check("engine", True, "its thread runs")


def assigned_check(owned: Collection[int], elsewhere: bool) -> Check:
    """Whether there is anything for the worker to do. `elsewhere`: others serve everything,
    and it passes requests on to them."""
    if owned:
        return Check("assigned", True, f"owns partitions {_numbers(owned)}")
    if elsewhere:
        return Check("assigned", True, "owns none; the group's other workers serve them all")
    return Check("assigned", False, "the group has given it no partition of the records topic")


def recovered_check(owned: Collection[int], served: Collection[int]) -> Check:
    """Whether the sessions of every owned partition can be asked."""
    missing = set(owned) - set(served)
    if missing:
        return Check(
            "recovered", False, f"the sessions of partitions {_numbers(missing)} are not there yet"
        )
    return Check("recovered", True, f"serves {len(set(owned))} partitions")


def progress_check(stalled: Sequence[str]) -> Check:
    """Whether every partition that has records is read."""
    if stalled:
        return Check("progress", False, f"nothing comes of {', '.join(stalled)}, though there is")
    return Check("progress", True, "every partition that has records is read")


def _numbers(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


class WorkerHealth:
    """Looks at the parts when it is asked; `failure` is the worker's own, `elsewhere` whether
    other workers serve everything, `stalled` names what is not read though it has records."""

    def __init__(
        self,
        engine: Engine,
        partitions: Partitions,
        owners: Owners,
        probe: BrokerProbe,
        failure: Callable[[], Failure],
        elsewhere: Callable[[], bool],
        stalled: Callable[[], Sequence[str]],
    ) -> None:
        self._engine = engine
        self._partitions = partitions
        self._owners = owners
        self._probe = probe
        self._failure = failure
        self._elsewhere = elsewhere
        self._stalled = stalled

    def alive(self) -> list[Check]:
        """The checks of liveness."""
        return [worker_check(self._failure()), engine_check(self._engine.failure)]

    def ready(self) -> list[Check]:
        """The checks of readiness, liveness' among them."""
        owned = self._partitions.numbers
        return [
            *self.alive(),
            self._probe.check(),
            assigned_check(owned, not owned and self._elsewhere()),
            recovered_check(owned, self._served()),
            progress_check(self._stalled()),
        ]

    def _served(self) -> list[int]:
        return [
            one.partition
            for one in self._owners.live()
            if one.worker == self._owners.worker
            and self._partitions.serves(one.partition, one.epoch)
        ]
