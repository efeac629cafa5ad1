"""One llama_context: the only place where the model is run.

`run` checks a pass against the limits, makes the one C call and hands the logits out.
llama.cpp aborts the process on what the checks look for, so nothing goes past them.

What may be trusted: `ends` and `cells_used` are what the KV cache holds, except after
`run` has raised DecodeFailed with a code other than 1 and -1. Then the pass's sequences
hold nobody knows what, and whoever asked for a part of it must drop its forks and
truncate its session (`truncate` makes the books right again).

A cell that several sequences share belongs to the first sequence of the run that made
it, and is given back with that one: drop the sharers before the owner, or with it.

Where the model's state is recurrent (`can_cut` is false) a sequence goes back only to where
`commit` was called on it, no run may be of several sequences, and a pass that failed half
way leaves nothing to be trusted (`lost`): llama.cpp moves states while it computes.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import llama_cpp
import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from flashfeed.models.errors import EngineError

from .batch import Batch, pointer
from .checkpoints import KEPT, Checkpoints
from .context_params import context_params
from .hidden import HiddenStates
from .model import Model
from .plan import Pass, PlanFault, check_pass
from .recurrent import kept_sequences
from .settings import EngineSettings, Limits
from .trace import Trace
from .ubatches import output_order

LLAMA_BUILD: Final = f"llama-cpp-python {llama_cpp.__version__}"
"""The build of llama.cpp: another one may compute or save keys and values in another way."""

_CELLS_STEP: Final = 256


class DecodeFailed(EngineError):
    """llama_decode returned `decode_code`: 1 and -1 left the cache as it was, others did not."""

    def __init__(self, code: int) -> None:
        super().__init__(f"llama_decode returned {code} ({_CODES.get(code, 'fatal error')})")
        self.decode_code = code

    @property
    def harmless(self) -> bool:
        """Whether the cache is as it was before the pass."""
        return self.decode_code in (1, -1)


_CODES: Final = {1: "no room in the KV cache", 2: "aborted", -1: "batch refused"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a pass gave: a row of logits for each output, valid until the context's next
    pass, the seconds that llama_decode took, and a row of the hidden state for each output
    (without columns where it is not read)."""

    rows: NDArray[np.float32]
    seconds: float
    hidden: NDArray[np.float32]


class Context:
    """A llama_context of its own over shared weights. One thread only."""

    def __init__(
        self, model: Model, settings: EngineSettings, cells: int, trace: Trace | None = None
    ) -> None:
        self.can_cut: Final = model.capabilities.cuts
        n_kept = 0 if self.can_cut else kept_sequences(settings)
        copies = range(settings.sequences, settings.sequences + n_kept)
        self._checkpoints = Checkpoints(copies, self._copy, self._empty)
        shape: dict[str, Any] = {
            "cells": -(-cells // _CELLS_STEP) * _CELLS_STEP,
            "batch_tokens": settings.batch_tokens,
            "ubatch_tokens": settings.ubatch_tokens or settings.batch_tokens,
            "sequences": settings.sequences + n_kept,
            "outputs": settings.outputs_max,
            "threads": settings.threads or 1,
            "flash_attention": settings.flash_attention_on,
            "kv_type": settings.kv_type,
        }
        params = context_params(**shape)
        self._hidden = HiddenStates(model.n_embd) if settings.hidden_states else None
        self._following = bool(C.llama_model_is_recurrent(model.handle))
        if self._hidden:
            self._hidden.read_by(params)
        self._trace = trace
        self._number = trace.open(shape) if trace else 0
        self._handle = C.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise EngineError(
                f"llama.cpp could not make a context of {shape['cells']} tokens "
                f"(KV type {settings.kv_type}): out of memory, or the model takes no such cache"
            )
        self._memory = C.llama_get_memory(self._handle)
        if not self._memory:
            raise EngineError("expected a model with a KV cache, llama.cpp made none")
        self.can_shift = bool(C.llama_memory_can_shift(self._memory))
        batch_tokens = int(C.llama_n_batch(self._handle))
        self.limits = Limits(
            batch_tokens=batch_tokens,
            cells=int(C.llama_n_ctx(self._handle)),
            sequences=int(C.llama_n_seq_max(self._handle)) - n_kept,
            outputs=min(settings.outputs_max, batch_tokens),
            vocabulary=model.n_vocab,
        )
        self.ends: dict[int, int] = {}
        self._own: dict[int, int] = {}
        self.cells_used = 0
        self.lost: DecodeFailed | None = None
        self._batch = Batch(batch_tokens)

    def free(self) -> None:
        """Gives the KV cache back."""
        C.llama_free(self._handle)
        self._handle = None

    def run(self, one: Pass) -> Decoded:
        """One llama_decode. Raises PlanFault before it, DecodeFailed after it, and again
        where what it stands on was `lost`."""
        after = check_pass(one, self.limits, self.ends, self.cells_used, shared=self.can_cut)
        if self.lost is not None:
            raise DecodeFailed(self.lost.decode_code)
        batch = self._batch.filled(one)
        if self._hidden:
            self._hidden.begin(one.n_outputs)
        started = time.perf_counter()
        code = self._decode(batch)
        if code == 0:
            C.llama_synchronize(self._handle)
        seconds = time.perf_counter() - started
        if code != 0:
            failed = DecodeFailed(code)
            if not self.can_cut and not failed.harmless:
                self.lost = failed
            raise failed
        if self._trace:
            self._trace.run(self._number, one, seconds)
        self.ends.update(after)
        self.cells_used += one.n_tokens
        for run in one.runs:
            owner = run.sequences[0]
            self._own[owner] = self._own.get(owner, 0) + len(run.tokens)
        n = one.n_outputs
        hidden = self._hidden.take() if self._hidden else np.empty((n, 0), np.float32)
        if not self.can_cut and hidden.size:
            n_ubatch = int(C.llama_n_ubatch(self._handle))
            hidden[output_order(one, n_ubatch, following=self._following)] = hidden.copy()
        return Decoded(self._rows(n), seconds, hidden)

    def fork(self, source: int, targets: Iterable[int], position: int) -> None:
        """Every target becomes the source's first `position` tokens; no data is copied.

        Raises EngineError where the source cannot be had there (`commit`).
        """
        assert self.ends.get(source, 0) >= position, (source, position)
        targets, source = list(targets), self._as_of(source, position)
        for target in targets:
            assert 0 <= target < self.limits.sequences, target
            assert target not in self.ends, f"sequence {target} is in use"
            self.ends[target] = position
        self._copy(source, targets, position)

    def drop(self, sequences: Iterable[int]) -> None:
        """Removes whole sequences, and the cells that belong to them."""
        sequences = list(sequences)
        assert all(0 <= one < self.limits.sequences for one in sequences), sequences
        self._empty(sequences)
        for sequence in sequences:
            self._checkpoints.drop(sequence)
            self.ends.pop(sequence, None)
            self.cells_used -= self._own.pop(sequence, 0)

    def commit(self, sequence: int, most: int = KEPT) -> None:
        """What the sequence holds now is what it goes back to, and may be forked at while it
        grows; as are `most` - 1 such places before. A sequence that is no seat's may have one.
        Only needed where it can go back to nothing else; elsewhere it does nothing."""
        if not self.can_cut and self.lost is None:
            self._checkpoints.commit(sequence, self.ends.get(sequence, 0), most)

    def can_go_back(self, sequence: int, position: int) -> bool:
        """Whether `truncate` can bring the sequence's first `position` tokens back."""
        return self.place_at(sequence, position) == position

    def place_at(self, sequence: int, position: int) -> int:
        """The last place, `position` at most, where `truncate` can bring the sequence back."""
        if self.can_cut:
            return position
        places = (0, *self._checkpoints.positions(sequence), self.ends.get(sequence, 0))
        return max(place for place in places if place <= position)

    def truncate(self, sequence: int, position: int) -> None:
        """Cuts a sequence back to its first `position` tokens; what is cut off belongs to it.

        Also right after a failed pass: what the cache holds is asked of llama.cpp. Raises
        EngineError where it cannot go back there (`can_go_back`).
        """
        if self.can_cut:
            if self._trace:
                self._trace.cut(self._number, [sequence], position)
            self._remove(sequence, position)
        elif not position or self._checkpoints.at(sequence, position) is not None:
            self._checkpoints.go_back(sequence, position)
        else:
            self._as_of(sequence, position)
        self._disown(sequence, max(0, self.ends.get(sequence, 0) - position))
        self.ends[sequence] = position
        held = int(C.llama_memory_seq_pos_max(self._memory, sequence)) + 1
        if held != position:
            raise EngineError(f"sequence {sequence} holds {held} tokens, expected {position}")

    def rename(self, sequence: int, name: int) -> None:
        """The sequence goes on under another, unused id, with all its cells."""
        self.fork(sequence, (name,), self.ends[sequence])
        self._own[name] = self._own.pop(sequence, 0)
        self.drop((sequence,))

    def inherit(self, sequence: int, source: int) -> None:
        """Drops `source`, all of whose cells the sequence shares and owns from now on."""
        self._own[sequence] = self._own.get(sequence, 0) + self._own.pop(source, 0)
        self.drop((source,))

    def slide(self, sequence: int, first: int, end: int, sharers: Mapping[int, int]) -> None:
        """Removes the tokens at positions `first`..`end` - 1 and moves the later ones up.

        The cells belong to the sequence; `sharers` are the other sequences that share them,
        each with the position where its own cells begin (not before `end`). The later
        tokens' keys and values still know what was removed. Where the model cannot
        (`can_shift`), llama.cpp would abort: EngineError.
        """
        if not self.can_shift:
            raise EngineError("this model's KV cache cannot be shifted")
        by = end - first
        assert 0 <= first < end <= self.ends[sequence], (sequence, first, end)
        assert all(own >= end for own in sharers.values()), sharers
        if self._trace:
            self._trace.slide(self._number, sequence, first, end, sharers)
        for one in (sequence, *sharers):
            C.llama_memory_seq_rm(self._memory, one, first, end)
        # A shared cell is moved once, by the sequence that it belongs to.
        C.llama_memory_seq_add(self._memory, sequence, end, -1, -by)
        self.ends[sequence] -= by
        for one, own in sharers.items():
            if own < self.ends[one]:
                C.llama_memory_seq_add(self._memory, one, own, -1, -by)
            self.ends[one] -= by
        self._disown(sequence, by)

    def clear(self) -> None:
        """Empties the cache, all sequences."""
        if self._trace:
            self._trace.clear(self._number)
        C.llama_memory_clear(self._memory, False)
        self._checkpoints.forget()
        self.lost = None
        self.ends.clear()
        self._own.clear()
        self.cells_used = 0

    def save_sequence(self, sequence: int) -> memoryview:
        """The keys and values of a sequence's tokens, as llama.cpp writes them.

        Cells that it shares with others are in it too. Another context of the same
        model, cache type and layout takes it by `load_sequence`.
        """
        assert self.ends.get(sequence, 0) > 0, f"sequence {sequence} is empty"
        if self.lost is not None:
            raise EngineError(f"sequence {sequence} is not saved: {self.lost}")
        size = int(C.llama_state_seq_get_size(self._handle, sequence))
        data = np.empty(size, np.uint8)
        written = int(
            C.llama_state_seq_get_data(self._handle, pointer(data, ctypes.c_uint8), size, sequence)
        )
        if not size or written != size:
            raise EngineError(f"llama.cpp saved {written} of {size} bytes of sequence {sequence}")
        return data.data

    def load_sequence(self, sequence: int, data: memoryview | bytes, tokens: Sequence[int]) -> None:
        """An empty sequence becomes the saved one, which holds `tokens`, in cells of its own.

        `data` must be `save_sequence`'s own bytes, authenticated if they were ever out
        of this process: llama.cpp believes the positions in them, and aborts on some.
        Raises PlanFault where there is no room, and EngineError where llama.cpp refuses
        the data or they hold another number of tokens; the sequence is empty then.
        """
        if not 0 <= sequence < self.limits.sequences:
            raise PlanFault(f"expected a sequence below {self.limits.sequences}, got {sequence}")
        if self.ends.get(sequence, 0):
            raise PlanFault(f"expected an empty sequence, {sequence} is in use")
        if not tokens or self.cells_used + len(tokens) > self.limits.cells:
            raise PlanFault(
                f"expected 1 to {self.limits.cells - self.cells_used} tokens, got {len(tokens)}"
            )
        source = np.frombuffer(data, np.uint8)
        read = int(
            C.llama_state_seq_set_data(
                self._handle, pointer(source, ctypes.c_uint8), source.size, sequence
            )
        )
        # What ends early llama.cpp refuses, what is too long it does not.
        held = int(C.llama_memory_seq_pos_max(self._memory, sequence)) + 1
        if read != source.size or held != len(tokens):
            self._remove(sequence, 0)
            raise EngineError(
                f"a saved sequence was not loaded: {read} of {source.size} bytes and {held} "
                f"of {len(tokens)} tokens; decode its tokens instead"
            )
        if self._trace:
            self._trace.load(self._number, sequence, tokens)
        self.ends[sequence] = self._own[sequence] = held
        self.cells_used += held

    def _as_of(self, sequence: int, position: int) -> int:
        """The sequence, or its copy, that holds its first `position` tokens and no more."""
        if self.can_cut or position in (0, self.ends.get(sequence, 0)):
            return sequence
        copy = self._checkpoints.at(sequence, position)
        if copy is None:
            raise EngineError(
                f"sequence {sequence} cannot go back to its first {position} tokens, only to "
                f"{self._checkpoints.positions(sequence)}: its state is recurrent"
            )
        return copy

    def _copy(self, source: int, targets: Sequence[int], position: int) -> None:
        if self._trace:
            self._trace.fork(self._number, source, targets, position)
        for target in targets if position else ():
            C.llama_memory_seq_cp(self._memory, source, target, 0, position)

    def _empty(self, sequences: Sequence[int]) -> None:
        if self._trace:
            self._trace.cut(self._number, sequences, 0)
        for sequence in sequences:
            C.llama_memory_seq_rm(self._memory, sequence, 0, -1)

    def _disown(self, sequence: int, cells: int) -> None:
        self.cells_used -= cells
        self._own[sequence] = self._own.get(sequence, 0) - cells

    def _decode(self, batch: Any) -> int:
        return int(C.llama_decode(self._handle, batch))

    def _remove(self, sequence: int, position: int) -> None:
        assert 0 <= sequence < self.limits.sequences, sequence
        C.llama_memory_seq_rm(self._memory, sequence, position, -1)

    def _rows(self, n: int) -> NDArray[np.float32]:
        if n == 0:
            return np.empty((0, self.limits.vocabulary), np.float32)
        pointer = C.llama_get_logits(self._handle)
        return np.ctypeslib.as_array(pointer, shape=(n, self.limits.vocabulary))
