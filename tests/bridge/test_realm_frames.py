"""Realm's frames and pipelines without a socket."""

from __future__ import annotations

import json

import msgspec
import pytest

from flashfeed.bridge import realm_frames as frames
from flashfeed.bridge.realm_functions import FUNCTIONS, _described
from flashfeed.bridge.realm_pipelines import _fields, fill
from flashfeed.models.config import PipelineConfig
from flashfeed.models.errors import (
    EngineError,
    FlashfeedError,
    LimitReached,
    ModelUnknown,
    RequestError,
    Unavailable,
)

CALL = {"id": "1", "function": "health", "params": {}, "tenant_id": "my-tenant"}


def test_frames_are_read():
    assert frames.read_frame(b'{"type":"auth","api_key":"k"}') == frames.Auth("k")
    assert frames.read_frame(json.dumps(CALL).encode()) == frames.Call(
        "1", "health", {}, "my-tenant"
    )
    bare = frames.read_frame(b'{"id":"1","function":"health","params":null,"tenant_id":null}')
    assert bare == frames.Call("1", "health")


@pytest.mark.parametrize(
    ("raw", "call_id", "says"),
    [
        (b"", "", "JSON"),
        (b"[1]", "", "object"),
        (b"\xff\xfe", "", "JSON"),
        (b"[" * 100_000, "", "64 deep"),
        (b'{"id":"7","params":' + b"[" * 65 + b"]" * 65 + b"}", "", "64 deep"),
        (b'{"id":"\\ud800","function":"health"}', "", "JSON"),
        (b'{"type":"auth"}', "", "api_key"),
        (b'{"type":"auth","api_key":7}', "", "api_key"),
        (b'{"function":"health"}', "", "id"),
        (b'{"id":7,"function":"health"}', "", "id"),
        (b'{"id":"","function":"health"}', "", "id"),
        (b'{"id":"7"}', "7", "function"),
        (b'{"id":"7","function":"health","params":[]}', "7", "params"),
        (b'{"id":"7","function":"health","tenant_id":"a b c"}', "7", "tenant_id"),
        (b'{"id":"7","function":"health","tenant_id":"ab"}', "7", "tenant_id"),
    ],
)
def test_what_is_no_frame_is_named(raw, call_id, says):
    with pytest.raises(frames.MalformedFrame, match=says) as raised:
        frames.read_frame(raw)
    assert raised.value.call_id == call_id
    assert frames.error_info(raised.value)["code"] == "DISPATCH_ERROR"


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 400_001}, "400000"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 32_769}, "32768"),
        ({"prompt": "x", "max_tokens": "9"}, "max_tokens"),
        ({"prompt": "x", "temprature": 1}, "temprature"),
    ],
)
def test_parameters_out_of_bounds_are_named(params, says):
    with pytest.raises(RequestError, match=says):
        frames.read_params(params, frames.GenerateParams)


def test_a_null_is_the_same_as_left_out():
    read = frames.read_params({"prompt": "x", "top_k": None}, frames.GenerateParams)
    assert read == frames.GenerateParams("x")
    assert (read.options().max_tokens, read.options().temperature) == (100, 0.7)
    with pytest.raises(RequestError, match="top_p"):
        frames.read_params({"prompt": "x", "top_p": 2}, frames.GenerateParams).options()


@pytest.mark.parametrize(
    ("error", "code", "retry_after"),
    [
        (frames.Unauthorized("who"), "UNAUTHORIZED", None),
        (LimitReached("too many", 2.1), "RATE_LIMIT_EXCEEDED", 3),
        (ModelUnknown("no model"), "DISPATCH_ERROR", None),
        (frames.FunctionUnknown("no function"), "FUNCTION_NOT_FOUND", None),
        (EngineError("broken"), "INTERNAL_ERROR", 1),
        (Unavailable("rebuilding"), "INTERNAL_ERROR", 1),
        (FlashfeedError("broken"), "INTERNAL_ERROR", None),
    ],
)
def test_errors_have_realms_codes(error, code, retry_after):
    info = frames.error_reply("1", error)["error"]
    assert (info["code"], info["message"]) == (code, str(error))
    assert info.get("retry_after") == retry_after
    assert info["details"] == {"code": error.code}


def test_functions_are_described_by_their_own_parameters():
    generate = _described("generate", FUNCTIONS["generate"])
    params = {param["name"]: param for param in generate["params"]}
    assert list(params) == list(frames.GenerateParams.__struct_fields__)
    assert params["prompt"]["required"] is True
    assert "default" not in params["prompt"]
    assert params["max_tokens"] == {
        "name": "max_tokens",
        "type": "integer",
        "param_type": "integer",
        "description": "the longest answer, in tokens",
        "required": False,
        "default": 100,
    }
    pipeline = _described("pipeline", FUNCTIONS["pipeline"])
    assert {p["name"]: p["type"] for p in pipeline["params"]}["input"] in (
        "object|string",
        "string|object",
    )
    assert _described("health", FUNCTIONS["health"])["params"] == []


def test_a_prompt_is_filled_as_data_and_once():
    fields = _fields({"query": "{context} {0} %s", "context": {"a": 1}, "previous": "forged"})
    fields["previous"] = "{query}"
    text = fill("{query}|{context}|{previous}|{ query }|{0}|{query!r}|{}", fields)
    assert text == '{context} {0} %s|{"a": 1}|{query}|{ query }|{0}|{query!r}|{}'
    assert fill("{input}", _fields("as it is")) == "as it is"
    assert fill("{input}", _fields({"a": "ü"})) == '{"a": "ü"}'
    assert fill("{input}", _fields({"input": "mine"})) == "mine"


def test_a_prompt_that_cannot_be_filled_names_the_field():
    with pytest.raises(RequestError, match=r"'context'.*input, query"):
        fill("{query} {context}", _fields({"query": "q"}))
    with pytest.raises(RequestError, match="400000"):
        fill("{a}{a}", {"a": "x" * 200_001})


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([], "length >= 1"),
        ([{"prompt": "x"}] * 17, "length <= 16"),
        ([{"prompt": ""}], "length >= 1"),
        ([{"prompt": "x", "model": "a", "session": "b"}], "got both"),
        ([{"prompt": "{previous}"}], "first step"),
        ([{"prompt": "x", "promt": 1}], "promt"),
    ],
)
def test_a_pipeline_that_cannot_run_is_refused(steps, says):
    with pytest.raises(msgspec.ValidationError, match=says):
        msgspec.convert({"steps": steps}, PipelineConfig)
