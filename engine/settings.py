"""What an engine is made from, and the bounds that every call to llama.cpp is checked against.

Units: tokens, cells (one token's place in the KV cache, shared by all sequences that
hold it), sequences (llama.cpp's sequence ids), seats (the resident sequences of
sessions) and outputs (tokens whose logits are wanted) are never mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from flashfeed.models.errors import ConfigError
from flashfeed.models.session import CHOICES_MAX

from .machine import on_gpu

SEQUENCES_MAX: Final = 256
"""llama.cpp aborts the process for a sequence id of 256 or more (LLAMA_MAX_SEQ)."""
_STEP_TOKENS: Final = {False: 64, True: 512}
_FOREGROUND_CHUNK: Final = {False: 8, True: 128}
"""Where nothing was measured (`flashfeed tune`): on a processor, on a GPU."""
FORKS: Final = 64

KvType = Literal["f16", "q8_0", "bf16", "f32"]


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How the engine is set up. Raises ConfigError where the numbers contradict one another.

    `threads` None means every core that this process may use; `gpu_layers` below 0 all
    of them, where llama.cpp was built for a GPU. `context_tokens` is the window of a
    session whose spec names none.

    Bounds: `sessions_max` sessions are open, of which as many are resident as `seats_max`
    seats allow (one a session, two under an exact window; 0: as many as the sessions
    need) and `kv_bytes_max` bytes of KV cache (0: half of the memory that is free at the
    start, and one context at least); the others are evicted and come back when they are
    asked. `chats_max` chats without a session run at a time, each
    in a seat. `sessions_per_context` seats share a llama_context.
    `forks_max` (0: as many as fit, at most 64) and `generations_max` count the sequences
    that the questions and the generations of one seat may hold at a time.

    Passes: `batch_tokens` at most in one; up to `step_tokens` (0 for the default) work of
    several sessions of a context is put together, more would only make each of them
    wait; `foreground_chunk` (0 for the default) is how much other work a pass may hold
    while a generation is being read.

    `snapshots` is the folder for the KV of evicted sessions, saved every
    `snapshot_interval_s` too, at most `snapshot_bytes_max` of it; None for no snapshots.
    With `hidden_states` every update also gives the hidden states that its answers came from
    (hidden.py, which says what that costs).
    `trace` names a file that every pass is written to (trace.py); it costs some 20 us a
    pass.
    """

    model_path: Path
    threads: int | None = None
    gpu_layers: int = -1
    context_tokens: int = 4096
    sessions_per_context: int = 1
    sessions_max: int = 64
    seats_max: int = 0
    chats_max: int = 8
    batch_tokens: int = 512
    ubatch_tokens: int = 0
    step_tokens: int = 0
    foreground_chunk: int = 0
    forks_max: int = 0
    generations_max: int = 4
    outputs_max: int = 128
    jobs_max: int = 4096
    kv_type: KvType = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    kv_bytes_max: int = 0
    snapshots: Path | None = None
    snapshot_bytes_max: int = 4 << 30
    snapshot_interval_s: float = 300.0
    hidden_states: bool = False
    trace: Path | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigError(f"expected engine.{name} >= 1, got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"expected engine.threads >= 1, got {self.threads}")
        if self.forks < CHOICES_MAX:
            raise ConfigError(
                f"expected engine.sessions_per_context and generations_max that leave each "
                f"session {CHOICES_MAX} forks (one question's choices) of {SEQUENCES_MAX} "
                f"sequences, got {self.forks}"
            )
        if self.sequences > SEQUENCES_MAX:
            raise ConfigError(
                f"expected at most {SEQUENCES_MAX} sequences a context (llama.cpp's limit): "
                f"engine.sessions_per_context * (forks_max + generations_max + 3), "
                f"got {self.sequences}"
            )
        if self.kv_type == "q8_0" and self.flash_attention_on is False:
            raise ConfigError(
                "expected engine.flash_attention = 'on' with kv_type 'q8_0' (llama.cpp takes a "
                "quantised V cache only so), got it off"
            )

    @property
    def on_gpu(self) -> bool:
        """Whether layers go to a GPU."""
        return on_gpu(self.gpu_layers)

    @property
    def step(self) -> int:
        """`step_tokens`, or its default."""
        return self.step_tokens or _STEP_TOKENS[self.on_gpu]

    @property
    def chunk(self) -> int:
        """`foreground_chunk`, or its default."""
        return self.foreground_chunk or _FOREGROUND_CHUNK[self.on_gpu]

    @property
    def seats(self) -> int:
        """The bound of the resident sequences."""
        return self.seats_max or 2 * self.sessions_max + self.chats_max

    @property
    def forks(self) -> int:
        """Sequences that one seat's questions may hold at a time."""
        if self.forks_max:
            return self.forks_max
        left = SEQUENCES_MAX // self.sessions_per_context - 3 - self.generations_max
        return min(FORKS, left)

    @property
    def sequences(self) -> int:
        """Sequences of one context: for each seat its own, two prefixes', its questions'
        forks and its generations."""
        return self.sessions_per_context * (3 + self.forks + self.generations_max)

    @property
    def flash_attention_on(self) -> bool | None:
        """Whether a context is made with flash attention; None leaves it to llama.cpp.

        Without a GPU it costs 25% at 90 tokens, and 5 times at 4 single ones.
        """
        if self.flash_attention != "auto":
            return self.flash_attention == "on"
        if self.kv_type == "q8_0":
            return True
        return None if self.on_gpu else False


_POSITIVE: Final = (
    "context_tokens",
    "sessions_per_context",
    "sessions_max",
    "chats_max",
    "batch_tokens",
    "generations_max",
    "outputs_max",
    "jobs_max",
)


@dataclass(frozen=True)
class Limits:
    """The bounds of one llama_context, as llama.cpp reports them after creating it.

    `batch_tokens` is its n_batch, which llama.cpp lowers to the context's size, and
    `cells` its n_ctx. A pass over any of them would be refused or abort the process.
    """

    batch_tokens: int
    cells: int
    sequences: int
    outputs: int
    vocabulary: int

    def __post_init__(self) -> None:
        assert 1 <= self.batch_tokens <= self.cells, self
        assert 1 <= self.sequences <= SEQUENCES_MAX, self
        assert 1 <= self.outputs <= self.batch_tokens, self
        assert self.vocabulary >= 1, self
