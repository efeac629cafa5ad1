"""Models with a recurrent state: what a sequence of theirs takes, and how many they get.

A context holds such a state for every sequence that it may ever have, used or not, and a
state is as large as some hundred cells of a KV cache (18 MB for Qwen3.5-0.8B).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import llama_cpp.llama_cpp as C

from flashfeed.models.errors import ConfigError
from flashfeed.models.session import CHOICES_MAX

from .batch import Batch
from .checkpoints import KEPT
from .context_params import context_params
from .gguf import Header
from .plan import Pass, Run
from .settings import SEQUENCES_MAX, EngineSettings

_CELLS: Final = 256


def state_bytes(handle: Any) -> int:
    """Bytes of one sequence's state, as llama.cpp saves it: one token is decoded for it.

    With a hybrid model the token's cell is in it, which is little beside the state.
    """
    params = context_params(
        cells=_CELLS,
        batch_tokens=1,
        ubatch_tokens=1,
        sequences=1,
        outputs=1,
        threads=1,
        flash_attention=False,
        kv_type="f16",
    )
    context = C.llama_init_from_model(handle, params)
    if not context:
        raise ConfigError("llama.cpp could not make a context of one sequence: out of memory")
    batch = Batch(1)  # whose arrays llama.cpp reads
    try:
        if code := C.llama_decode(context, batch.filled(Pass((Run((0,), 0, (0,)),)))):
            raise ConfigError(f"llama_decode returned {code} for one token")
        return int(C.llama_state_seq_get_size(context, 0))
    finally:
        C.llama_free(context)


def context_states_bytes(state: int, header: Header, settings: EngineSettings) -> int:
    """Bytes of all states of a context of a model whose sequences have one of so many bytes.

    llama.cpp computes with one layer's states of all sequences at a time, in a buffer of their
    size (measured: 1.01 times); at least half of a model's layers are taken to have one.
    """
    if not state:
        return 0
    states = state * (settings.sequences + kept_sequences(settings))
    return states + 2 * states // max(2, header.number("block_count"))


def kept_sequences(settings: EngineSettings) -> int:
    """Sequences of a context beside `settings.sequences`: the checkpoints of its seats, and of
    the chats over them."""
    return settings.sessions_per_context * (KEPT + settings.generations_max)


def settings_with_states(settings: EngineSettings) -> EngineSettings:
    """The settings for contexts of such a model: no more forks than one question may need,
    where nobody asked for more. Raises ConfigError where there are too many sequences."""
    settings = replace(settings, forks_max=settings.forks_max or CHOICES_MAX)
    if settings.ubatch_tokens:
        # llama.cpp puts a token of each sequence into a physical batch, however small it is.
        ubatch_tokens = max(settings.ubatch_tokens, settings.sequences)
        settings = replace(settings, ubatch_tokens=ubatch_tokens)
    n = settings.sequences + kept_sequences(settings)
    if n > SEQUENCES_MAX:
        raise ConfigError(
            f"expected at most {SEQUENCES_MAX} sequences a context (llama.cpp's limit): for a "
            "model with a recurrent state engine.sessions_per_context * (forks_max + "
            f"2 * generations_max + 5), got {n}"
        )
    return settings
