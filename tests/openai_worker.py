"""What the tests of OpenAI's dialect share: clients, and a live session with data in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from flashfeed.engine import fastest_form, find_packaged_model

from tiny_gguf import tiny_model

CANDLES = [
    {"o": 185.5, "h": 186.2, "l": 185.1, "c": 185.8, "v": 12500},
    {"o": 185.8, "h": 186.5, "l": 185.6, "c": 186.3, "v": 8700},
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


EMBEDDER = "small-bert.gguf"
"""What requests name the model of `embedding_model` by."""


def embedding_model(folder: Path) -> Path:
    """A small model of BERT's kind in one of the worker's folders for models."""
    path = folder / EMBEDDER
    if not path.exists():
        vocabulary = fastest_form(find_packaged_model())
        tiny_model(path, vocabulary, "bert", pooling_type=1, attention__causal=False)
    return path


def openai_client(url: str) -> OpenAI:
    """A client that repeats nothing: a fault shows."""
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)


class LiveSession:
    """A session over HTTP, and what it holds."""

    def __init__(self, url: str, session_id: str) -> None:
        self.id = session_id
        self._url = f"{url}/v1/sessions/{session_id}"

    def state(self) -> dict[str, Any]:
        return httpx.get(f"{self._url}/state").raise_for_status().json()

    def generate(self, prompt: str, **options: Any) -> dict[str, Any]:
        """LayerScale's generate: another way to ask the same."""
        body = {"prompt": prompt, **options}
        answer = httpx.post(f"{self._url}/generate", json=body, timeout=120)
        return answer.raise_for_status().json()

    def delete(self) -> None:
        httpx.delete(self._url).raise_for_status()


@contextmanager
def live_session(url: str, prompt: str = "You are an analyst.") -> Iterator[LiveSession]:
    """A session with two candles, applied."""
    body = {"type": "ohlcv", "prompt": prompt}
    created = httpx.post(f"{url}/v1/sessions/init", json=body, timeout=60).raise_for_status()
    session = LiveSession(url, created.json()["session_id"])
    push = f"{url}/v1/sessions/{session.id}/stream/push"
    httpx.post(push, json={"data": CANDLES}).raise_for_status()
    while session.state()["data_count"] < len(CANDLES):
        pass
    yield session
    session.delete()
