"""What a reader raises. The message says what was wrong, where, and what to do."""

from __future__ import annotations


class ClientError(Exception):
    """Base of everything that flashfeed.client raises on purpose."""


class Unreachable(ClientError):
    """Nobody answers at that address, or what answers is not what was expected there."""


class Refused(ClientError):
    """The bridge answered and will not serve this: a wrong key, no such session."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class PositionLost(ClientError):
    """The stored position is no longer on the topic: events behind it are gone."""


class MalformedPosition(ClientError):
    """What is stored as the position is none."""
