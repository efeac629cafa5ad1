"""The hidden states of a pass's outputs: what the model made of everything before it wrote.

llama.cpp hands them out with its `embeddings` flag alone, which makes every token of the pass
an output and costs accordingly. Here the context's eval callback is asked about each node of
the graph, and copies one of them, `result_norm`: the last normalised layer, which has a row
for each output, in batch order, and is what the flag would have given (bit by bit).

The callback is called once a node, some 1,000 times a pass, and each call takes the GIL, for
which it waits where another thread computes in Python (bench/hidden.py has the cost, with
such a thread and without). So a context has one only where `EngineSettings.hidden_states`
says that somebody reads it.
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any, Final

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

NODE: Final = b"result_norm"
_F16_MAX: Final = 65504.0
_log: Final = logging.getLogger(__name__)

# Of libggml-base, which libllama brings along.
_name = C._lib.ggml_get_name
_name.argtypes, _name.restype = [ctypes.c_void_p], ctypes.c_char_p
_bytes = C._lib.ggml_nbytes
_bytes.argtypes, _bytes.restype = [ctypes.c_void_p], ctypes.c_size_t
_get = C._lib.ggml_backend_tensor_get
_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
_get.restype = None
_Callback: Final = dict(C.llama_context_params._fields_)["cb_eval"]


class HiddenStates:
    """The hidden states of one context's passes. `callback` is the context's `cb_eval`, and
    has to live as long as the context."""

    def __init__(self, n_embd: int) -> None:
        self._n_embd: Final = n_embd
        self._parts: list[NDArray[np.float32]] = []
        self._told = False
        self.callback: Final[Any] = _Callback(self._on_node)

    def begin(self) -> None:
        """A pass begins; what is left of one that failed goes."""
        self._parts = []

    def take(self, n_outputs: int) -> NDArray[np.float32]:
        """The rows of the pass, one an output; without columns where the model's graph has
        no such node."""
        parts, self._parts = self._parts, []
        rows = np.concatenate(parts) if parts else np.empty((0, self._n_embd), np.float32)
        if len(rows) == n_outputs:
            return rows
        if not self._told:
            self._told = True
            _log.warning(
                "expected %d hidden states of this model (node %s), got %d: none are read",
                n_outputs,
                NODE.decode(),
                len(rows),
            )
        return np.empty((n_outputs, 0), np.float32)

    def _on_node(self, node: int, asked: bool, _: Any) -> bool:
        """Whether the node is wanted; with `asked` false it is computed. Never raises, and
        False would then end the pass."""
        try:
            if asked:
                wanted: bool = _name(node) == NODE
                return wanted
            n_rows, rest = divmod(_bytes(node), 4 * self._n_embd)
            if n_rows and not rest:
                rows = np.empty((n_rows, self._n_embd), np.float32)
                _get(node, rows.ctypes.data, 0, rows.nbytes)
                self._parts.append(rows)
        except Exception:
            _log.exception("a hidden state was not read")
        return not asked


def state_bytes(state: NDArray[np.float32]) -> bytes:
    """A hidden state as float16, little-endian; b"" where there is none."""
    return np.clip(state, -_F16_MAX, _F16_MAX).astype("<f2").tobytes()
