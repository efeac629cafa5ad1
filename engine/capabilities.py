"""What a kind of model can do here, and why not the rest. Pure; asks nothing of llama.cpp.

A session must be able to fork (into a question's sequence) and to be cut back (after a
failed pass, an edited tail, a generation). A KV cache has a cell for each token and can do
both anywhere. A recurrent state is one value for all tokens so far: llama.cpp copies it, but
removes it only whole (llama-memory-recurrent.cpp, seq_rm). Sessions of such a model, and of
a hybrid one, which has such a state beside its KV cache, go back to copies that were made at
the right time (checkpoints.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import llama_cpp.llama_cpp as C

WindowMode = Literal["exact", "shift", "grow"]

# create_memory() in llama-model.cpp gives these no cache at all.
_NO_CACHE: Final = frozenset(
    (
        *("bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"),
        *("modern-bert", "eurobert", "wavtokenizer-dec", "gemma-embedding"),
        *("dream", "llada", "llada-moe", "rnd1"),
    )
)
# create_memory() gives these a cache with an index beside it, which asserts what copies of a
# part of a sequence do not keep (llama-kv-cache-dsv4.cpp, llama-memory-hybrid-idx.cpp).
_INDEXED: Final = frozenset(("deepseek4", "glm5-next", "qwen4exp"))
_NO_VOCABULARY: Final = 0
# get_can_shift() in llama-kv-cache.cpp.
_NEVER_SHIFTS: Final = frozenset(("step35",))
_MANY_ROPES: Final = (C.LLAMA_ROPE_TYPE_MROPE, C.LLAMA_ROPE_TYPE_IMROPE)


@dataclass(frozen=True)
class Capabilities:
    """What sessions of a model can do: slide in these ways, and be cut back anywhere
    (`cuts`), or only to where they once were.

    `reasons` say why a way is missing or what it costs, one sentence each.
    """

    architecture: str
    windows: tuple[WindowMode, ...]
    cuts: bool = True
    reasons: tuple[str, ...] = ()


def capabilities(architecture: str, *, rope_type: int, n_swa: int, recurrent: bool) -> Capabilities:
    """Of a model that `refusal` lets through. `n_swa` is its attention's window, 0: none;
    `recurrent` says whether it has a recurrent state, alone or beside a KV cache.

    The last word on `shift` has llama.cpp, for each context: llama_memory_can_shift.
    """
    reasons: list[str] = []
    if recurrent:
        reasons.append(
            "window shift: refused, a recurrent state cannot forget the oldest tokens alone"
        )
    elif rope_type in _MANY_ROPES:
        reasons.append(
            "window shift: refused, its positions have several parts (M-RoPE) and llama.cpp "
            "cannot move them"
        )
    elif rope_type == C.LLAMA_ROPE_TYPE_NONE:
        reasons.append(
            "window shift: refused, its positions are not rotary and are fixed in the cache"
        )
    elif architecture in _NEVER_SHIFTS:
        reasons.append(f"window shift: refused, llama.cpp cannot move the cache of {architecture}")
    windows: tuple[WindowMode, ...] = ("exact", "grow") if reasons else ("exact", "shift", "grow")
    if n_swa:
        reasons.append(
            f"sliding attention of {n_swa} tokens: the cache keeps all tokens nevertheless "
            "(swa_full), since forks share cells"
        )
    if recurrent:
        reasons.append(
            "recurrent state: questions are decoded in a pass after the data's, an edit of more "
            "than the last update decodes the window again, and a chat its last answer"
        )
    return Capabilities(architecture, windows, not recurrent, tuple(reasons))


def refusal(
    architecture: str,
    *,
    diffusion: bool,
    encoder: bool,
    causal: bool,
    vocabulary: int,
) -> str:
    """Why a model cannot serve sessions at all; "" where it can."""
    if diffusion:
        return f"expected a model that writes in order, got a diffusion model ({architecture})"
    if encoder:
        return f"expected a decoder, got an encoder model ({architecture})"
    if architecture in _INDEXED:
        return (
            f"expected a model with plain attention or recurrent layers, got one ({architecture}) "
            "with an index over its cache, which llama.cpp cannot fork"
        )
    if architecture in _NO_CACHE or not causal:
        return f"expected a model that writes text, got an embedding model ({architecture})"
    if vocabulary == _NO_VOCABULARY:
        return f"expected a model with a vocabulary, got one without ({architecture})"
    return ""
