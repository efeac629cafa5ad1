"""The hidden states that a replay's answers came from, each beside how it moved: what a live
head would have read of them (heads/moved.py). Pure.

A live session keeps the means in its head, of questions that learn. Here a question need not
learn to be scored, and nothing of it goes out, so that they stand beside the session.
"""

from __future__ import annotations

from typing import NamedTuple

from flashfeed.engine import Update
from flashfeed.heads.moved import with_move
from flashfeed.models.events import FlashReady


class _Place(NamedTuple):
    """Which answer: of two lives of a session the same version has other records."""

    session: str
    version: int
    records_last: int
    query_id: int


class HiddenRows:
    """What heads would read of each answer, from when it is made until it is taken."""

    def __init__(self) -> None:
        self._means: dict[str, dict[int, bytes]] = {}
        self._newest: dict[str, dict[int, bytes]] = {}
        self._kept: dict[_Place, bytes] = {}

    def updated(self, session: str, update: Update) -> None:
        """What the engine gave for the session's next step. Answers that do not go out move
        the means too, as they do live."""
        means = self._means.setdefault(session, {})
        newest = self._newest[session] = {}
        for answer, state in zip(update.answers, update.hidden, strict=False):
            if state:
                query = answer.query_id
                newest[query], means[query] = with_move(state, means.get(query, b""))

    def published(self, event: FlashReady) -> None:
        """An answer of the session's newest step goes out."""
        row = self._newest.get(event.session_id, {}).get(event.id)
        if row is not None:
            self._kept[_place(event)] = row

    def ended(self, session: str) -> None:
        """The session is over; one of its name is another."""
        self._means.pop(session, None)

    def take(self, event: FlashReady) -> bytes:
        """The row of an answer that went out, once; b"" where there is none."""
        return self._kept.pop(_place(event), b"")


def _place(event: FlashReady) -> _Place:
    return _Place(event.session_id, event.data_version, event.records_last, event.id)
