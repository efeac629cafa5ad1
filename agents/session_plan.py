"""A session's step, planned: waiting messages in, the step's work out. Pure. Rules:

- Messages are folded in offset order; one at or below `records_offset` is a repeat and
  is skipped whole (invariant 2), and so is what the control topic's owner wrote twice. Of a
  deleted session its grave says both (graves.py).
- All records that wait become one version (invariant 3). A message that changes the
  session itself (create, delete, mark_prefix, queries) ends a step.
- A message's records are folded one by one (session_records.py); their lines are written
  when all have their place.
- What is too much is dropped or merged in the step (session_queue.py), never before.
- A line may refer to records before it only inside its own block (models/window.py), so
  that no context begins with a line that needs what has slid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from flashfeed.codecs.registry import text_codec
from flashfeed.models.errors import (
    FlashfeedError,
    RequestError,
    SessionExists,
    SessionFailed,
    SessionsFull,
    SessionUnknown,
)
from flashfeed.models.messages import (
    AddQuery,
    Append,
    Asked,
    Create,
    Delete,
    MarkPrefix,
    Message,
    Outcome,
    Records,
    RemoveQuery,
)
from flashfeed.models.origins import Origin, origin_key
from flashfeed.models.session import NEXT_WORD, QUERIES_MAX, FlashQuery, SessionSpec, with_query_ids
from flashfeed.models.state import Grave, Head, Item
from flashfeed.models.trace_context import PENDING_MAX

from .session_items import merge_items, write_lines
from .session_learning import StepLearning, fold_outcome
from .session_pending import PendingAnswers
from .session_queue import NO_RELIEF, Relief
from .session_records import fold_records, keep_key, refuse_all
from .session_rules import rule_of
from .session_step import Admit, SessionState, Step, Templates, Waiting, any_feed


def plan_step(
    session_id: str,
    state: SessionState | None,
    taken: Sequence[Waiting],
    templates: Templates,
    window_items: int = 0,
    relief: Relief = NO_RELIEF,
    admit: Admit = any_feed,
    grave: Grave | None = None,
) -> Step:
    """Fold the taken messages over the state. `state` None: there is no such session;
    one that this step creates has a window of `window_items` where that is not 0. `relief`
    says what is done about too much of them; `admit` refuses a session that a feed would
    make by itself; `grave` is what is left of the session's life before."""
    step = bare_step(session_id, state, window_items)
    if state is None and grave is not None:
        step.grave = grave
        step.head = msgspec.structs.replace(
            step.head, records_offset=grave.records_offset, asked=grave.asked
        )
    step.causes += step.head.assembly.traces
    held = state.items if state is not None else ()
    exists = state is not None
    since = step.head.records_offset + 1
    to_drop = relief.drops
    fresh_origins: dict[str, Origin] = {}
    for origin in step.head.assembly.origins:  # a replay's stretch can be beside its feed's
        key = origin_key(origin.topic, origin.partition)
        fresh_origins[f"{key}@{origin.first}" if key in fresh_origins else key] = origin
    for one in taken:
        step.messages.append(one)
        if one.offset <= step.head.records_offset:
            step.outcomes[one.offset] = None
            continue
        drops = min(to_drop, one.records)
        to_drop -= drops
        try:
            pending = state.pending if state is not None else PendingAnswers()
            exists = _fold(step, held, one, exists, templates, admit, fresh_origins, drops, pending)
            step.outcomes[one.offset] = None
        except FlashfeedError as error:
            step.outcomes[one.offset] = error
        step.head = _note_asked(step.head, one.message)
        if step.deletes:
            step.grave = Grave(session_id, one.offset, step.head.asked)
        if exists:
            first = step.head.first_offset if step.head.first_offset >= 0 else one.offset
            step.head = msgspec.structs.replace(
                step.head, records_offset=one.offset, first_offset=first
            )
    if step.items:
        if relief.coalesces:
            merge_items(step, since)
        write_lines(step, held, text_codec(step.head.spec.text, step.head.spec.type))
    origins, traces = tuple(fresh_origins.values()), tuple(step.causes[-PENDING_MAX:])
    if step.moves:
        spec = step.head.spec
        step.queries = (*spec.flash, NEXT_WORD) if spec.pre_decode else spec.flash
        step.head = msgspec.structs.replace(
            step.head,
            version=step.head.version + 1,
            origins=origins,
            event_time=_event_time(step),
        )
        origins = traces = ()
    # What went into a bar that is not complete belongs to the version that has the bar.
    assembly = msgspec.structs.replace(step.head.assembly, origins=origins, traces=traces)
    step.head = msgspec.structs.replace(step.head, assembly=assembly)
    return step


def _event_time(step: Step) -> float | None:
    time = step.last.record.timestamp if step.last is not None else None
    newest = step.items[-1].merged if step.items else None
    if newest is not None and newest.until is not None:
        time = newest.until
    return time if time is not None else step.head.event_time


def _fold(
    step: Step,
    held: Sequence[Item],
    one: Waiting,
    exists: bool,
    templates: Templates,
    admit: Admit,
    origins: dict[str, Origin],
    drops: int,
    pending: PendingAnswers,
) -> bool:
    """Fold one message; returns whether the session exists after it."""
    message = one.message
    if _was_asked(step.head, message):
        if exists and message.idempotency_key not in step.head.idempotency_keys:
            raise _taken_before(message.asked)
        return exists
    if isinstance(message, Create):
        if exists:
            raise SessionExists(f"session {step.head.session_id} exists already")
        _create(step, message.spec, message.created_ms)
        keep_key(step, message.idempotency_key)
        return True
    if not exists:
        spec = templates(message.template) if isinstance(message, Records) else None
        if spec is None:
            if isinstance(message, Records):
                detail = f"no session {step.head.session_id}: never created, or deleted"
                refuse_all(step, message, "session_unknown", detail)
            raise SessionUnknown(f"no session {step.head.session_id}")
        assert isinstance(message, Records)  # nothing else names a template
        try:
            admit(message.feed, step.head.session_id)
        except SessionsFull as full:
            refuse_all(step, message, full.reason, str(full))
            raise
        _create(step, spec, message.records[0].received_ms, message.feed)
    if isinstance(message, Records):
        fold_records(step, held, one.offset, message, origins, drops)
    elif isinstance(message, Append):
        _check_alive(step)
        step.items.append(Item(message.text, offset=one.offset))
        step.moves = True
    elif isinstance(message, AddQuery):
        _add_query(step, message.query)
    elif isinstance(message, RemoveQuery):
        _remove_query(step, message.query_id)
    elif isinstance(message, Outcome):
        label = fold_outcome(step.learning, step.head, pending, message)
        if label is not None:
            step.labels.append(label)
        return True
    elif isinstance(message, Delete):
        if message.idle_since is not None and step.head.records_offset > message.idle_since:
            return True  # something came meanwhile
        step.deletes = True
        return False
    else:
        assert isinstance(message, MarkPrefix)
        _check_alive(step)
        step.marks_prefix = True
        # Frozen lines stay as they are: what is open is shown again behind them.
        assembly = msgspec.structs.replace(step.head.assembly, live=0)
        step.head = msgspec.structs.replace(step.head, assembly=assembly)
    if message.asked is not None:
        keep_key(step, message.idempotency_key)
    return True


def _was_asked(head: Head, message: Message) -> bool:
    """Whether the control topic's message came before: its owner writes those again that it had
    not committed when it ended. An outcome is known by its label."""
    asked = message.asked
    if asked is None or isinstance(message, Outcome):
        return False
    return asked.offset <= head.asked.get(origin_key(asked.topic, asked.partition), -1)


def _taken_before(asked: Asked | None) -> RequestError:
    assert asked is not None
    return RequestError(
        f"{asked.topic}[{asked.partition}] offset {asked.offset}: the session took a later one of "
        "that partition before. Where the topic was made anew, delete the session over HTTP"
    )


def _note_asked(head: Head, message: Message) -> Head:
    asked = message.asked
    if asked is None or isinstance(message, Outcome) or _was_asked(head, message):
        return head
    key = origin_key(asked.topic, asked.partition)
    return msgspec.structs.replace(head, asked={**head.asked, key: asked.offset})


def _check_alive(step: Step) -> None:
    if step.head.failed:
        raise SessionFailed(f"session {step.head.session_id} failed: {step.head.failed}")


def _create(step: Step, spec: SessionSpec, created_ms: int, feed: str = "") -> None:
    for query in spec.flash:
        _check_rule(query, spec)
    step.creates = True
    spec = with_query_ids(spec)
    step.head = Head(
        session_id=step.head.session_id,
        spec=spec,
        next_query_id=max((query.id for query in spec.flash), default=0) + 1,
        window_items=step.head.window_items,
        created_ms=created_ms,
        feed=feed,
        asked=step.head.asked,
    )


def _check_rule(query: FlashQuery, spec: SessionSpec) -> None:
    """Raises RequestError where its outcome rule is none for records of the type."""
    if query.outcome is not None:
        rule_of(query, spec.type)


def _add_query(step: Step, query: FlashQuery) -> None:
    _check_alive(step)
    head = step.head
    _check_rule(query, head.spec)
    if any(have.query == query.query for have in head.spec.flash):
        raise SessionExists(f"session {head.session_id} has that query already: {query.query!r}")
    if len(head.spec.flash) >= QUERIES_MAX:
        raise RequestError(f"a session has at most {QUERIES_MAX} flash queries")
    numbered = msgspec.structs.replace(query, id=head.next_query_id)
    step.head = msgspec.structs.replace(
        head,
        spec=msgspec.structs.replace(head.spec, flash=(*head.spec.flash, numbered)),
        next_query_id=head.next_query_id + 1,
    )
    if head.version:
        step.queries = (numbered,)


def _remove_query(step: Step, query_id: int) -> None:
    head = step.head
    left = tuple(query for query in head.spec.flash if query.id != query_id)
    if len(left) == len(head.spec.flash):
        raise SessionUnknown(f"session {head.session_id} has no flash query {query_id}")
    step.head = msgspec.structs.replace(
        head,
        spec=msgspec.structs.replace(head.spec, flash=left),
        answers=tuple(answer for answer in head.answers if answer.query_id != query_id),
        priors={one: prior for one, prior in head.priors.items() if one != query_id},
        hidden_means={one: mean for one, mean in head.hidden_means.items() if one != query_id},
    )


def bare_step(session_id: str, state: SessionState | None, window_items: int = 0) -> Step:
    """A step that does nothing yet, over the state."""
    if state is not None:
        head = msgspec.structs.replace(state.head, watermarks=dict(state.head.watermarks))
        return Step(head=head, last=state.last)
    empty = SessionSpec(type="event")
    return Step(head=Head(session_id, empty, window_items=window_items))


def unplanned(
    session_id: str, state: SessionState | None, taken: Sequence[Waiting], error: FlashfeedError
) -> Step:
    """The step that refuses messages which no step can be planned of."""
    step = bare_step(session_id, state)
    step.messages = list(taken)
    step.outcomes = dict.fromkeys(one.offset for one in taken)
    return failed_step(step, state, error)


def failed_step(step: Step, before: SessionState | None, error: FlashfeedError) -> Step:
    """The same messages where the engine cannot take them: their callers get the error,
    their records are refused, and the head moves past them all the same. A session
    whose records were refused has a hole, and fails; one that was only asked too much
    (a question, an append) goes on as it was."""
    messages = [one.message for one in step.messages]
    has_hole = any(isinstance(message, Records) for message in messages)
    base = before.head if before is not None else msgspec.structs.replace(step.head, version=0)
    failed = replace(
        step,
        items=[],
        queries=(),
        moves=False,
        marks_prefix=False,
        received_ms=[],
        causes=[],
        refused=[],
        labels=[],
        learning=StepLearning(),
        texts=0,
        final=0,
        live=0,
        dropped=0,
        coalesced=0,
        rewind=0,
        taken=0,
        duplicates=0,
        late=0,
        corrected=0,
    )
    failed.creates = False  # a session that cannot even begin is not kept
    failed.last = before.last if before is not None else None
    failed.head = msgspec.structs.replace(
        base,
        spec=step.head.spec if before is None else base.spec,
        records_offset=step.messages[-1].offset,
        asked=step.head.asked,
        failed=f"{error.code}: {error}" if has_hole else base.failed,
    )
    for message in messages:
        if isinstance(message, Records):
            refuse_all(failed, message, error.reason, str(error))
    failed.outcomes = {
        offset: outcome if outcome is not None else error
        for offset, outcome in step.outcomes.items()
    }
    return failed
