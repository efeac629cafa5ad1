"""Sessions: their items' tokens, and the seats that hold them.

no seat    evicted, or not used yet: its tokens are known, its KV is not resident
senior     the seat that answers: items from `window_start(count)` on (inv. 5)
junior     under an exact window, the seat that takes over when the window moves
retired    seats that the window has left behind while somebody reads what is said there
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from flashfeed.models.errors import EngineError
from flashfeed.models.session import SessionSpec
from flashfeed.models.window import window_start

from .homes import Home
from .model import Model
from .seats import Kind, PrefixKey, Seat


@dataclass(eq=False)
class Session:
    """A session as the engine holds it.

    `plain`: nobody's session, but a place for chats without data (plain_chats.py).
    `prefix` are the tokens of its frozen prefix; `items` the tokens of the items from
    number `first` on, of all that were ever applied since the prefix; `retired` the seats
    that it holds for the sake of generations alone. `used` orders
    sessions by their last use, `changed` says that the snapshot, last saved at
    `saved_at` (time.monotonic()), is older than its items.
    """

    id: str
    spec: SessionSpec
    home: Home
    context_tokens: int
    plain: bool = False
    prefix: tuple[int, ...] = ()
    items: deque[tuple[int, ...]] = field(default_factory=deque)
    first: int = 0
    senior: Seat | None = None
    junior: Seat | None = None
    retired: list[Seat] = field(default_factory=list)
    used: int = 0
    changed: bool = False
    saved_at: float = field(default_factory=time.monotonic)
    closed: bool = False

    @property
    def named(self) -> str:
        """What errors call it: the id of a place for chats is no caller's business."""
        return "this chat" if self.plain else f"session {self.id!r}"

    @property
    def count(self) -> int:
        """Items ever applied since the frozen prefix."""
        return self.first + len(self.items)

    @property
    def start(self) -> int:
        """The first item of the window."""
        return window_start(self.spec.window, self.count)

    @property
    def key(self) -> PrefixKey:
        """What its frozen prefix is known by."""
        return self.key_of(self.prefix)

    def key_of(self, tokens: tuple[int, ...]) -> PrefixKey:
        """What such a frozen prefix of it is known by."""
        settings = self.home.settings
        return PrefixKey(
            self.model.hash,
            settings.kv_type,
            settings.flash_attention_on,
            self.spec.tenant,
            tokens,
        )

    @property
    def kind(self) -> Kind:
        """What groups its seats may be in."""
        return Kind(self.home, self.context_tokens)

    @property
    def model(self) -> Model:
        """Its home's model."""
        return self.home.model

    @property
    def seats(self) -> list[Seat]:
        """The seats it holds."""
        return [seat for seat in (self.senior, self.junior) if seat is not None]

    @property
    def is_lost(self) -> bool:
        """Whether a failed pass took what its seats held (context.py); its tokens are known."""
        return any(seat.group.context.lost is not None for seat in self.seats)

    def tokens(self, start: int, end: int) -> tuple[int, ...]:
        """The tokens of the items `start`..`end` - 1, which are all still known."""
        assert self.first <= start <= end <= self.count, (self.first, start, end, self.count)
        part = islice(self.items, start - self.first, end - self.first)
        return tuple(token for item in part for token in item)

    def n_tokens(self, start: int, end: int) -> int:
        """How many tokens those items have."""
        part = islice(self.items, start - self.first, end - self.first)
        return sum(len(item) for item in part)

    @property
    def length(self) -> int:
        """Tokens of the context that it answers over."""
        start = self.start if self.senior is None else self.senior.start
        return len(self.prefix) + self.n_tokens(max(self.first, start), self.count)

    def forget(self) -> None:
        """Drops the tokens of items that no seat will ask for again."""
        while self.first < self.start and self.items:
            self.items.popleft()
            self.first += 1

    def retire(self, seat: Seat) -> None:
        """Lets go of a seat; generations over it go on."""
        seat.retire()
        self.retired = [one for one in (*self.retired, seat) if one.retired]

    def free(self) -> None:
        """Gives its seats back, and ends what is said over them; the tokens stay."""
        for seat in (*self.seats, *(one for one in self.retired if one.retired)):
            seat.free()
        self.senior = self.junior = None
        self.retired = []


def expect_held(session: Session, seat: Seat) -> None:
    """Raises EngineError where the cache does not hold what the seat says it holds."""
    expected = len(session.prefix) + session.n_tokens(seat.start, seat.end)
    if not seat.length == seat.held == expected:
        raise EngineError(
            f"session {session.id!r} holds {seat.length} tokens, {seat.held} of them kept, "
            f"expected {expected}"
        )
