"""The records of one message, folded into a session's step. Pure. Rules:

- A record at or below its source partition's watermark is a repeat (invariant 2).
- One that cannot be used becomes a dead letter; its neighbours go on (invariant 6).
- What needs memory (a bar being built, a vital's last value) is in the head
  (models/assembly.py); a record may so lead to none, one or several items.
- A candle that comes again, or late, has its place in the window (session_items.py), and
  so have those of a live session that are not final (session_live.py).
- What is too much is dropped here (session_queue.py), never before: its watermarks advance,
  and it is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from flashfeed.codecs.assembly import assemble
from flashfeed.models.errors import RecordError, SessionFailed
from flashfeed.models.messages import PackedRecord, Records, pushed_text
from flashfeed.models.origins import BEFORE_ALL, Origin, check_origin, origin_key
from flashfeed.models.records import make_record, record_fields
from flashfeed.models.session import SessionSpec
from flashfeed.models.state import IDEMPOTENCY_KEYS_MAX, Item

from .session_items import MOVING, Fate, add_record
from .session_live import add_candles
from .session_step import Refused, Step

_RAW: Final[dict[str, str]] = {"ohlcv": "trade"}
"""What else a session of a type may be sent: what its own records are made of."""


def refuse_all(step: Step, message: Records, reason: str, detail: str) -> None:
    """Every record of the message becomes a dead letter."""
    step.refused += [Refused(message, one, reason, "$", detail) for one in message.records]


def keep_key(step: Step, key: str) -> None:
    """A message of that key is done: the same key again does nothing."""
    if key:
        kept = (*step.head.idempotency_keys, key)[-IDEMPOTENCY_KEYS_MAX:]
        step.head = msgspec.structs.replace(step.head, idempotency_keys=kept)


def fold_records(
    step: Step,
    held: Sequence[Item],
    offset: int,
    message: Records,
    origins: dict[str, Origin],
    drops: int,
) -> None:
    """Fold a message's records, the first `drops` of which are too many. `held` are the
    window's items before the step, `offset` is the message's, `origins` gathers what the
    step's version was made of."""
    head = step.head
    if head.failed:
        refuse_all(step, message, "session_failed", head.failed)
        return
    if message.type not in (head.spec.type, _RAW.get(head.spec.type)):
        detail = (
            f"session {head.session_id} takes {head.spec.type} records, this one is {message.type}"
        )
        refuse_all(step, message, "session_failed", detail)
        return
    if message.idempotency_key:
        if message.idempotency_key in head.idempotency_keys:
            step.duplicates += len(message.records)
            return
        keep_key(step, message.idempotency_key)
    key = origin_key(message.topic, message.partition)
    dropped, records = message.records[:drops], message.records[drops:]
    if message.topic and not message.replays:
        try:
            check_origin(head.watermarks, key)
        except SessionFailed as error:
            refuse_all(step, message, error.reason, str(error))
            return
        dropped, records = _unseen(step, key, dropped), _unseen(step, key, records)
    step.dropped += len(dropped)
    fold = _fold_assembled if _needs_memory(head.spec, message) else _fold_record
    taken: list[PackedRecord] = []
    texts: list[PackedRecord] = []
    for one in records:
        if (text := pushed_text(one.fields)) is not None:
            step.items.append(Item(text, offset=offset))
            texts.append(one)
            _move(step, one)
            continue
        try:
            if fold(step, held, offset, message, one):
                taken.append(one)
        except RecordError as error:
            step.refused.append(Refused(message, one, error.reason, error.path, str(error)))
    step.taken += len(taken)
    step.texts += len(texts)
    if message.traces:
        used = {one.offset for one in (*taken, *texts)}
        step.causes += [one.context for one in message.traces if one.offset in used]
    if message.topic and taken:
        if message.replays:  # a stretch of its own: what lies between came before
            key = f"{key}@{taken[0].offset}"
        seen = origins.get(key)
        first = seen.first if seen else taken[0].offset
        origins[key] = Origin(message.topic, message.partition, first, taken[-1].offset)


def _unseen(step: Step, key: str, records: tuple[PackedRecord, ...]) -> tuple[PackedRecord, ...]:
    """Those above the watermark of their source partition, which moves to the last."""
    mark = step.head.watermarks.get(key, BEFORE_ALL)
    unseen = []
    for one in records:
        if (one.offset, one.index) > mark:
            mark = one.offset, one.index
            unseen.append(one)
    if unseen:
        step.head.watermarks[key] = mark
    step.duplicates += len(records) - len(unseen)
    return tuple(unseen)


def _needs_memory(spec: SessionSpec, message: Records) -> bool:
    """Whether what a record leads to depends on more than itself and the window."""
    put_together = spec.bars is not None or spec.merge or message.may_change
    return bool(put_together or spec.live or message.type != spec.type)


def _fold_record(
    step: Step, held: Sequence[Item], offset: int, message: Records, one: PackedRecord
) -> bool:
    """Fold a record that is an item by itself; whether it was taken. Raises RecordError."""
    record = make_record(message.type, one.fields)
    fate = add_record(step, held, record, Item("", one.fields, offset))
    if fate is Fate.ADDED:
        step.final += message.type == "ohlcv"
    elif fate is Fate.CORRECTED:
        step.corrected += 1
    else:
        step.late += fate is Fate.LATE
        step.duplicates += fate is Fate.DUPLICATE
        return False
    _move(step, one)
    return True


def _fold_assembled(
    step: Step, held: Sequence[Item], offset: int, message: Records, one: PackedRecord
) -> bool:
    """Fold a record that is put together with others; whether it was taken. Raises
    RecordError."""
    head = step.head
    record = make_record(message.type, one.fields)
    received_s = one.received_ms / 1000
    done = assemble(head.assembly, head.spec, record, message.may_change, received_s)
    if head.spec.live:
        fates = add_candles(step, held, done.records, done.live, offset)
    else:
        fates = [
            add_record(step, held, made, Item("", record_fields(made), offset))
            for made in done.records
        ]
    assembly = done.assembly
    if assembly.live != len(done.live):
        assembly = msgspec.structs.replace(assembly, live=len(done.live))
    if assembly is not head.assembly:
        step.head = msgspec.structs.replace(head, assembly=assembly)
    moves = not MOVING.isdisjoint(fates)
    late = done.late or (not moves and Fate.LATE in fates)
    duplicate = not (moves or late) and Fate.DUPLICATE in fates
    step.late += late
    step.duplicates += duplicate
    step.corrected += Fate.CORRECTED in fates
    step.live += Fate.SHOWN in fates
    if head.spec.type == "ohlcv":
        step.final += fates.count(Fate.ADDED) + fates.count(Fate.CLOSED)
    if moves:
        _move(step, one)
    return not (late or duplicate)


def _move(step: Step, one: PackedRecord) -> None:
    """The record is in the step's data version."""
    step.received_ms.append(one.received_ms)
    step.moves = True
