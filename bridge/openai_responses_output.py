"""A response's output items as they come, and the events that say so. Pure.

The order of the events is the published client's: an item is added, its parts are added,
filled and done, the item is done; only then comes the next one.
"""

from __future__ import annotations

from flashfeed.models.chat import ToolCall
from flashfeed.models.generation import GeneratedPiece

from .openai_bodies import Json, chat_logprobs, new_id


class Output:
    """Items made of a generation's pieces; `items` are those that are done.

    `one_call`: of the tool calls only the first is given.
    """

    def __init__(self, logprobs: bool, one_call: bool) -> None:
        self.items: list[Json] = []
        self._wants_logprobs = logprobs
        self._calls_left = 1 if one_call else -1
        self._message_id = ""
        self._texts: list[str] = []
        self._logprobs: list[Json] = []
        self._new_logprobs: list[Json] = []

    def add(self, piece: GeneratedPiece) -> list[Json]:
        """The events of the next piece."""
        if self._wants_logprobs and piece.finish_reason is None:
            self._new_logprobs += chat_logprobs([piece])["content"]
        events = self._text(piece.text) if piece.text else []
        for call in piece.tool_calls:
            events += self._close("completed") if self._message_id else []
            self._new_logprobs = []  # what was written of a call is in no text
            if self._calls_left:
                self._calls_left -= 1
                events += self._call(call)
        if piece.finish_reason is not None:
            if not self.items and not self._message_id:
                events += self._open()  # an empty answer is an empty message
            if self._message_id:
                cut = piece.finish_reason == "length"
                events += self._close("incomplete" if cut else "completed")
        return events

    def _text(self, text: str) -> list[Json]:
        events = [] if self._message_id else self._open()
        self._texts.append(text)
        logprobs, self._new_logprobs = self._new_logprobs, []
        self._logprobs += logprobs
        delta = {"delta": text, "logprobs": logprobs}
        return [*events, self._part_event("response.output_text.delta", delta)]

    def _open(self) -> list[Json]:
        self._message_id = new_id("msg_")
        return [
            self._item_event("response.output_item.added", self._message("in_progress", [])),
            self._part_event("response.content_part.added", {"part": self._part()}),
        ]

    def _close(self, status: str) -> list[Json]:
        part = self._part()
        message = self._message(status, [part])
        done = {"text": part["text"], "logprobs": part["logprobs"]}
        events = [
            self._part_event("response.output_text.done", done),
            self._part_event("response.content_part.done", {"part": part}),
            self._item_event("response.output_item.done", message),
        ]
        self.items.append(message)
        self._message_id, self._texts, self._logprobs = "", [], []
        return events

    def _call(self, call: ToolCall) -> list[Json]:
        item: Json = {
            "id": new_id("fc_"),
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }
        place = {"item_id": item["id"], "output_index": len(self.items)}
        opened = item | {"arguments": "", "status": "in_progress"}
        written = "response.function_call_arguments"
        events = [
            self._item_event("response.output_item.added", opened),
            {"type": f"{written}.delta", **place, "delta": call.arguments},
            {"type": f"{written}.done", **place, "arguments": call.arguments, "name": call.name},
            self._item_event("response.output_item.done", item),
        ]
        self.items.append(item)
        return events

    def _message(self, status: str, content: list[Json]) -> Json:
        return {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _part(self) -> Json:
        text, logprobs = "".join(self._texts), list(self._logprobs)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _item_event(self, kind: str, item: Json) -> Json:
        return {"type": kind, "output_index": len(self.items), "item": item}

    def _part_event(self, kind: str, fields: Json) -> Json:
        place = {"output_index": len(self.items), "content_index": 0}
        return {"type": kind, "item_id": self._message_id, **place, **fields}
