"""A session's step as values: what waits, what the session holds, what a step does.

Pure: no clock, no Kafka, no engine. A step is plan, run, settle:

session_plan.py     folds the waiting messages into a `Step`: what to decode, what to ask,
                    what to tell the callers
session_engine.py   runs it (the one file here that calls the engine)
session_settle.py   makes the head that goes to the changelog, and the state after it
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import msgspec

from flashfeed.models.errors import FlashfeedError
from flashfeed.models.messages import Append, Message, PackedRecord, Records
from flashfeed.models.records import Record, make_record
from flashfeed.models.session import FlashQuery, SessionSpec
from flashfeed.models.state import Head, Item
from flashfeed.models.window import block_start

STEP_ITEMS_MAX = 64

Templates = Callable[[str], SessionSpec | None]


class Waiting(NamedTuple):
    """A message of `flashfeed.records` that its session has not applied yet."""

    offset: int
    message: Message
    n_bytes: int = 0

    @property
    def records(self) -> int:
        """How many records it brings."""
        return len(self.message.records) if isinstance(self.message, Records) else 0

    @property
    def items(self) -> int:
        """How many window items it brings at most."""
        return 1 if isinstance(self.message, Append) else self.records


class Refused(NamedTuple):
    """A record that becomes a dead letter: its message, itself, and why."""

    message: Records
    record: PackedRecord
    reason: str
    path: str
    detail: str


class LastRecord(NamedTuple):
    """The newest record, and which item of the count it is: what a line may refer to."""

    record: Record
    number: int


@dataclass(slots=True)
class SessionState:
    """What the owner holds of a session in memory: the head, and the window's items,
    oldest first. `last` is the newest record, where the next line may refer to it."""

    head: Head
    items: deque[Item]
    last: LastRecord | None = None

    @classmethod
    def restored(cls, head: Head, items: Iterable[Item]) -> SessionState:
        """The state that a head and its window's items give."""
        state = cls(head, deque(items))
        referable = head.count - block_start(head.window, head.count)
        for back, item in enumerate(islice(reversed(state.items), referable), start=1):
            if item.fields is not None:
                record = make_record(head.spec.type, item.fields)
                state.last = LastRecord(record, head.count - back)
                break
        return state


def shrunk(state: SessionState, window_items: int) -> SessionState:
    """The state with a window of so many items: the newest are kept, and the count
    restarts at them. The first lines kept may refer to a record that is gone, until the
    window has moved on."""
    kept = list(state.items)[-window_items:]
    head = msgspec.structs.replace(
        state.head,
        window_items=window_items,
        base=state.head.written - len(kept),
        count=len(kept),
        items=len(kept),
        records=sum(item.fields is not None for item in kept),
    )
    return SessionState.restored(head, kept)


@dataclass(slots=True)
class Step:
    """One step's work: decode `items`, ask `queries`, tell every offset's caller.

    The window's last `rewind` items go before, and stand among `items` again where they
    stay (session_items.py). `head` is the head before the answers; `moves` says that the
    data version moves; `outcomes` has, for each offset, the error its caller gets (None: done).
    """

    head: Head
    messages: list[Waiting] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    queries: tuple[FlashQuery, ...] = ()
    refused: list[Refused] = field(default_factory=list)
    outcomes: dict[int, FlashfeedError | None] = field(default_factory=dict)
    received_ms: list[int] = field(default_factory=list)
    last: LastRecord | None = None
    creates: bool = False
    deletes: bool = False
    moves: bool = False
    marks_prefix: bool = False
    duplicates: int = 0
    late: int = 0
    corrected: int = 0
    taken: int = 0
    rewind: int = 0
    texts: int = 0

    @property
    def records(self) -> int:
        """Records that this step decodes, made of `taken` that came; pushed texts (`texts`)
        are none."""
        return sum(item.fields is not None for item in self.items)


def take_waiting(waiting: Sequence[Waiting]) -> list[Waiting]:
    """The messages of the next step: what waits, up to STEP_ITEMS_MAX items and to
    the first message that changes the session itself (which is a step of its own)."""
    taken: list[Waiting] = []
    items = 0
    for one in waiting:
        alone = not isinstance(one.message, Records | Append)
        if taken and (alone or items + one.items > STEP_ITEMS_MAX):
            break
        taken.append(one)
        items += one.items
        if alone:
            break
    return taken
