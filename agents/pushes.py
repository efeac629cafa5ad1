"""What a push brings: checked before anything of it is written, and packed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from flashfeed.models.errors import (
    ContextFull,
    Overloaded,
    RecordError,
    RequestError,
    ValidationFault,
)
from flashfeed.models.messages import PackedRecord
from flashfeed.models.records import make_record
from flashfeed.models.views import Fields, SessionView

from .service import PUSH_RECORDS_MAX, PUSH_TEXT_CHARS_MAX

ON_THE_WAY_MAX: Final = 100_000
"""Records that a `drop_oldest` session may have waiting beyond its bound, all of which its
owner drops when it comes to them. More are there only where it does not."""


def check_push(
    view: SessionView, data: Sequence[Fields | str], count_tokens: Callable[[str], int]
) -> None:
    """Whether the session takes these records and texts now.

    Raises RecordError with the path of what is wrong, ContextFull for a text that is
    longer than the session's window, or where the session is full, RequestError, Overloaded.
    """
    if len(data) > PUSH_RECORDS_MAX:
        raise RequestError(f"expected at most {PUSH_RECORDS_MAX} records a push, got {len(data)}")
    for place, one in enumerate(data):
        where = f"$.data[{place}]"
        if isinstance(one, str):
            _check_text(view, one, where, count_tokens)
        else:
            _check_record(view, one, where)
    if view.failed:
        full = view.failed.startswith(ContextFull.code)
        refused = ContextFull if full else RequestError
        raise refused(f"session {view.session_id} takes no more records: {view.failed}")
    bound = view.queue_capacity
    if view.spec.overflow == "drop_oldest":
        bound += ON_THE_WAY_MAX
    if view.queue_size + len(data) > bound:
        raise Overloaded(
            f"the session's queue holds {view.queue_size} of {view.queue_capacity} records"
        )


def displaced(view: SessionView, pushed: int) -> int:
    """How many of the oldest records a push of so many costs, by the view after it: what has
    no room, unless it is decoded before the owner comes to it."""
    if view.spec.overflow != "drop_oldest":
        return 0
    return max(0, min(pushed, view.queue_size - view.queue_capacity))


def packed_records(data: Sequence[Fields | str], now_ms: int) -> tuple[PackedRecord, ...]:
    """The records and texts as a message carries them; they have no source but the push."""
    return tuple(
        PackedRecord(0, place, now_ms, {"text": one} if isinstance(one, str) else one)
        for place, one in enumerate(data)
    )


def _check_record(view: SessionView, fields: Fields, where: str) -> None:
    try:
        make_record(view.spec.type, fields)
    except RecordError as error:
        path = f"{where}{error.path.removeprefix('$')}"
        raise ValidationFault(f"{error} at {path}", path) from None


def _check_text(
    view: SessionView, text: str, where: str, count_tokens: Callable[[str], int]
) -> None:
    if not text.strip():
        raise ValidationFault(f"expected a text, got an empty one at {where}", where)
    if len(text) > PUSH_TEXT_CHARS_MAX:
        raise ValidationFault(
            f"expected a text of at most {PUSH_TEXT_CHARS_MAX} characters, got {len(text)} "
            f"at {where}",
            where,
        )
    bound = view.spec.window_tokens or view.context_tokens - view.prefix_tokens
    # A token has one byte at least, so that most texts need not be counted.
    if len(text.encode(errors="replace")) < bound:
        return
    tokens = count_tokens(text + "\n")
    if tokens > bound:
        raise ContextFull(
            f"expected a text of at most {bound} tokens, what the session's window takes, "
            f"got {tokens} at {where}"
        )
