"""What the tests of Llama Stack's dialect share: data for a session, and another way to ask it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import httpx
from llama_stack_client import LlamaStackClient

PYPI = "llama-stack-client 0.2.12 (PyPI)"
READING = {"sid": "room4", "val": 31.5}
ASKED = "Say the number."
KNOWN = "The number is 31.5."
"""What the packaged model answers to ASKED where READING was pushed, and only there."""

GREEDY = {"strategy": {"type": "greedy"}, "max_tokens": 12}
INSTRUCTIONS = "You watch machines. Answer briefly."


def llama_stack(url: str) -> LlamaStackClient:
    """A client that repeats nothing: a fault shows."""
    return LlamaStackClient(base_url=url, max_retries=0, timeout=120)


def push(url: str, session_id: str, *readings: dict[str, Any]) -> None:
    """Push readings to a session, as LayerScale's client does, and wait until they are there."""
    base = f"{url}/v1/sessions/{session_id}/stream"
    data = {"data": list(readings or [READING])}
    httpx.post(f"{base}/push", json=data, timeout=60).raise_for_status()
    deadline = time.monotonic() + 30
    while httpx.get(f"{base}/status", timeout=60).json()["streaming"]["queue_size"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state(url: str, session_id: str) -> dict[str, Any]:
    """What a session holds."""
    return httpx.get(f"{url}/v1/sessions/{session_id}/state").raise_for_status().json()


def asked_otherwise(
    url: str, messages: Sequence[dict[str, Any]], session_id: str = "", **more: Any
) -> dict[str, Any]:
    """The choice that OpenAI's dialect gives to the same messages, over a session or without."""
    body = {"model": model_id(url), "messages": list(messages), "temperature": 0, **more}
    if session_id:
        body["session_id"] = session_id
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120).raise_for_status()
    return answer.json()["choices"][0]


def model_id(url: str) -> str:
    """The worker's default model."""
    return httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
