"""What becomes of a step's messages that came from `flashfeed.control`: their replies, and
a dead letter for each that was refused. Pure.

Refusals go out before the changelog, replies of what was done after it (step_writer.py):
so a message that is read again after a crash, and lies before the changelog's end, was
done where the head knows its key, and was refused and answered where it does not.
"""

from __future__ import annotations

from typing import NamedTuple

from flashfeed.models.control import Reply, encode_reply, op_name, refusal
from flashfeed.models.errors import FlashfeedError
from flashfeed.models.messages import AddQuery, Asked, Message, encode_message
from flashfeed.models.state import Head
from flashfeed.models.tenant import split_key

from .dead_letters import DeadLetter
from .kafka_writer import Write
from .session_step import Step


class AskedFor(NamedTuple):
    """The letters and replies of what was refused, and the replies of what was done."""

    letters: list[DeadLetter]
    refusals: list[Write]
    replies: list[Write]


def asked_for(step: Step, head: Head) -> AskedFor:
    """What the step's messages from the control topic lead to; `head` is the one after it."""
    out = AskedFor([], [], [])
    for one in step.messages:
        asked = one.message.asked
        if asked is None:
            continue
        error = step.outcomes.get(one.offset)
        if error is not None:
            out.letters.append(_letter(one.message, asked, error, head.session_id))
            out.refusals.extend(reply_writes(asked, one.message, head, error))
        elif step.deletes or one.message.idempotency_key in head.idempotency_keys:
            out.replies.extend(reply_writes(asked, one.message, head, None))
    return out


def reply_writes(
    asked: Asked, message: Message, head: Head, error: FlashfeedError | None
) -> list[Write]:
    """The reply to a message, where one is awaited."""
    tenant, session_id = split_key(head.session_id)
    added = None
    if isinstance(message, AddQuery) and error is None:
        added = next((q.id for q in head.spec.flash if q.query == message.query.query), None)
    reply = Reply(
        op=op_name(message),
        session_id=session_id,
        tenant=tenant,
        error=refusal(error) if error is not None else None,
        query_id=added,
        data_version=head.version,
        records_offset=head.records_offset,
    )
    return reply_write(asked, head.session_id, reply)


def reply_write(asked: Asked, key: str, reply: Reply) -> list[Write]:
    """A reply as a Kafka record, where one is awaited."""
    if not asked.reply_to:
        return []
    headers = [("content-type", b"application/json")]
    if asked.correlation_id:
        headers.append(("correlation_id", asked.correlation_id.encode()))
    return [Write(asked.reply_to, key.encode(), encode_reply(reply), headers)]


def _letter(message: Message, asked: Asked, error: FlashfeedError, session_id: str) -> DeadLetter:
    return DeadLetter(
        topic=asked.topic,
        partition=asked.partition,
        offset=asked.offset,
        reason=error.reason,
        path="$",
        detail=str(error),
        key=session_id.encode(),
        value=encode_message(message),
        where=f"session {session_id}",
    )
