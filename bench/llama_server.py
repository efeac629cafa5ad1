"""llama-server as a peer: warm, `cache_prompt` on, a slot for each session.

It is asked as is cheapest for it: prompts as token ids (nothing to tokenise), one
generated token, no grammar. The choices' first tokens are lifted above all others by
`logit_bias` and alone remain after top_k, so that the few probabilities that come back
are theirs, whatever the model would rather have said.
"""

from __future__ import annotations

import http.client
import json
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
LIFT = 100.0


@dataclass(frozen=True)
class Question:
    """A question as tokens, and the first tokens of its choices."""

    tokens: tuple[int, ...]
    choices: tuple[int, ...]


class PeerFailed(Exception):
    """llama-server did not start, or refused a request."""


@dataclass(frozen=True)
class ServerSettings:
    """How llama-server is started. `context_tokens` is one slot's; `flash_attention` None
    leaves that to llama-server."""

    program: Path
    model: Path
    slots: int
    context_tokens: int
    batch_tokens: int
    threads: int
    flash_attention: bool | None
    kv_unified: bool

    def command(self, port: int) -> list[str]:
        """The command line."""
        flash = {True: "on", False: "off", None: "auto"}[self.flash_attention]
        return [
            *(str(self.program), "-m", str(self.model), "--host", "127.0.0.1"),
            *("--port", str(port), "-np", str(self.slots)),
            *("-c", str(self.slots * self.context_tokens), "-fa", flash),
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
        """POST /completion. A connection each: kept ones it closes when it likes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_TIMEOUT_S)
        try:
            raw = json.dumps(body).encode()
            connection.request("POST", "/completion", raw, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise PeerFailed(f"llama-server answered {response.status}: {answer[:500]!r}")
        return json.loads(answer)

    def feed(self, slot: int, tokens: Sequence[int]) -> None:
        """The slot's cache holds these tokens."""
        self.complete({**_body(slot, (), 0), "prompt": list(tokens), "n_predict": 0})

    def ask(
        self, slot: int, history: Sequence[int], asked: Sequence[Question], reuse: int = 0
    ) -> list[dict[int, float]]:
        """The probabilities of each question's choices, by their first tokens.

        One after another on the session's slot: each finds the history and the new
        tokens in the cache that the one before left.
        """
        return [_probabilities(self.complete(_asking(slot, history, one, reuse))) for one in asked]

    def ask_in_one(
        self, slot: int, history: Sequence[int], asked: Sequence[Question]
    ) -> list[dict[int, float]]:
        """The same in one request of several prompts, which the slot takes in turn."""
        body = _body(slot, [token for one in asked for token in one.choices], 0)
        body["prompt"] = [[*history, *one.tokens] for one in asked]
        answers = sorted(self.complete(body), key=lambda answer: int(answer["index"]))
        return [_probabilities(answer) for answer in answers]

    def ask_parallel(
        self, slots: Sequence[int], history: Sequence[int], asked: Sequence[Question]
    ) -> list[dict[int, float]]:
        """The same with a slot for each question, all at once."""
        bodies = [_asking(slot, history, one, 0) for slot, one in zip(slots, asked, strict=True)]
        return [_probabilities(answer) for answer in self._pool.map(self.complete, bodies)]

    def log_probabilities(
        self, slot: int, tokens: Sequence[int], n_vocab: int, reuse: int = 0
    ) -> dict[int, float]:
        """The log-probability of every token of the vocabulary after these tokens."""
        body = _body(slot, (), reuse) | {
            "prompt": list(tokens),
            "n_probs": n_vocab,
            "post_sampling_probs": False,
        }
        first = self.complete(body)["completion_probabilities"][0]
        return {int(one["id"]): float(one["logprob"]) for one in first["top_logprobs"]}

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


def _asking(slot: int, history: Sequence[int], one: Question, reuse: int) -> dict[str, Any]:
    return {**_body(slot, one.choices, reuse), "prompt": [*history, *one.tokens]}


def _body(slot: int, choices: Sequence[int], reuse: int) -> dict[str, Any]:
    n = max(1, len(choices))
    return {
        "id_slot": slot,
        "cache_prompt": True,
        "n_predict": 1,
        "n_probs": n,
        "post_sampling_probs": True,
        "logit_bias": [[token, LIFT] for token in choices],
        "n_cache_reuse": reuse,
        "samplers": ["top_k"],
        "top_k": n,
    }


def _probabilities(answer: Any) -> dict[int, float]:
    first = answer["completion_probabilities"][0]
    return {int(one["id"]): float(one["prob"]) for one in first["top_probs"]}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
