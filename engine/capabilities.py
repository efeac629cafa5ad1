"""What a kind of model can do here, and why not the rest. Pure; asks nothing of llama.cpp.

A session must be able to fork (share its cells with a question's sequence) and to be cut
back to any position (after a failed pass, an edited tail, a generation). A KV cache has a
cell for each token and can do both. A recurrent state is one value for all tokens so far:
llama.cpp cuts it back by whole sequences only (llama-memory-recurrent.cpp, seq_rm), so
after a failed pass such a session could not return to its committed tokens. Hybrid models
have such a state beside their KV cache.
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
_NO_VOCABULARY: Final = 0
# get_can_shift() in llama-kv-cache.cpp and llama-kv-cache-dsv4.cpp.
_NEVER_SHIFTS: Final = frozenset(("step35", "deepseek4"))
_MANY_ROPES: Final = (C.LLAMA_ROPE_TYPE_MROPE, C.LLAMA_ROPE_TYPE_IMROPE)


@dataclass(frozen=True)
class Capabilities:
    """What sessions of a model can do: fork for their questions, and slide in these ways.

    `reasons` say why a way is missing or what it costs, one sentence each.
    """

    architecture: str
    forks: bool
    windows: tuple[WindowMode, ...]
    reasons: tuple[str, ...] = ()


def capabilities(architecture: str, *, rope_type: int, n_swa: int) -> Capabilities:
    """Of a model that `refusal` lets through. `n_swa` is its attention's window, 0: none.

    The last word on `shift` has llama.cpp, for each context: llama_memory_can_shift.
    """
    reasons: list[str] = []
    if rope_type in _MANY_ROPES:
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
    return Capabilities(architecture, True, windows, tuple(reasons))


def refusal(
    architecture: str,
    *,
    recurrent: bool,
    hybrid: bool,
    diffusion: bool,
    encoder: bool,
    causal: bool,
    vocabulary: int,
) -> str:
    """Why a model cannot serve sessions at all; "" where it can."""
    if recurrent or hybrid:
        kind = "a recurrent" if recurrent else "a hybrid recurrent"
        return (
            f"expected a decoder with a KV cache, got {kind} model ({architecture}): its state "
            "cannot be cut back to an earlier token, so a session could not return to its "
            "committed tokens after a failed pass"
        )
    if diffusion:
        return f"expected a model that writes in order, got a diffusion model ({architecture})"
    if encoder:
        return f"expected a decoder with a KV cache, got an encoder model ({architecture})"
    if architecture in _NO_CACHE or not causal:
        return f"expected a model that writes text, got an embedding model ({architecture})"
    if vocabulary == _NO_VOCABULARY:
        return f"expected a model with a vocabulary, got one without ({architecture})"
    return ""
