"""Control messages: what is one, and what it becomes on the session's history."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from flashfeed.models.control import (
    CONTROL_TYPES,
    control_schema_components,
    decode_control,
    op_name,
    session_message,
)
from flashfeed.models.errors import DecodeFault, RequestError
from flashfeed.models.messages import Asked, Create, decode_message, encode_message
from flashfeed.models.session import FlashQuery, SessionSpec
from flashfeed.models.tenant import session_key

ASKED = Asked("flashfeed.control", 2, 7, "flashfeed.replies", "c1")
TEMPLATES = {
    "market": SessionSpec(type="ohlcv", flash=(FlashQuery("Up?", id=4),)),
    "ward": SessionSpec(type="vitals", tenant="acme"),
}
SPEC = {"type": "iot", "flash": [{"query": "Hot?", "choices": ["yes", "no"]}]}
GOOD: list[dict[str, Any]] = [
    {"op": "create", "session_id": "s", "spec": SPEC},
    {"op": "create", "session_id": "s", "template": "market", "v": 1},
    {"op": "create", "session_id": "s", "template": "ward", "tenant": "acme"},
    {"op": "delete", "session_id": "s"},
    {"op": "append", "session_id": "s", "text": "a note"},
    {"op": "mark_prefix", "session_id": "s"},
    {"op": "add_query", "session_id": "s", "query": {"query": "Hot?"}},
    {"op": "remove_query", "session_id": "s", "query_id": 1},
]
UNREADABLE = [
    (None, "empty value", "$"),
    (b"", "empty value", "$"),
    (b"{", "truncated", "$"),
    (b"[]", "Expected `object`", "$"),
    (b"\xff", "malformed", "$"),
    ({"op": "fly", "session_id": "s"}, "fly", "$.op"),
    ({"op": "delete"}, "session_id", "$"),
    ({"op": "delete", "session_id": 1}, "Expected `str`", "$.session_id"),
    ({"op": "delete", "session_id": "s", "v": 2}, "2", "$.v"),
    ({"op": "delete", "session_id": "s", "when": 2}, "when", "$"),
    ({"op": "create", "session_id": "s", "spec": {"type": "x"}}, "x", "$.spec.type"),
]
REFUSED = [
    ({"op": "delete", "session_id": ""}, "session id"),
    ({"op": "delete", "session_id": "a/b"}, "session id"),
    ({"op": "delete", "session_id": "s", "tenant": "a b"}, "tenant"),
    ({"op": "create", "session_id": "s"}, "exactly one"),
    ({"op": "create", "session_id": "flashfeed-probe-0", "spec": SPEC}, "probe"),
    ({"op": "create", "session_id": "s", "spec": SPEC, "template": "market"}, "exactly one"),
    ({"op": "create", "session_id": "s", "template": "none"}, "none"),
    ({"op": "create", "session_id": "s", "template": "ward"}, "acme"),
    ({"op": "create", "session_id": "s", "template": "market", "tenant": "acme"}, "tenant"),
    ({"op": "create", "session_id": "s", "spec": {**SPEC, "tenant": "acme"}}, "acme"),
]


@pytest.mark.parametrize("body", GOOD)
def test_a_message_becomes_the_session_message_of_its_name(body: dict[str, Any]) -> None:
    control = decode_control(orjson.dumps(body))
    key, message = session_message(control, ASKED, TEMPLATES.get, 9)
    assert key == session_key(body.get("tenant", ""), "s")
    assert op_name(control) == op_name(message) == body["op"]
    assert message.asked == ASKED
    assert message.idempotency_key == "flashfeed.control/2/7"
    assert decode_message(encode_message(message)) == message
    if isinstance(message, Create):
        assert message.spec.tenant == body.get("tenant", "")
        assert not any(query.id for query in message.spec.flash)


@pytest.mark.parametrize(("body", "says", "path"), UNREADABLE)
def test_what_is_none_says_where_and_why(body: Any, says: str, path: str) -> None:
    value = orjson.dumps(body) if isinstance(body, dict) else body
    with pytest.raises(DecodeFault, match=says) as caught:
        decode_control(value)
    assert caught.value.path == path


@pytest.mark.parametrize(("body", "says"), REFUSED)
def test_what_cannot_be_is_refused(body: dict[str, Any], says: str) -> None:
    control = decode_control(orjson.dumps(body))
    with pytest.raises(RequestError, match=says):
        session_message(control, ASKED, TEMPLATES.get, 9)


def test_the_schemas_say_what_is_a_message() -> None:
    defs = control_schema_components("#/$defs/{name}")
    kinds = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in CONTROL_TYPES.values()]
    validator = Draft202012Validator({"oneOf": kinds, "$defs": defs})
    for body in GOOD:
        validator.validate(body)
    for bad, *_ in UNREADABLE:
        assert not isinstance(bad, dict) or not validator.is_valid(bad), bad
