"""What is kept of responses and conversations, and what a new response goes on from.

A response is kept with its own input; what came before it is read along the chain of
previous responses. A conversation is one list of items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from flashfeed.agents.service import Documents
from flashfeed.models.chat import MESSAGES_MAX
from flashfeed.models.errors import FlashfeedError

from .errors import InvalidField
from .openai_bodies import Json
from .openai_responses_requests import ResponseBody

RESPONSE: Final = "response"
CONVERSATION: Final = "conversation"


class ResponseUnknown(FlashfeedError):
    """No response of that id is kept."""

    status = 404
    code = "not_found"


class ConversationUnknown(FlashfeedError):
    """There is no conversation of that id."""

    status = 404
    code = "not_found"


@dataclass(frozen=True)
class Before:
    """What a response goes on from: the items, and the session that was asked last."""

    items: list[Json] = field(default_factory=list)
    session_id: str = ""


def before(documents: Documents, asked: ResponseBody) -> Before:
    """What a request goes on from.

    Raises InvalidField where a response of the chain is not kept, or there are too many;
    ConversationUnknown.
    """
    if asked.conversation_id and asked.previous_response_id:
        raise _cannot_go_on("expected it or a conversation, got both")
    if asked.conversation_id:
        return Before(list(kept_conversation(documents, asked.conversation_id)["items"]))
    turns: list[list[Json]] = []
    session_id = ""
    place: str | None = asked.previous_response_id or None
    while place:
        kept = documents.get(RESPONSE, place)
        if kept is None:
            raise _cannot_go_on(f"response {place!r} is not kept")
        response = kept["response"]
        if response["conversation"]:
            conversation_id = response["conversation"]["id"]
            raise _cannot_go_on(
                f"response {place!r} belongs to conversation {conversation_id!r}; go on with that"
            )
        session_id = session_id or kept["session_id"]
        turns.append([*kept["input"], *response["output"]])
        if sum(map(len, turns)) > MESSAGES_MAX:
            raise _cannot_go_on(f"expected at most {MESSAGES_MAX} items before, got more")
        place = response["previous_response_id"]
    return Before([item for turn in reversed(turns) for item in turn], session_id)


def _cannot_go_on(why: str) -> InvalidField:
    return InvalidField(f"previous_response_id: {why}", "previous_response_id")


async def keep_response(
    documents: Documents, response: Json, items: Sequence[Json], session_id: str
) -> None:
    """Keep what was asked and answered: the response where it says so, and both in its
    conversation. Raises RequestError where that is too large."""
    if response["store"]:
        kept = {"response": response, "input": list(items), "session_id": session_id}
        await documents.put(RESPONSE, response["id"], kept)
    if response["conversation"]:
        conversation_id = response["conversation"]["id"]
        await add_items(documents, conversation_id, [*items, *response["output"]])


def kept_response(documents: Documents, response_id: str) -> Json:
    """A response that is kept, with its input. Raises ResponseUnknown."""
    kept = documents.get(RESPONSE, response_id)
    if kept is None:
        raise ResponseUnknown(f"no response {response_id!r} is kept")
    return kept


def kept_conversation(documents: Documents, conversation_id: str) -> Json:
    """A conversation with its items. Raises ConversationUnknown."""
    kept = documents.get(CONVERSATION, conversation_id)
    if kept is None:
        raise _no_conversation(conversation_id)
    return kept


async def add_items(documents: Documents, conversation_id: str, items: Sequence[Json]) -> None:
    """Items at a conversation's end. Raises ConversationUnknown, RequestError."""
    await change_conversation(
        documents, conversation_id, lambda kept: kept | {"items": [*kept["items"], *items]}
    )


async def change_conversation(
    documents: Documents, conversation_id: str, change: Callable[[Json], Json]
) -> Json:
    """A conversation with its items, changed. Raises ConversationUnknown, RequestError."""
    changed = await documents.change(CONVERSATION, conversation_id, change)
    if changed is None:
        raise _no_conversation(conversation_id)
    return changed


def _no_conversation(conversation_id: str) -> ConversationUnknown:
    return ConversationUnknown(f"there is no conversation {conversation_id!r}")
