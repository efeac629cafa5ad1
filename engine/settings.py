"""What an engine is made from, and the bounds that every call to llama.cpp is checked against.

Units: tokens, cells (one token's place in the KV cache, shared by all sequences that
hold it), sequences (llama.cpp's sequence ids) and outputs (tokens whose logits are
wanted) are never mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from flashfeed.models.errors import ConfigError
from flashfeed.models.session import CHOICES_MAX

SEQUENCES_MAX: Final = 256
"""llama.cpp aborts the process for a sequence id of 256 or more (LLAMA_MAX_SEQ)."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How the engine is set up. Raises ConfigError where the numbers contradict one another.

    `threads` None means every core that this process may use; `gpu_layers` below 0 all
    of them, where llama.cpp was built for a GPU. `context_tokens` is the window of a
    session whose spec names none. `forks_max` and `generations_max` count the sequences
    that questions and generations of one context may hold at a time. `trace` names a file
    that every pass is written to (trace.py); it costs some 20 us a pass.
    """

    model_path: Path
    threads: int | None = None
    gpu_layers: int = -1
    context_tokens: int = 4096
    sessions_per_context: int = 1
    sessions_max: int = 64
    batch_tokens: int = 512
    kv_type: Literal["f16", "q8_0", "f32", "bf16"] = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    ubatch_tokens: int = 0
    step_tokens: int = 0
    foreground_chunk: int = 24
    seats_max: int = 0
    snapshots: Path | None = None
    snapshot_bytes_max: int = 4 * 2**30
    forks_max: int = 64
    generations_max: int = 4
    outputs_max: int = 128
    jobs_max: int = 4096
    trace: Path | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigError(f"expected engine.{name} >= 1, got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"expected engine.threads >= 1, got {self.threads}")
        if self.kv_type == "q8_0" and self.flash_attention == "off":
            raise ConfigError(
                "expected engine.flash_attention auto or on with kv_type q8_0, which llama.cpp "
                "keeps for flash attention alone, got off"
            )
        if self.forks_max < CHOICES_MAX:
            raise ConfigError(
                f"expected engine.forks_max >= {CHOICES_MAX} (one question's choices), "
                f"got {self.forks_max}"
            )
        if self.sequences > SEQUENCES_MAX:
            raise ConfigError(
                f"expected engine.sessions_per_context + forks_max + generations_max <= "
                f"{SEQUENCES_MAX} (llama.cpp's limit), got {self.sequences}"
            )

    @property
    def sequences(self) -> int:
        """Sequences of one context: its sessions, their questions' forks, its generations."""
        return self.sessions_per_context + self.forks_max + self.generations_max


_POSITIVE: Final = (
    "context_tokens",
    "sessions_per_context",
    "sessions_max",
    "batch_tokens",
    "forks_max",
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
