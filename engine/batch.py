"""A pass as a llama_batch."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from .plan import Pass


class Batch:
    """A llama_batch over numpy arrays, filled a run at a time rather than a token."""

    def __init__(self, size: int) -> None:
        self._token = np.zeros(size, np.int32)
        self._position = np.zeros(size, np.int32)
        self._n_sequences = np.zeros(size, np.int32)
        self._sequences = np.zeros(size, np.uintp)
        self._output = np.zeros(size, np.int8)
        self._keep: list[NDArray[np.int32]] = []
        self._ramp = np.arange(size, dtype=np.int32)
        self._batch = C.llama_batch()
        self._batch.token = pointer(self._token, ctypes.c_int32)
        self._batch.pos = pointer(self._position, ctypes.c_int32)
        self._batch.n_seq_id = pointer(self._n_sequences, ctypes.c_int32)
        self._batch.seq_id = pointer(self._sequences, ctypes.POINTER(ctypes.c_int32))
        self._batch.logits = pointer(self._output, ctypes.c_int8)

    def filled(self, one: Pass) -> Any:
        """The pass as a llama_batch, valid until the next call."""
        at = 0
        self._keep = []
        for run in one.runs:
            end = at + len(run.tokens)
            sequences = np.array(run.sequences, np.int32)
            self._keep.append(sequences)
            self._token[at:end] = run.tokens
            np.add(self._ramp[: end - at], run.position, out=self._position[at:end])
            self._n_sequences[at:end] = len(sequences)
            # All tokens of a run point at the same list of sequences.
            self._sequences[at:end] = sequences.ctypes.data
            self._output[at:end] = 0
            for offset in run.outputs:
                self._output[at + offset] = 1
            at = end
        self._batch.n_tokens = at
        return self._batch


def pointer(array: NDArray[Any], kind: Any) -> Any:
    """The array's data for C, of that type."""
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
