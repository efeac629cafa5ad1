"""A question that wants more confidence than there is: over HTTP and on the topics."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from flashfeed.client import DataUpdated, FlashReady, TopicEvents, Wanted

pytestmark = [pytest.mark.model, pytest.mark.broker]

QUESTION = {"query": "Is it warm?", "choices": ["yes", "no"], "name": "warm"}
STRICT = {"min_confidence": 1.0, "hysteresis": 1.0, "publish": "changes"}
UPDATES = 3


def test_it_abstains_says_so_once_and_keeps_what_it_said(worker: Any) -> None:
    with httpx.Client(base_url=f"{worker.url}/v1", timeout=60) as http:
        created = http.post("/sessions/init", json={"type": "iot", "flash": [QUESTION | STRICT]})
        session = created.raise_for_status().json()["session_id"]
        for number in range(UPDATES):
            push = {"data": [{"sid": "t", "val": 20.0 + number}]}
            http.post(f"/sessions/{session}/stream/push", json=push).raise_for_status()
            entry = settled(http, session, number + 1)
        http.delete(f"/sessions/{session}").raise_for_status()
    assert entry["abstained"] is True
    assert entry["value"] in QUESTION["choices"]
    assert 0 < entry["confidence"] < 1
    topics = ("flashfeed.flash_ready", "flashfeed.data_updated")
    answers, updates = [], 0
    with TopicEvents(worker.brokers, topics, wanted=Wanted(session), start="earliest") as events:
        for event in events:
            if isinstance(event.data, FlashReady):
                answers.append(event.data)
            elif isinstance(event.data, DataUpdated):
                updates += 1
            if updates == UPDATES and answers:
                break
    [answer] = answers
    assert answer.abstained and answer.value == entry["value"]
    assert answer.data_version == 1
    assert sum(answer.probabilities.values()) == pytest.approx(1)


def settled(http: httpx.Client, session: str, version: int) -> dict[str, Any]:
    """The question's answer at that data version."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        [entry] = http.get(f"/sessions/{session}/flash").json()["flash_queries"]
        if entry["has_answer"] and entry["data_version"] >= version:
            found: dict[str, Any] = entry
            return found
        time.sleep(0.05)
    raise AssertionError(f"no answer at version {version}")


def test_what_a_question_cannot_have_is_named(worker: Any) -> None:
    body = {"type": "iot", "flash": [{"query": "Why?", "hysteresis": 0.1}]}
    answer = httpx.post(f"{worker.url}/v1/sessions/init", json=body, timeout=60)
    assert answer.status_code in (400, 422)
    assert "hysteresis" in answer.text
