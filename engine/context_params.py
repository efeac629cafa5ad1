"""llama.cpp's parameters for a context, from ours."""

from __future__ import annotations

from typing import Any, Final

import llama_cpp.llama_cpp as C

KV_TYPES: Final = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}
"""The ggml types that a KV cache may have here."""
_FLASH_ATTENTION: Final = {
    None: C.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: C.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: C.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def context_params(
    *,
    cells: int,
    batch_tokens: int,
    ubatch_tokens: int,
    sequences: int,
    outputs: int,
    threads: int,
    flash_attention: bool | None,
    kv_type: str,
) -> Any:
    """llama.cpp's parameters for a context of that shape."""
    params = C.llama_context_default_params()
    params.n_ctx = cells
    params.n_batch = batch_tokens
    # By default one physical batch: a pass is one graph, however many sequences share tokens.
    params.n_ubatch = min(ubatch_tokens, batch_tokens)
    params.n_seq_max = sequences
    # llama.cpp reserves a graph with an output for each sequence, and aborts without room.
    params.n_outputs_max = max(outputs, sequences)
    params.n_threads = params.n_threads_batch = threads
    params.kv_unified = True
    params.swa_full = True
    params.offload_kqv = True
    params.type_k = params.type_v = KV_TYPES[kv_type]
    params.no_perf = True
    params.flash_attn_type = _FLASH_ATTENTION[flash_attention]
    return params
