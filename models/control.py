"""The messages on `flashfeed.control`, and the replies to them.

A message is a JSON object: `op` with the name that it has in messages.py, `v` the version
of its shape, `session_id`, `tenant` ("" for none), and what the operation needs. The Kafka
headers `reply_to` (a topic) and `correlation_id` ask for a reply. An unknown field is
refused: people write these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec
import orjson

from . import messages
from .errors import DecodeFault, FlashfeedError, RequestError
from .probe_session import refuse_probe
from .session import FlashQuery, SessionSpec
from .tenant import TENANT_PATTERN, TENANT_RULE, check_session_id, session_key

TEXT_CHARS_MAX: Final = 100_000
"""Far below what Kafka takes: what comes of a message is a little longer than itself."""

REFUSAL_CHARS_MAX: Final = 1000

Version: TypeAlias = Literal[1]


class _Control(
    msgspec.Struct, frozen=True, tag_field="op", kw_only=True, forbid_unknown_fields=True
):
    """What every message has."""

    session_id: str
    tenant: str = ""
    v: Version = 1


class CreateSession(_Control, frozen=True, kw_only=True, tag="create"):
    """A new session, from a spec or from a template of the configuration: exactly one."""

    spec: SessionSpec | None = None
    template: str = ""


class DeleteSession(_Control, frozen=True, kw_only=True, tag="delete"):
    """The end of the session."""


class AppendText(_Control, frozen=True, kw_only=True, tag="append"):
    """Text that becomes part of the context, as an item of its own."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARS_MAX)]


class MarkPrefix(_Control, frozen=True, kw_only=True, tag="mark_prefix"):
    """What the session holds now is its frozen prefix."""


class AddQuestion(_Control, frozen=True, kw_only=True, tag="add_query"):
    """One more standing question."""

    query: FlashQuery


class RemoveQuestion(_Control, frozen=True, kw_only=True, tag="remove_query"):
    """A standing question less."""

    query_id: int


Control: TypeAlias = (
    CreateSession | DeleteSession | AppendText | MarkPrefix | AddQuestion | RemoveQuestion
)

CONTROL_TYPES: Final[dict[str, type[_Control]]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(Control)
}

_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)


class Refusal(msgspec.Struct, frozen=True):
    """Why a message was refused: the error's short name, and a sentence."""

    code: str
    message: str


class Reply(msgspec.Struct, frozen=True):
    """What became of a message: `error` is null where it was done. `query_id` is that of a
    question that was added; `data_version` and `records_offset` are the session's. `op` is
    "" where the message could not be read."""

    op: str
    session_id: str
    tenant: str
    error: Refusal | None = None
    query_id: int | None = None
    data_version: int = 0
    records_offset: int = -1


def control_schema_components(ref_template: str) -> dict[str, dict[str, Any]]:
    """The JSON Schemas of the messages, of the reply and of what is in them, by the type's
    name; they refer to one another by `ref_template`."""
    kinds = (*CONTROL_TYPES.values(), Reply)
    _, components = msgspec.json.schema_components(kinds, ref_template=ref_template)
    return components


def decode_control(value: bytes | None) -> Control:
    """The message in a Kafka value; raises DecodeFault, naming the path, where it is none."""
    if not value:
        raise DecodeFault("expected a control message, got an empty value")
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message, _, path = str(error).partition(" - at `")
        raise DecodeFault(f"not a control message: {message}", path.rstrip("`") or "$") from None


def session_message(
    control: Control,
    asked: messages.Asked,
    template: Callable[[str], SessionSpec | None],
    now_ms: int,
) -> tuple[str, messages.Message]:
    """The session's key, and the message for its history. Raises RequestError."""
    check_session_id(control.session_id)
    if control.tenant and re.fullmatch(TENANT_PATTERN, control.tenant) is None:
        raise RequestError(f"tenant: expected {TENANT_RULE}, got {control.tenant[:80]!r}")
    # The same message again, after a crash, has the same key, and is done once.
    carried: dict[str, Any] = {
        "asked": asked,
        "idempotency_key": f"{asked.topic}/{asked.partition}/{asked.offset}",
    }
    message: messages.Message
    match control:
        case CreateSession():
            refuse_probe(session_key(control.tenant, control.session_id))
            spec = _spec(control, template)
            message = messages.Create(spec=spec, created_ms=now_ms, **carried)
        case DeleteSession():
            message = messages.Delete(**carried)
        case AppendText():
            message = messages.Append(text=control.text, **carried)
        case MarkPrefix():
            message = messages.MarkPrefix(**carried)
        case AddQuestion():
            message = messages.AddQuery(query=control.query, **carried)
        case RemoveQuestion():
            message = messages.RemoveQuery(query_id=control.query_id, **carried)
    return session_key(control.tenant, control.session_id), message


def _spec(control: CreateSession, template: Callable[[str], SessionSpec | None]) -> SessionSpec:
    """The spec of a new session; its questions are numbered by the session's owner."""
    if (control.spec is None) == (not control.template):
        raise RequestError("expected exactly one of spec, template")
    spec = control.spec or template(control.template)
    if spec is None:
        raise RequestError(f"template: no {control.template[:80]!r} in the configuration")
    if spec.tenant != control.tenant and (spec.tenant or control.template):
        raise RequestError(f"tenant: expected {spec.tenant!r} as in the spec or template")
    flash = tuple(msgspec.structs.replace(query, id=0) for query in spec.flash)
    return msgspec.structs.replace(spec, tenant=control.tenant, flash=flash)


def refusal(error: FlashfeedError) -> Refusal:
    """An error as a reply says it."""
    return Refusal(error.code, str(error)[:REFUSAL_CHARS_MAX])


def encode_reply(reply: Reply) -> bytes:
    """A reply as the JSON value that is written to Kafka."""
    return orjson.dumps(msgspec.to_builtins(reply))


def op_name(message: messages.Message | Control) -> str:
    """The name of an operation."""
    return str(message.__struct_config__.tag)
