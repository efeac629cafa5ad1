"""The hidden states of a pass's outputs: what the model made of everything before it wrote.

llama.cpp hands them out with its `embeddings` flag alone, which makes every token of the pass
an output and costs accordingly. Here the context's eval callback is asked about each node of
the graph, and copies one of them, `result_norm`: the last normalised layer, which has a row
for each output, in the order of computing (batch order, but see ubatches.py), and is what the
flag would have given (bit by bit).

The callback is compiled into libllama (build/copied_rows.cpp). A llama-cpp-python that was
installed in another way than `make setup` has none: nothing is read there, and the log says so.
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
_copy_rows: Final = getattr(C._lib, "flashfeed_copy_rows", None)
_Callback: Final[Any] = dict(C.llama_context_params._fields_)["cb_eval"]


class _CopiedRows(ctypes.Structure):
    """`flashfeed_copied_rows`, field by field."""

    _fields_ = (
        ("node", ctypes.c_char_p),
        ("rows", ctypes.c_void_p),
        ("bytes_max", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
    )


class HiddenStates:
    """The hidden states of one context's passes; has to live as long as the context."""

    def __init__(self, n_embd: int) -> None:
        self._n_embd: Final = n_embd
        self._rows = np.empty((0, n_embd), np.float32)
        self._copied: Final = _CopiedRows(NODE, None, 0, 0)
        self._told = False

    def read_by(self, params: Any) -> None:
        """Make a context of these parameters read its hidden states."""
        if _copy_rows is None:
            self._tell("this llama-cpp-python was not compiled by flashfeed (make setup)")
            return
        params.cb_eval = ctypes.cast(_copy_rows, _Callback)
        params.cb_eval_user_data = ctypes.addressof(self._copied)

    def begin(self, n_outputs: int) -> None:
        """A pass of so many outputs begins; what is left of one that failed goes."""
        self._rows = np.empty((n_outputs, self._n_embd), np.float32)
        self._copied.rows = self._rows.ctypes.data
        self._copied.bytes_max, self._copied.bytes = self._rows.nbytes, 0

    def take(self) -> NDArray[np.float32]:
        """The rows of the pass, one an output, in the order of computing; without columns where
        there are none of them."""
        if self._copied.bytes == self._rows.nbytes:
            return self._rows
        self._tell(
            f"expected {self._rows.nbytes} bytes of node {NODE.decode()}, got {self._copied.bytes}"
        )
        return np.empty((len(self._rows), 0), np.float32)

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            _log.warning("no hidden states are read: %s", why)


def state_bytes(state: NDArray[np.float32]) -> bytes:
    """A hidden state as float16, little-endian; b"" where there is none."""
    return np.clip(state, -_F16_MAX, _F16_MAX).astype("<f2").tobytes()
