"""llama-server as a peer: warm, `cache_prompt` on, a slot for each session.

It is asked as is cheapest for it: prompts as token ids (nothing to tokenise), one
generated token, the likeliest first tokens with it to score the choices by, no grammar.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 120.0
REQUEST_TIMEOUT_S = 300.0
N_PROBS = 64


class PeerFailed(Exception):
    """llama-server did not start, or refused a request."""


@dataclass(frozen=True)
class ServerSettings:
    """How llama-server is started. `context_tokens` is one slot's."""

    program: Path
    model: Path
    slots: int
    context_tokens: int
    batch_tokens: int
    threads: int
    flash_attention: bool
    kv_unified: bool

    def command(self, port: int) -> list[str]:
        """The command line."""
        on = "on" if self.flash_attention else "off"
        return [
            *(str(self.program), "-m", str(self.model), "--host", "127.0.0.1"),
            *("--port", str(port), "-np", str(self.slots)),
            *("-c", str(self.slots * self.context_tokens), "-fa", on),
            *("-b", str(self.batch_tokens), "-ub", str(self.batch_tokens)),
            *("-t", str(self.threads), "-tb", str(self.threads)),
            "--kv-unified" if self.kv_unified else "--no-kv-unified",
            # Its own copies of prompts in memory would only cost it time here.
            *("--cache-ram", "0", "--no-cache-idle-slots", "--no-ui", "--log-disable"),
        ]


class LlamaServer:
    """A running llama-server; a context manager, so that none is left behind."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.port = _free_port()
        self._process = subprocess.Popen(
            settings.command(self.port), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._connections: list[http.client.HTTPConnection] = []
        self._pool = ThreadPoolExecutor(settings.slots)

    def __enter__(self) -> LlamaServer:
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pool.shutdown(wait=False)

    def complete(self, body: dict[str, Any]) -> Any:
        """POST /completion, on a connection that is kept open."""
        connection = (
            self._connections.pop()
            if self._connections
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_TIMEOUT_S)
        )
        raw = json.dumps(body).encode()
        connection.request("POST", "/completion", raw, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise PeerFailed(f"llama-server answered {response.status}: {answer[:500]!r}")
        self._connections.append(connection)
        return json.loads(answer)

    def feed(self, slot: int, tokens: Sequence[int]) -> None:
        """The slot's cache holds these tokens."""
        self.complete(_body(slot, tokens, n_predict=0))

    def ask(
        self, slot: int, history: Sequence[int], questions: Sequence[Sequence[int]], reuse: int = 0
    ) -> list[dict[int, float]]:
        """Log-probabilities of the likeliest first tokens of each question's answer.

        One after another on the session's slot: each finds the history and the new
        tokens in the cache that the one before left.
        """
        return [
            _probabilities(self.complete(_body(slot, [*history, *question], reuse=reuse)))
            for question in questions
        ]

    def ask_in_one(
        self, slot: int, history: Sequence[int], questions: Sequence[Sequence[int]]
    ) -> list[dict[int, float]]:
        """The same in one request of several prompts, which the slot takes in turn."""
        body = _body(slot, [])
        body["prompt"] = [[*history, *question] for question in questions]
        answers = sorted(self.complete(body), key=lambda answer: answer["index"])
        return [_probabilities(answer) for answer in answers]

    def ask_parallel(
        self,
        slots: Sequence[int],
        history: Sequence[int],
        questions: Sequence[Sequence[int]],
    ) -> list[dict[int, float]]:
        """The same with a slot for each question, all at once."""
        bodies = [
            _body(slot, [*history, *question])
            for slot, question in zip(slots, questions, strict=True)
        ]
        return [_probabilities(answer) for answer in self._pool.map(self.complete, bodies)]

    def all_log_probabilities(
        self, slot: int, tokens: Sequence[int], n_vocab: int, reuse: int = 0
    ) -> dict[int, float]:
        """The log-probability of every token of the vocabulary after these tokens."""
        return _probabilities(
            self.complete(_body(slot, tokens, reuse=reuse) | {"n_probs": n_vocab})
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                assert self._process.stderr
                said = self._process.stderr.read()[-2000:].decode("utf-8", "replace")
                raise PeerFailed(f"llama-server ended with {self._process.returncode}: {said}")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.2)
        raise PeerFailed(f"llama-server was not ready after {START_TIMEOUT_S:.0f} s")


def choose(probabilities: dict[int, float], choices: Sequence[int]) -> int:
    """The likelier choice's token; what is not among the likeliest is least likely."""
    return max(choices, key=lambda token: probabilities.get(token, -math.inf))


def _body(slot: int, tokens: Sequence[int], n_predict: int = 1, reuse: int = 0) -> dict[str, Any]:
    return {
        "prompt": list(tokens),
        "id_slot": slot,
        "cache_prompt": True,
        "n_predict": n_predict,
        "n_probs": N_PROBS if n_predict else 0,
        "n_cache_reuse": reuse,
        "temperature": 0,
        "samplers": ["top_k"],
        "top_k": 1,
        "stream": False,
    }


def _probabilities(answer: Any) -> dict[int, float]:
    first = answer["completion_probabilities"][0]
    return {int(one["id"]): float(one["logprob"]) for one in first["top_logprobs"]}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
