"""What is counted of what comes from outside: schemas and births.

A worker's Metrics count it. A command that serves no metrics counts nothing, and does not load
the engine for it: `flashfeed probe` and `targets` also run where llama.cpp cannot (a CUDA build
on a machine without a driver).
"""

from __future__ import annotations

from typing import Protocol


class SupplyCounts(Protocol):
    """Takes the events of supplies.py and births.py."""

    def schema_request(self, result: str) -> None:
        """The schema registry was asked."""

    def birth(self, result: str) -> None:
        """A Sparkplug birth was read, waited for, or did not come."""

    def sequence_gap(self) -> None:
        """Sparkplug messages are missing, or out of order."""


class Uncounted:
    """Where nobody scrapes."""

    def schema_request(self, result: str) -> None:
        """Not counted."""

    def birth(self, result: str) -> None:
        """Not counted."""

    def sequence_gap(self) -> None:
        """Not counted."""
