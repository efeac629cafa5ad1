"""llama.cpp with nothing around it: the ideal that the benchmarks hold the engine against.

`Bare` is a context of its own and batches of ready arrays; only llama_decode is timed.
`DecodeMeter` counts what anybody in this process asks of llama_decode.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

CELLS_STEP = 256


class Bare:
    """A context over the model's weights, set up as is fastest on this device.

    `handle` is a llama_model. The main sequence is 0; 1, 2, ... are forks of it.
    """

    def __init__(
        self, handle: Any, *, cells: int, batch_tokens: int, threads: int, sequences: int = 8
    ) -> None:
        params = C.llama_context_default_params()
        params.n_ctx = -(-cells // CELLS_STEP) * CELLS_STEP
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = params.swa_full = params.offload_kqv = params.no_perf = True
        params.flash_attn_type = (
            C.LLAMA_FLASH_ATTN_TYPE_AUTO
            if C.llama_supports_gpu_offload()
            else C.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self.batch_tokens = batch_tokens
        self.handle = C.llama_init_from_model(handle, params)
        assert self.handle, f"llama.cpp could not make a context of {cells} tokens"
        self.memory = C.llama_get_memory(self.handle)
        self.held = 0

    def free(self) -> None:
        """Gives the context back."""
        C.llama_free(self.handle)

    def decode(self, tokens: Sequence[int], position: int, n_outputs: int) -> float:
        """Seconds of one llama_decode in sequence 0 with the last outputs wanted."""
        first = len(tokens) - n_outputs
        self.held = position + len(tokens)
        return self._timed(
            [(token, position + at, 0, at >= first) for at, token in enumerate(tokens)]
        )

    def step(self, tokens: Sequence[int], position: int) -> float:
        """Seconds of one llama_decode of one token in each of the sequences 1, 2, ..."""
        return self._timed([(token, position, at + 1, True) for at, token in enumerate(tokens)])

    def feed(self, tokens: Sequence[int], position: int) -> float:
        """Seconds for tokens of any number, the last one's logits wanted."""
        seconds = 0.0
        for at in range(0, len(tokens), self.batch_tokens):
            part = tokens[at : at + self.batch_tokens]
            last = at + len(part) == len(tokens)
            seconds += self.decode(part, position + at, 1 if last else 0)
        return seconds

    def fork(self, n: int) -> None:
        """Sequences 1 to n become sequence 0."""
        for sequence in range(1, n + 1):
            C.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)

    def drop(self, n: int) -> None:
        """Sequences 1 to n are gone."""
        for sequence in range(1, n + 1):
            C.llama_memory_seq_rm(self.memory, sequence, -1, -1)

    def hold(self, position: int, filler: int) -> None:
        """Sequence 0 holds so many tokens; what is missing is the same token again.

        How long a pass takes depends on how many tokens there are, not on which.
        """
        if position < self.held:
            self.cut(position)
        elif position > self.held:
            self.feed([filler] * (position - self.held), self.held)

    def cut(self, position: int) -> None:
        """Sequence 0 keeps its first tokens alone."""
        self.held = position
        C.llama_memory_seq_rm(self.memory, 0, position, -1)

    def last_row(self, n_vocab: int) -> NDArray[np.float32]:
        """The logits of the last output."""
        pointer = C.llama_get_logits_ith(self.handle, -1)
        return np.ctypeslib.as_array(pointer, shape=(n_vocab,)).copy()

    def _timed(self, rows: Sequence[tuple[int, int, int, bool]]) -> float:
        """Seconds of a llama_decode of (token, position, sequence, wanted) rows."""
        batch = C.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for at, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[at], batch.pos[at], batch.logits[at] = token, position, wanted
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
        decode = getattr(C.llama_decode, "unmetered", C.llama_decode)
        started = time.perf_counter()
        code = decode(self.handle, batch)
        C.llama_synchronize(self.handle)
        seconds = time.perf_counter() - started
        C.llama_batch_free(batch)
        assert code == 0, f"llama_decode returned {code}"
        return seconds


@dataclass(frozen=True, slots=True)
class Decode:
    """One llama_decode: its tokens, the first one's position, when it began, how long it took."""

    n_tokens: int
    position: int
    began: float
    seconds: float


class DecodeMeter:
    """While entered, writes down every llama_decode of this process but those of `Bare`.

    It wraps the binding's function, so it knows nothing of the engine's inside. The
    results are waited for (llama_synchronize), which the engine does next anyway.
    """

    def __init__(self) -> None:
        self.decodes: list[Decode] = []
        self.running = 0

    def __enter__(self) -> DecodeMeter:
        self._decode: Callable[[Any, Any], int] = C.llama_decode

        def metered(handle: Any, batch: Any) -> int:
            position = int(batch.pos[0])
            self.running += 1
            began = time.perf_counter()
            try:
                code = self._decode(handle, batch)
                C.llama_synchronize(handle)
            finally:
                self.running -= 1
            took = time.perf_counter() - began
            self.decodes.append(Decode(int(batch.n_tokens), position, began, took))
            return code

        metered.unmetered = self._decode  # type: ignore[attr-defined]
        C.llama_decode = metered
        return self

    def __exit__(self, *_: object) -> None:
        C.llama_decode = self._decode

    def take(self) -> list[Decode]:
        """What was decoded since the last call."""
        taken, self.decodes = self.decodes, []
        return taken

    def idle_for(self) -> float:
        """Seconds since the last llama_decode ended; 0 while one runs."""
        if self.running:
            return 0.0
        if not self.decodes:
            return float("inf")
        last = self.decodes[-1]
        return time.perf_counter() - last.began - last.seconds
