"""What the fuzzers aim at: sessions of a real worker, and bystanders that must not change.

A case may be refused in any way the API has; it fails where the bridge answers 5xx
(a 503 with Retry-After is deliberate), does not answer in time, or drops the connection.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import requests

HANG_S = 60.0
TOKENS_MAX = 4
CASES_A_TARGET = 150
TOKEN_KEYS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
COUNT_KEYS = frozenset({"n", "best_of"})
RECORDS = [
    {"o": 10 + n, "h": 12 + n, "l": 9 + n, "c": 11 + n, "v": 100, "timestamp": 1.7e9 + n}
    for n in range(8)
]
QUESTION = {"query": "Is the trend up?", "choices": ["yes", "no"]}


def bounded(value: Any) -> Any:
    """The same with at most TOKENS_MAX tokens and two answers asked for: a case is to reach
    the engine, not to keep it."""
    if isinstance(value, list):
        return [bounded(item) for item in value]
    if not isinstance(value, dict):
        return value
    shrunk = {}
    for key, item in value.items():
        bound = TOKENS_MAX if key in TOKEN_KEYS else 2 if key in COUNT_KEYS else None
        number = isinstance(item, int | float) and not isinstance(item, bool)
        shrunk[key] = bound if bound and number and item > bound else bounded(item)
    return shrunk


class Target:
    """A worker under fire: the session that cases go to, the bystanders, what was found."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures: list[str] = []
        self.statuses: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._here = threading.local()
        self.reached = 0
        self._reached_before = self._reached()
        self._spared = set(self._sessions())
        self._bystanders = [self._new_session() for _ in range(2)]
        self._before = [self._held(one) for one in self._bystanders]

    @property
    def http(self) -> requests.Session:
        """This thread's connection."""
        if not hasattr(self._here, "http"):
            self._here.http = requests.Session()
        http: requests.Session = self._here.http
        return http

    @property
    def cases(self) -> int:
        """How many cases ran."""
        return sum(self.statuses.values())

    def session(self) -> str:
        """This thread's session to aim at: a fresh one now and then, since cases fill it."""
        here = self._here
        here.aimed = getattr(here, "aimed", 0) + 1
        if not hasattr(here, "session") or here.aimed % CASES_A_TARGET == 0:
            if hasattr(here, "session"):
                self.http.delete(f"{self.url}/v1/sessions/{here.session}", timeout=HANG_S)
            here.session = self._new_session()
        session: str = here.session
        return session

    def count(self, kind: str) -> None:
        """A case ran; `kind` is how it ended."""
        with self._lock:
            self.statuses[kind] += 1

    def failed(self, what: str) -> None:
        """A case broke the rules."""
        with self._lock:
            self.failures.append(what)

    def settle(self) -> None:
        """After the last case: how many times the engine was reached, by the worker's own
        count; and that nobody but the targets was touched: text, tokens, answers and the
        next answer."""
        self.reached = int(self._reached() - self._reached_before)
        for one, before in zip(self._bystanders, self._before, strict=True):
            after = self._held(one)
            if after != before:
                self.failed(f"a bystander changed: before {before}, after {after}")

    def _new_session(self) -> str:
        with self._making:
            session = self._made_session()
            self._spared.add(session)
        self._json("POST", f"/v1/sessions/{session}/stream/push", {"data": RECORDS})
        while self._json("GET", f"/v1/sessions/{session}/stream/status")["streaming"]["queue_size"]:
            pass
        return session

    def _made_session(self) -> str:
        body = {"type": "ohlcv", "prompt": "Candles.", "window_size": 8, "flash": [QUESTION]}
        for _ in range(20):
            answer = self.http.post(f"{self.url}/v1/sessions/init", json=body, timeout=HANG_S)
            if answer.status_code != 429:
                break
            # The worker is full of sessions that cases made.
            for one in set(self._sessions()) - self._spared:
                self.http.delete(f"{self.url}/v1/sessions/{one}", timeout=HANG_S)
        if not answer.ok:
            raise RuntimeError(f"no session: {answer.status_code} {answer.text[:300]}")
        return str(answer.json()["session_id"])

    def _sessions(self) -> list[str]:
        listed = self._json("GET", "/v1/sessions", None)["sessions"]
        return [one["session_id"] for one in listed]

    def _held(self, session: str) -> dict[str, Any]:
        path = f"/v1/sessions/{session}"
        state = self._json("GET", f"{path}/state")
        asked = {"prompt": "The trend is", "max_tokens": TOKENS_MAX, "temperature": 0}
        return {
            "text": state["context_text"],
            "tokens": state["n_tokens"],
            "flash": self._json("GET", f"{path}/flash")["flash_queries"],
            "says": self._json("POST", f"{path}/generate", asked)["text"],
        }

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        for _ in range(100):  # sessions of cases may take every place for a moment
            answer = self.http.request(method, self.url + path, json=body, timeout=HANG_S)
            if answer.status_code != 429:
                break
            threading.Event().wait(0.2)
        if answer.status_code != 200:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json()

    def _reached(self) -> float:
        text = self.http.get(f"{self.url}/metrics", timeout=HANG_S).text
        names = ("flashfeed_updates_total", "flashfeed_generations_total")
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(names))
