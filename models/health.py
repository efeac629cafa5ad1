"""What a worker's health is made of: named checks, each with its reason."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Check(NamedTuple):
    """One condition: whether it holds, and why a person would say so."""

    name: str
    ok: bool
    reason: str


class Health(Protocol):
    """What a bridge asks of its worker. Not alive: only a restart helps. Ready: requests for
    sessions are answered, and records are applied."""

    def alive(self) -> list[Check]:
        """The checks of liveness."""
        ...

    def ready(self) -> list[Check]:
        """The checks of readiness, liveness' among them."""
        ...
