"""Tool calls in a model's text, as it comes. Pure; never raises, never loses text.

Models write calls as they were trained to, whatever they are told:

    <tool_call>{"name": ..., "arguments": {...}}</tool_call>    Hermes, Qwen, SmolLM2
    [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]        Mistral
    <|python_tag|>{"name": ..., "parameters": {...}}            Llama 3
    {"name": ..., "parameters": {...}}                          Llama 3: the whole answer
    [{"name": ..., "arguments": {...}}, ...]                    others: the whole answer

States of a reader, and what it holds back in each:

START   nothing but white space came
TEXT    what may be the beginning of a tag; white space, until it is clear what follows
TAGGED  everything since a tag, until its JSON value ends or cannot be one
CLOSING what may be the closing tag after a call
BARE    everything, since it may be an answer that is calls and nothing else

What is not a call of a tool that was offered is text again and read on as such, so the
pieces that a text comes in make no difference. White space beside a call is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum
from typing import Final

import msgspec

from flashfeed.models.chat import Tool, ToolCall, ToolChoice

from .json_end import JsonEnd
from .tool_guide import CALL_CLOSE, CALL_OPEN, must_call, offered

TAGS: Final = (CALL_OPEN, "[TOOL_CALLS]", "<|python_tag|>")
"""What begins a call in a text. In some vocabularies these and CALL_CLOSE are control
tokens, whose text must be given to the reader nevertheless."""

_CLOSES: Final = {CALL_OPEN: CALL_CLOSE}
_BETWEEN_BARE: Final = " \t\r\n;"


class _State(Enum):
    START = "start"
    TEXT = "text"
    TAGGED = "tagged"
    CLOSING = "closing"
    BARE = "bare"


class _Written(msgspec.Struct):
    """A call as models write it; Llama's `parameters` are its arguments."""

    name: str
    arguments: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()


_written: Final = msgspec.json.Decoder(_Written | list[_Written])
_object: Final = msgspec.json.Decoder(dict[str, object])


class ToolCallReader:
    """Takes an answer's text in pieces, gives text and calls in their order.

    `key` is any text that no other answer has: the ids of its calls come from it. Where
    `choice` asks for a call, the answer begins after CALL_PREFIX.
    """

    def __init__(self, tools: Sequence[Tool], choice: ToolChoice = "auto", key: str = "") -> None:
        self._names: Final = frozenset(tool.name for tool in offered(tools, choice))
        self._key: Final = key
        self._state = _State.TAGGED if must_call(choice) else _State.START
        # The tag as text, should what follows be no call: nothing where the prompt has it.
        self._tag = ""
        self._close = CALL_CLOSE
        self._held = ""
        self._space = ""
        self._scan = JsonEnd()
        self._bare: list[ToolCall] = []
        self._bare_from = 0
        self._after_call = False
        self._n_calls = 0
        self._out: list[str | ToolCall] = []

    def add(self, text: str) -> tuple[str | ToolCall, ...]:
        """The text and the calls that are clear now."""
        if not self._names:
            return (text,) if text else ()
        self._held += text
        return self._read(final=False)

    def end(self) -> tuple[str | ToolCall, ...]:
        """What was held back, when nothing more comes."""
        if not self._names:
            return ()
        done = self._read(final=True)
        if self._space and not self._after_call:
            done += (self._space,)
        self._space = ""
        return done

    def _read(self, final: bool) -> tuple[str | ToolCall, ...]:
        steps = {
            _State.START: self._start,
            _State.TEXT: self._text,
            _State.TAGGED: self._tagged,
            _State.CLOSING: self._closing,
            _State.BARE: self._bare_step,
        }
        while steps[self._state](final):
            pass
        out, self._out = self._out, []
        return tuple(_joined(out))

    # Each step says whether another one can be taken with what is held.

    def _start(self, final: bool) -> bool:
        self._take_space()
        if not self._held:
            return False
        # "[TOOL_CALLS]" is no JSON either: it is found a moment later, in TEXT.
        self._state = _State.BARE if self._held[0] in "{[" else _State.TEXT
        return True

    def _text(self, final: bool) -> bool:
        found = [(at, tag) for tag in TAGS if (at := self._held.find(tag)) >= 0]
        if found:
            at, tag = min(found)
            self._say(self._held[:at])
            self._held = self._held[at + len(tag) :]
            self._tag, self._close = tag, _CLOSES.get(tag, "")
            self._scan = JsonEnd()
            self._state = _State.TAGGED
            return True
        keep = 0 if final else max(_overlap(self._held, tag) for tag in TAGS)
        free = len(self._held) - keep
        self._say(self._held[:free])
        self._held = self._held[free:]
        return False

    def _tagged(self, final: bool) -> bool:
        end = self._scan.find(self._held)
        if end is None and not final and not self._scan.failed:
            return False
        calls = self._calls(self._held[:end], needs_arguments=False) if end is not None else None
        if calls is None:
            self._say(self._tag)
            self._state = _State.TEXT
        else:
            self._call(calls)
            self._held = self._held[end:]
            self._state = _State.CLOSING
        return True

    def _closing(self, final: bool) -> bool:
        self._take_space()
        if self._close and self._held.startswith(self._close):
            self._held = self._held[len(self._close) :]
            self._space = ""
        elif self._close.startswith(self._held) and not final:
            return False
        self._state = _State.TEXT
        return True

    def _bare_step(self, final: bool) -> bool:
        end = self._scan.find(self._held)
        if end is not None:
            calls = self._calls(self._held[self._bare_from : end], needs_arguments=True)
            if calls is not None:
                self._bare += calls
                self._bare_from = end
                self._scan = JsonEnd(end, skip=";")
                return True
        elif not final and not self._scan.failed:
            return False
        elif final and self._bare and not self._held[self._bare_from :].strip(_BETWEEN_BARE):
            self._call(self._bare)
            self._held = ""
            return False
        self._state = _State.TEXT
        return True

    def _take_space(self) -> None:
        text = self._held.lstrip()
        self._space += self._held[: len(self._held) - len(text)]
        self._held = text

    def _say(self, text: str) -> None:
        """Sends text on; white space at its end waits for what follows it."""
        body = text.rstrip()
        if body:
            self._out.append(self._space + body)
            self._space = ""
            self._after_call = False
        self._space += text[len(body) :]

    def _call(self, calls: Sequence[ToolCall]) -> None:
        self._out += calls
        self._space = ""
        self._after_call = True

    def _calls(self, text: str, needs_arguments: bool) -> list[ToolCall] | None:
        """The calls that a JSON text is; None where it is anything else."""
        try:
            value = _written.decode(text.strip(_BETWEEN_BARE).encode())
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        written = value if isinstance(value, list) else [value]
        read: list[ToolCall] = []
        for one in written:
            arguments = _arguments(one, needs_arguments)
            if one.name not in self._names or arguments is None:
                return None
            read.append(ToolCall(self._id(self._n_calls + len(read)), one.name, arguments))
        self._n_calls += len(read)
        return read or None

    def _id(self, number: int) -> str:
        digest = hashlib.sha256(f"{self._key}\0{number}".encode("utf-8", "replace"))
        return f"call_{digest.hexdigest()[:24]}"


def _arguments(one: _Written, needed: bool) -> str | None:
    """The text of the arguments' JSON object, as it was written; None where it is none."""
    text = bytes(one.arguments) or bytes(one.parameters)
    if text in {b"", b"null"}:
        return None if needed else "{}"
    try:
        if text.startswith(b'"'):  # the object as a string with JSON in it
            text = msgspec.json.decode(text, type=str).encode()
        _object.decode(text)
        return text.decode()
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _overlap(text: str, tag: str) -> int:
    """How much of the text's end may be the beginning of the tag."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0


def _joined(parts: Sequence[str | ToolCall]) -> list[str | ToolCall]:
    joined: list[str | ToolCall] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined
