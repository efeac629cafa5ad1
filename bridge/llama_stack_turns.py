"""A turn of an agent: what is kept of it, and the events it is told in. Pure.

A turn is inference steps with tool executions between them:

    turn_start | step_start, step_progress ..., step_complete | turn_complete
                                                    or turn_awaiting_input

It awaits input where the model called tools, which the client runs: what they gave
resumes the turn, and the next inference follows. The record of a turn is what clients
read of it (`turn`), and what they do not (`text`: what its documents say; `awaiting`).
0.0.35 knows no waiting: its turn is complete, and a new one brings what the tools gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from flashfeed.models.chat import ToolCall
from flashfeed.models.errors import FlashfeedError, RequestError
from flashfeed.models.generation import GeneratedPiece

from .errors import Unsupported
from .llama_stack_agent_requests import Document
from .llama_stack_words import (
    Words,
    assistant_message,
    call_deltas,
    completion_message,
    old_delta,
    openai_messages,
    plain_text,
    text_delta,
    tool_result,
)

Version = Literal["0.0.35", "0.1"]
"""Which words the client reads: those of 0.0.35, or those of all that came after it."""

INFERENCE: Final = "inference"
TOOL_EXECUTION: Final = "tool_execution"


class TurnUnknown(FlashfeedError):
    """The session has no such turn, or the turn no such step."""

    status = 404
    code = "turn_not_found"


class TurnRunning(FlashfeedError):
    """The session answers another turn, which this one would have to know."""

    status = 409
    code = "turn_running"
    retriable = True


class RunningTurn:
    """A turn while the model answers: gives its events, and is kept when it is closed."""

    def __init__(self, record: Words, version: Version, infer_iters_max: int, now: str) -> None:
        self._record: Final = record
        self._turn: Final[Words] = record["turn"]
        self._version: Final = version
        self._infer_iters_max: Final = infer_iters_max
        self._started_at: Final = now
        self._step_id: Final = f"{self._turn['turn_id']}.{len(self._turn['steps']) + 1}"
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._last: GeneratedPiece | None = None

    def opening(self) -> list[Words]:
        """The events before the first piece."""
        events: list[Words] = []
        if not self._turn["steps"]:
            events.append({"event_type": "turn_start", "turn_id": self._turn["turn_id"]})
        elif (done := self._turn["steps"][-1])["step_type"] == TOOL_EXECUTION:
            events.append(self._complete(done))
        start = {"event_type": "step_start", "step_type": INFERENCE, "step_id": self._step_id}
        return [*events, start]

    def progress(self, piece: GeneratedPiece) -> list[Words]:
        """The events of a piece."""
        self._texts.append(piece.text)
        self._calls += piece.tool_calls
        self._last = piece
        deltas = [text_delta(piece.text)] if piece.text else []
        for call in piece.tool_calls:
            deltas += call_deltas(call)
        return [self._progress(delta) for delta in deltas]

    def close(self, now: str) -> list[Words]:
        """The events after the last piece; the record has the whole answer now."""
        finish = (self._last and self._last.finish_reason) or "stop"
        message = completion_message("".join(self._texts), finish, self._calls)
        done = sum(step["step_type"] == INFERENCE for step in self._turn["steps"]) + 1
        if self._calls and done >= self._infer_iters_max:
            message["stop_reason"] = "end_of_turn"
        step = {
            "step_type": INFERENCE,
            "step_id": self._step_id,
            "turn_id": self._turn["turn_id"],
            "model_response": message,
            "started_at": self._started_at,
            "completed_at": now,
        }
        self._turn["steps"].append(step)
        self._turn.update(output_message=message, completed_at=now)
        waits = message["stop_reason"] == "end_of_message" and self._version != "0.0.35"
        self._record["awaiting"] = waits
        ended = "turn_awaiting_input" if waits else "turn_complete"
        return [self._complete(step), {"event_type": ended, "turn": self._turn}]

    def _progress(self, delta: Words) -> Words:
        event: Words = {
            "event_type": "step_progress",
            "step_type": INFERENCE,
            "step_id": self._step_id,
        }
        if self._version != "0.0.35":
            return event | {"delta": delta}
        key = "model_response_text_delta" if delta["type"] == "text" else "tool_call_delta"
        return event | {key: old_delta(delta)}

    def _complete(self, step: Words) -> Words:
        return {
            "event_type": "step_complete",
            "step_type": step["step_type"],
            "step_id": step["step_id"],
            "step_details": step,
        }


def new_record(
    session_id: str,
    place: int,
    messages: Sequence[Mapping[str, Any]],
    documents: Sequence[Document],
    tool_choice: str | None,
    now: str,
) -> Words:
    """A turn that nothing was answered in yet; `place` counts a session's turns from 1.

    Raises InvalidField or Unsupported, naming the field, and RequestError for a message
    that begins no turn.
    """
    roles = {message["role"] for message in openai_messages(messages)}
    if not roles <= {"user", "tool"}:
        raise RequestError("messages: a turn begins with messages of the user or of tools alone")
    turn = {
        "turn_id": f"{session_id}.{place}",
        "session_id": session_id,
        "input_messages": list(messages),
        "steps": [],
        "output_message": None,
        "output_attachments": [],
        "started_at": now,
    }
    text = "\n\n".join(_document_text(one, f"documents.{i}") for i, one in enumerate(documents))
    return {"turn": turn, "text": text, "tool_choice": tool_choice, "awaiting": False}


def resume(record: Words, responses: Sequence[Mapping[str, Any]], now: str) -> None:
    """Add what the client's tools gave to a turn that awaits it.

    Raises RequestError where it awaits nothing, or not every call is answered.
    """
    turn = record["turn"]
    if not record["awaiting"]:
        raise RequestError(f"turn {turn['turn_id']} awaits no tool responses")
    calls = turn["output_message"]["tool_calls"]
    wanted = {call["call_id"] for call in calls}
    results = [tool_result(one, f"tool_responses.{i}") for i, one in enumerate(responses)]
    given = [result["tool_call_id"] for result in results]
    if set(given) != wanted or len(given) != len(wanted):
        raise RequestError(
            f"tool_responses: expected one for each call ({', '.join(sorted(wanted))}), "
            f"got {', '.join(given)}"
        )
    turn["steps"].append(
        {
            "step_type": TOOL_EXECUTION,
            "step_id": f"{turn['turn_id']}.{len(turn['steps']) + 1}",
            "turn_id": turn["turn_id"],
            "tool_calls": calls,
            "tool_responses": list(responses),
            "started_at": turn["completed_at"],
            "completed_at": now,
        }
    )
    record["awaiting"] = False


def conversation(records: Sequence[Words]) -> list[Words]:
    """The turns as one conversation, in OpenAI's words."""
    messages: list[Words] = []
    for record in records:
        turn = record["turn"]
        asked = openai_messages(turn["input_messages"])
        if record["text"]:
            asked = _with_text(asked, record["text"])
        messages += asked
        for step in turn["steps"]:
            if step["step_type"] == INFERENCE:
                messages.append(assistant_message(step["model_response"], "steps"))
            else:
                messages += [tool_result(one, "steps") for one in step["tool_responses"]]
    return messages


def find_turn(records: Sequence[Words], turn_id: str) -> Words:
    """The record of a turn; raises TurnUnknown."""
    for record in records:
        if record["turn"]["turn_id"] == turn_id:
            return record
    raise TurnUnknown(f"no turn {turn_id}")


def find_step(record: Words, step_id: str) -> Words:
    """A step of a turn; raises TurnUnknown."""
    turn = record["turn"]
    for step in turn["steps"]:
        if step["step_id"] == step_id:
            found: Words = step
            return found
    raise TurnUnknown(f"turn {turn['turn_id']} has no step {step_id}")


def session_of_turn(turn_id: str) -> str:
    """The session whose turn this is: its id says so."""
    return turn_id.rpartition(".")[0]


def _with_text(messages: Sequence[Words], text: str) -> list[Words]:
    """The messages with the documents' text before the first that the user wrote."""
    place = next((i for i, one in enumerate(messages) if one["role"] == "user"), len(messages))
    content = f"{text}\n\n{messages[place]['content']}" if place < len(messages) else text
    return [*messages[:place], {"role": "user", "content": content}, *messages[place + 1 :]]


def _document_text(document: Document, where: str) -> str:
    content = document.content
    is_url = isinstance(content, Mapping) and "uri" in content
    if isinstance(content, str) and content.startswith(("http://", "https://", "file://", "data:")):
        is_url = len(content.split()) == 1
    if is_url:
        raise Unsupported(f"{where}.content: flashfeed fetches no URL; give the text", where)
    return plain_text(content, f"{where}.content")
