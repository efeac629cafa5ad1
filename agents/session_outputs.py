"""What a step writes: the changelog, and what readers see. Pure: heads in, writes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec
import orjson

from flashfeed.models.event_format import EventEncoding
from flashfeed.models.events import FlashReady, cloud_event
from flashfeed.models.learning import ExampleRecord
from flashfeed.models.outcomes import SentOutcome
from flashfeed.models.state import Head, Item, ring_slots
from flashfeed.models.trace_context import TraceContext, sent_in, trace_headers
from flashfeed.models.views import SessionEvent

from .changelog import entry_write, grave_write, tombstones
from .control_replies import asked_for
from .dead_letters import DeadLetter
from .kafka_writer import Write
from .session_events import flash_events, news, updated_event
from .session_pending import slot_tombstones, slot_writes
from .session_step import Refused, SessionState, Step


@dataclass(frozen=True, slots=True)
class OutputTopics:
    """Where a session's step is written; `source` is the events' CloudEvents source, and
    `encoding` how their values are written."""

    source: str
    changelog: str
    dead_letters: str
    flash_ready: str
    data_updated: str
    answers: str
    examples: str = ""
    outcomes: str = ""
    encoding: EventEncoding = field(default_factory=EventEncoding)


@dataclass(frozen=True, slots=True)
class Outputs:
    """A step's writes in the order that step_writer.py keeps, and the events in them; `answers`
    are all that were given, those that are no news too."""

    letters: list[DeadLetter]
    control: list[DeadLetter]
    refused: list[Write]
    changelog: list[Write]
    events: list[SessionEvent]
    published: list[Write]
    answers: list[FlashReady]


def step_outputs(
    step: Step, state: SessionState | None, head: Head, partition: int, topics: OutputTopics
) -> Outputs:
    """What the step writes; `state` is the one before it, `head` the one after."""
    letters = [_letter(refused, head.session_id) for refused in step.refused]
    asked = asked_for(step, head)
    refused = [letter.write(topics.dead_letters) for letter in (*letters, *asked.letters)]
    refused += asked.refusals
    changelog: list[Write] = []
    answers: list[FlashReady] = []
    events: list[SessionEvent] = []
    if step.deletes:
        # The grave first: without transactions a crash may come between, and a session that is
        # half erased and has none would be made anew by what is read again.
        if step.grave is not None:
            changelog.append(grave_write(topics.changelog, partition, step.grave))
        changelog += tombstones(topics.changelog, partition, head)
        refused += [_answer_tombstone(topics, head, query.id) for query in head.spec.flash]
        if state is not None:
            gone = state.pending.slots()
            changelog += slot_tombstones(topics.changelog, partition, head.session_id, gone)
    elif state is not None or step.creates:  # else the records went to the dead letters
        items = entry_items(step, state, head)
        # Examples, slots, entry: session_learning.py says why in this order.
        refused += [_example(topics, one) for one in step.learning.examples]
        refused += [_outcome(topics, head, one) for one in step.learning.outcomes]
        slots = step.learning.changes
        changelog = slot_writes(topics.changelog, partition, head.session_id, slots)
        changelog.append(entry_write(topics.changelog, partition, head, items))
        answers = flash_events(head, None if step.moves else [query.id for query in step.queries])
        events = [*news(head, answers), *([updated_event(head)] if step.moves else [])]
        left = {query.id for query in head.spec.flash}
        for query in state.head.spec.flash if state is not None else ():
            if state is not None and query.id not in left:
                refused.append(_answer_tombstone(topics, head, query.id))
                gone = state.pending.slots(query.id)
                changelog += slot_tombstones(topics.changelog, partition, head.session_id, gone)
    published = [*event_writes(events, topics, head.trace), *asked.replies]
    return Outputs(letters, asked.letters, refused, changelog, events, published, answers)


def entry_items(step: Step, state: SessionState | None, head: Head) -> Sequence[Item]:
    """The items of the step's changelog entry. Where the step wrote some again it is the
    whole window: of a ring's slots those before are then never needed, and so corrections
    without end cannot push out what is. A window without a ring keeps every slot."""
    if not step.rewind or state is None or ring_slots(head.spec.window) is None:
        return step.items
    return [*islice(state.items, len(state.items) - step.rewind), *step.items]


def version_events(head: Head) -> list[SessionEvent]:
    """The events of the head's version as they went out."""
    return [*news(head, flash_events(head)), updated_event(head)]


def standing_events(head: Head) -> list[SessionEvent]:
    """Every event of the head's version, those that were no news too."""
    return [*flash_events(head), updated_event(head)]


def event_writes(
    events: Iterable[SessionEvent], topics: OutputTopics, trace: TraceContext | None
) -> list[Write]:
    """The events as Kafka records: each in its topic, answers in the compacted one too. `trace`
    is their version's."""
    writes = []
    for event in events:
        out = cloud_event(event, topics.source, topics.encoding)
        flash = isinstance(event, FlashReady)
        topic = topics.flash_ready if flash else topics.data_updated
        if trace is not None:
            out.headers.extend(trace_headers(sent_in(trace, topic)))
        writes.append(Write(topic, out.key, out.value, out.headers))
        if isinstance(event, FlashReady):
            key = f"{event.session_id}/{event.id}".encode()
            writes.append(Write(topics.answers, key, out.value, out.headers))
    return writes


def _example(topics: OutputTopics, example: ExampleRecord) -> Write:
    return Write(topics.examples, example.head.key.encode(), msgspec.json.encode(example))


def _outcome(topics: OutputTopics, head: Head, outcome: SentOutcome) -> Write:
    return Write(topics.outcomes, head.session_id.encode(), msgspec.json.encode(outcome))


def _answer_tombstone(topics: OutputTopics, head: Head, query_id: int) -> Write:
    return Write(topics.answers, f"{head.session_id}/{query_id}".encode(), None)


def _letter(refused: Refused, session_id: str) -> DeadLetter:
    """A refused record as a dead letter; its value is what was mapped from the original."""
    return DeadLetter(
        topic=refused.message.topic,
        partition=refused.message.partition,
        offset=refused.record.offset,
        reason=refused.reason,
        path=refused.path,
        detail=refused.detail,
        key=session_id.encode(),
        value=orjson.dumps(refused.record.fields),
        part=refused.record.index,
        where=f"session {session_id}",
        timestamp_ms=refused.record.received_ms,
        feed=refused.message.feed,
        type=refused.message.type,
        template=refused.message.template,
        replays=refused.message.replays,
    )
