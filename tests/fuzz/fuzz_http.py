"""Requests: what the OpenAPI document allows and forbids (schemathesis), and good requests
with something broken in them, most of which get as far as the engine."""

from __future__ import annotations

import copy
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from fuzz_target import HANG_S, QUESTION, RECORDS, TOKENS_MAX, Target, bounded

THREADS = 3
INTERNAL = re.compile(rb'"(?:code|type)":\s*"(?:internal_error|INTERNAL_ERROR|engine_error)"')
CREATES = ("/v1/sessions", "/v1/sessions/init", "/session")
ASKED = {"max_tokens": TOKENS_MAX, "temperature": 0}
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Up or down?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "price",
        "parameters": {"type": "object", "properties": {"symbol": {"type": "string"}}},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "a",
        "schema": {"type": "object", "properties": {"up": {"type": "boolean"}}, "required": ["up"]},
    },
}
COMPLETION = {"model": "MODEL", "messages": CHAT, **ASKED}
GOOD: list[tuple[str, dict[str, Any]]] = [
    ("/v1/sessions/SESSION/generate", {"prompt": "Why?", **ASKED}),
    ("/v1/sessions/SESSION/generate", {"prompt": "Why?", "stream": True, **ASKED}),
    ("/v1/sessions/SESSION/generate", {"messages": CHAT, "tools": [TOOL], **ASKED}),
    ("/v1/sessions/SESSION/generate", {"prompt": "Up?", "fast_answer": ["yes", "no"], **ASKED}),
    ("/v1/sessions/SESSION/stream/push", {"data": RECORDS[:2]}),
    ("/v1/sessions/SESSION/push", {"data": ["a line"]}),
    ("/v1/sessions/SESSION/flash", {"query": "Is volume high?", "choices": ["yes", "no"]}),
    ("/v1/sessions/SESSION/append", {"text": "The market closes soon."}),
    ("/v1/sessions/SESSION/warm", {"messages": CHAT}),
    ("/v1/chat/completions", {**COMPLETION}),
    ("/v1/chat/completions", {**COMPLETION, "session_id": "SESSION"}),
    ("/v1/chat/completions", {**COMPLETION, "tools": [TOOL], "n": 2}),
    (
        "/v1/chat/completions",
        {
            **COMPLETION, "stream": True, "logprobs": True, "top_logprobs": 2,
            "stream_options": {"include_usage": True}, "response_format": SCHEMA,
        },
    ),
    ("/v1/completions", {"model": "MODEL", "prompt": ["One", "Two"], "stop": ["."], **ASKED}),
    ("/v1/completions", {"model": "MODEL", "prompt": "One", "stream": True, "seed": 1, **ASKED}),
    ("/v1/responses", {"model": "MODEL", "input": "Up?", "max_output_tokens": 4}),
    ("/v1/responses", {"model": "MODEL", "input": CHAT, "stream": True, "max_output_tokens": 4}),
    ("/v1/messages", {"model": "MODEL", "messages": CHAT[1:], "system": "Be brief.", **ASKED}),
    ("/v1/messages", {"model": "MODEL", "messages": CHAT[1:], "stream": True, **ASKED}),
    ("/v1/messages/count_tokens", {"model": "MODEL", "messages": CHAT[1:]}),
    (
        "/v1/inference/chat-completion",
        {"model_id": "MODEL", "messages": CHAT, "sampling_params": {"max_tokens": 4}},
    ),
    (
        "/v1/inference/completion",
        {"model_id": "MODEL", "content": "One", "sampling_params": {"max_tokens": 4}},
    ),
    ("/v1/sessions/init", {"type": "iot", "prompt": "Sensors.", "flash": [QUESTION]}),
]  # fmt: skip
ADDED = ("x", "", "stream", "stop", "tools", "temperature", "top_p", "seed", "n", "model")
JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, -(2**63), 1e308, -1e308, 1e-320, 0.5, "", " ",
    "\0", "\ud800", "\u2028", "a" * 5000, "\U0001f600" * 50, "<|im_start|>", "<|im_end|>\n", "[]",
    "../../etc/passwd", "%00", "nan", [], [[]], [None] * 30, {}, {"": {}}, {"type": "text"},
    {"a": {"b": {"c": {"d": []}}}}, ["a", 1, None, {}], "SESSION", "MODEL", "user", "assistant",
    "tool", "system", "json_object", {"$ref": "#"}, {"type": "object", "properties": {"a": {}}},
]  # fmt: skip


def schema_cases(target: Target, number: int, first_seed: int) -> None:
    """So many cases from the OpenAPI document, the same number for each route; one in three
    breaks its schema."""
    document = requests.get(f"{target.url}/openapi.json", timeout=HANG_S).json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    each = max(3, round(number / len(operations)))
    jobs: list[tuple[Any, GenerationMode, int]] = []
    for operation in operations:
        broken = each // 3
        jobs.append((operation, GenerationMode.POSITIVE, each - broken))
        jobs.append((operation, GenerationMode.NEGATIVE, broken))
    random.Random(first_seed).shuffle(jobs)
    with ThreadPoolExecutor(THREADS) as pool:
        sent = []
        for operation, mode, wanted in jobs:
            # Cases are made in this one thread: CPython 3.11's compiler, which Hypothesis
            # calls, is not safe in several.
            cases = _make_cases(target, operation, mode, wanted, first_seed)
            sent.append(pool.submit(_send_cases, target, operation, cases))
        for done in sent:
            done.result()


def _make_cases(
    target: Target, operation: Any, mode: GenerationMode, number: int, first_seed: int
) -> list[Any]:
    checks = list(HealthCheck)
    cases: list[Any] = []

    @seed(first_seed)
    @settings(
        max_examples=number, database=None, deadline=None, suppress_health_check=checks,
        phases=[Phase.generate],
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        cases.append(case)

    try:
        run()
    except Exception as error:
        name = type(error).__name__
        if name not in ("Unsatisfiable", "SkipTest", "Skipped"):  # nothing breaks such a schema
            target.failed(f"{mode.name} {operation.label}: the case could not be made: {error!r}")
    return cases


def _send_cases(target: Target, operation: Any, cases: list[Any]) -> None:
    for case in cases:
        session = target.session()
        if case.method != "DELETE" and "session_id" in (case.path_parameters or {}):
            case.path_parameters["session_id"] = session
        headers = dict(case.headers or {})
        if "x-layerscale-session-id" in headers:
            case.headers["x-layerscale-session-id"] = session
        if isinstance(case.body, dict | list):
            case.body = _brief(operation.path, case.body)
        if isinstance(case.body, dict) and case.body.get("model"):
            case.body["model"] = ""
        _send(target, case.as_transport_kwargs(base_url=target.url))


def _brief(path: str, body: Any) -> Any:
    """A body that asks for few tokens, also where it says nothing of them."""
    body = bounded(body)
    if isinstance(body, dict):
        if path.endswith(("/generate", "/completions", "/messages", "/flash")):
            body.setdefault("max_tokens", TOKENS_MAX)
        elif path.endswith("/responses"):
            body.setdefault("max_output_tokens", TOKENS_MAX)
        elif "/inference/" in path and isinstance(body.get("sampling_params"), dict | None):
            # Without a bound it writes until its context is full, which is no hang.
            body["sampling_params"] = {
                **(body.get("sampling_params") or {}),
                "max_tokens": TOKENS_MAX,
            }
    return body


def broken_cases(target: Target, number: int, first_seed: int) -> None:
    """So many good requests, most with one or two things in them replaced, removed or added."""
    listed = requests.get(f"{target.url}/v1/models", timeout=HANG_S).json()
    model = listed["data"][0]["id"]

    def some(place: int) -> None:
        chance = random.Random(first_seed * 1000 + place)
        for _ in range(-(-number // THREADS)):
            path, good = chance.choice(GOOD)
            body = copy.deepcopy(good)
            for _ in range(chance.choice((0, 1, 1, 1, 2))):
                break_something(body, chance)
            words = {"SESSION": target.session(), "MODEL": model}
            url = target.url + path.replace("SESSION", words["SESSION"])
            text = json.dumps(_brief(path, _named(body, words)))
            if chance.random() < 0.03:  # not even JSON
                text = text[: chance.randrange(len(text))]
            headers = {"content-type": "application/json"}
            data = text.encode()
            _send(target, {"method": "POST", "url": url, "data": data, "headers": headers})

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(some, place) for place in range(THREADS)]:
            done.result()


def break_something(body: Any, chance: random.Random) -> None:
    """Replace, remove or add one thing somewhere in it."""
    holders = [one for one in _holders(body) if one]
    if not holders:
        return
    holder = chance.choice(holders)
    if isinstance(holder, list):
        holder[chance.randrange(len(holder))] = copy.deepcopy(chance.choice(JUNK))
        return
    key = chance.choice(list(holder))
    what: Callable[[], Any] = chance.choice(
        (
            lambda: holder.update({key: copy.deepcopy(chance.choice(JUNK))}),
            lambda: holder.pop(key),
            lambda: holder.update({chance.choice(ADDED): copy.deepcopy(chance.choice(JUNK))}),
        )
    )
    what()


def _holders(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _holders(item)


def _named(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, str):
        return words.get(value, value)
    if isinstance(value, dict):
        return {key: _named(item, words) for key, item in value.items()}
    return [_named(item, words) for item in value] if isinstance(value, list) else value


def _send(target: Target, request: dict[str, Any], again: bool = True) -> None:
    """One case: sent, read to its end, judged."""
    began = time.monotonic()
    where = f"{request['method']} {request['url'].removeprefix(target.url)}"
    what = f"{where} {str(request.get('json', request.get('data', '')))[:600]}"
    try:
        with target.http.request(**request, stream=True, timeout=(HANG_S, HANG_S)) as answer:
            body = b""
            for part in answer.iter_content(65536):
                body += part
                if where.endswith("/events") or time.monotonic() - began > HANG_S:
                    break  # events do not end: their first frame is there
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError):
        target.count("no request")  # the client would not send it
        return
    except requests.exceptions.RequestException as error:
        if again and "Connection reset" in str(error):
            # The server ended an idle connection while this was on its way: no case's fault.
            target.http.close()
            _send(target, request, again=False)
            return
        target.count("broken")
        target.failed(f"{error!r} after {time.monotonic() - began:.1f} s: {what}")
        return
    target.count(str(answer.status_code))
    deliberate = answer.status_code == 503 and "retry-after" in answer.headers
    if answer.status_code >= 500 and not deliberate:
        target.failed(f"{answer.status_code} {body[:300]!r}: {what}")
    if time.monotonic() - began > HANG_S:
        target.failed(f"hung for {time.monotonic() - began:.0f} s: {what}")
    if INTERNAL.search(body):
        target.failed(f"an internal error inside {answer.status_code} {body[-400:]!r}: {what}")
    path = request["url"].partition("?")[0]
    if request["method"] == "POST" and answer.status_code < 300 and path.endswith(CREATES):
        _forget(target, body)


def _forget(target: Target, body: bytes) -> None:
    """Sessions that a case made give their place back."""
    made = json.loads(body)
    session = made.get("session_id") or made.get("id")
    target.http.delete(f"{target.url}/v1/sessions/{session}", timeout=HANG_S)
