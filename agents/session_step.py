"""A session's step as values: what waits, what the session holds, what a step does.

Pure: no clock, no Kafka, no engine. A step is plan, run, settle:

session_queue.py    takes of what waits what the step is to do, and says what is too much;
step_size.py        how much that is, so that answers come in time
session_plan.py     folds the messages taken into a `Step`: what to decode, what to ask,
                    what to tell the callers
session_engine.py   runs it (the one file here that calls the engine)
session_settle.py   makes the head that goes to the changelog, and the state after it
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from flashfeed.codecs.registry import text_codec
from flashfeed.codecs.text import RefersToPrevious, TextCodec
from flashfeed.codecs.text_facts import with_sums_of
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.messages import Append, Create, Message, PackedRecord, Records
from flashfeed.models.records import Record, make_record
from flashfeed.models.session import FlashQuery, SessionSpec
from flashfeed.models.state import Grave, Head, Item
from flashfeed.models.trace_context import TraceContext
from flashfeed.models.window import block_start

from .session_learning import Label, StepLearning
from .session_pending import PendingAnswers

STEP_ITEMS_MAX = 256
"""Items of a step at most, however little time they take (step_size.py): it is planned in one
go, and one message may have more."""

MERGED_LINES_MAX = 64
"""Into how many lines a step merges what waits, where `overflow` says so."""

Templates = Callable[[str], SessionSpec | None]
Admit = Callable[[str, str], None]
"""Raises SessionsFull where the feed may make no session of that id by itself."""


def any_feed(_feed: str, _session_id: str) -> None:
    """The Admit that refuses nothing."""


class Waiting(NamedTuple):
    """A message of `flashfeed.records` that its session has not applied yet; `written_ms` is
    Kafka's time of it, `arrived_ns` when it came here, where something of it is followed."""

    offset: int
    message: Message
    n_bytes: int = 0
    written_ms: int = 0
    arrived_ns: int = 0

    @property
    def records(self) -> int:
        """How many records it brings."""
        return len(self.message.records) if isinstance(self.message, Records) else 0

    @property
    def alone(self) -> bool:
        """Whether it changes the session itself, which is a step of its own."""
        return not isinstance(self.message, Records | Append)

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
    """The newest record, which item of the count it is, and what its text codec remembers
    after it: what a line of the same block may refer to."""

    record: Record
    number: int
    memory: Any


@dataclass(slots=True)
class SessionState:
    """What the owner holds of a session in memory: the head, and the window's items,
    oldest first. `last` is the newest record, where the next line may refer to it; `pending`
    are the answers that wait for their labels."""

    head: Head
    items: deque[Item]
    last: LastRecord | None = None
    pending: PendingAnswers = field(default_factory=PendingAnswers)

    @classmethod
    def restored(
        cls, head: Head, items: Iterable[Item], pending: PendingAnswers | None = None
    ) -> SessionState:
        """The state that a head, its window's items and its pending answers give."""
        state = cls(head, deque(items), pending=pending or PendingAnswers())
        begins = block_start(head.window, head.count)
        block = islice(reversed(state.items), head.count - begins)
        codec = text_codec(head.spec.text, head.spec.type)
        state.last = last_of(codec, head.spec.type, [*block][::-1], head.count)
        return state


def last_of(
    codec: TextCodec, stream_type: str, block: Sequence[Item], count: int
) -> LastRecord | None:
    """The newest record of items that begin with their block and end before item `count`,
    as the lines after them know it."""
    last: LastRecord | None = None
    records = [one for one in enumerate(block, start=count - len(block)) if one[1].fields]
    if isinstance(codec, RefersToPrevious):
        records = records[-1:]
    for number, item in records:
        record = make_record(stream_type, item.fields or {})
        before = last.memory if last is not None else None
        memory = codec.remember(before, record)
        if not item.whole:
            memory = with_sums_of(before, memory)
        last = LastRecord(record, number, memory)
    return last


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
    return SessionState.restored(head, kept, state.pending)


@dataclass(slots=True)
class Step:
    """One step's work: decode `items`, ask `queries`, tell every offset's caller.

    The window's last `rewind` items go before, and stand among `items` again where they
    stay (session_items.py). `head` is the head before the answers; `moves` says that the
    data version moves; `outcomes` has, for each offset, the error its caller gets (None: done).
    `causes` are the traces of the records in it that are followed. `labels` were sent for
    answers before it, and `learning` is what comes of them and of the rules. `grave` is what is
    left of the session: of its life before, or where the step deletes it of this one.
    """

    head: Head
    messages: list[Waiting] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    queries: tuple[FlashQuery, ...] = ()
    refused: list[Refused] = field(default_factory=list)
    outcomes: dict[int, FlashfeedError | None] = field(default_factory=dict)
    received_ms: list[int] = field(default_factory=list)
    causes: list[TraceContext] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    learning: StepLearning = field(default_factory=StepLearning)
    last: LastRecord | None = None
    grave: Grave | None = None
    creates: bool = False
    deletes: bool = False
    moves: bool = False
    marks_prefix: bool = False
    duplicates: int = 0
    late: int = 0
    corrected: int = 0
    final: int = 0
    live: int = 0
    dropped: int = 0
    coalesced: int = 0
    taken: int = 0
    rewind: int = 0
    texts: int = 0

    @property
    def asks(self) -> bool:
        """Whether somebody waits for the session to be made; records do not."""
        return any(isinstance(one.message, Create) for one in self.messages)

    @property
    def records(self) -> int:
        """Records that this step decodes, made of `taken` that came; pushed texts (`texts`)
        are none."""
        return sum(item.fields is not None for item in self.items)
