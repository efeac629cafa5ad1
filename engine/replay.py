"""The ideal: the seconds that a bare loop over llama_decode needs for a traced run.

The same passes, at the same positions, with the same sequences, on contexts made the
same way, and nothing else: no planner, no sampling, no Kafka. Only llama_decode is
timed; what it needs before (forks, loads) and after (cuts) is done, and not counted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as C
import orjson

from flashfeed.models.errors import EngineError

from .batch import Batch
from .context_params import context_params
from .model import Model
from .plan import Pass, Run

Operations = list[list[Any]]


def read_trace(path: Path) -> dict[int, Operations]:
    """The operations of each context, in order. A last line cut short is left out."""
    by_context: dict[int, Operations] = defaultdict(list)
    for line in path.read_bytes().splitlines():
        try:
            operation = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        by_context[operation[1]].append(operation)
    return dict(by_context)


def ideal_seconds(
    trace: Path, model_path: Path, *, gpu_layers: int = -1, budget_s: float | None = None
) -> float:
    """The ideal's share of the traced llama_decode time: bare seconds over traced seconds.

    All contexts are replayed, or, with a budget, as many as fit it (at least one), those
    nearest the median first; contexts of one run are alike. Multiply by the whole
    decode time for seconds. Raises EngineError where the replay itself fails.
    """
    contexts = read_trace(trace)
    spent = {number: _traced_seconds(operations) for number, operations in contexts.items()}
    order = sorted((number for number in spent if spent[number]), key=lambda n: spent[n])
    if not order:
        return 0.0
    middle = order[len(order) // 2]
    order.sort(key=lambda n: abs(spent[n] - spent[middle]))
    model = Model.load(model_path, gpu_layers)
    began = time.perf_counter()
    bare = traced = 0.0
    try:
        for number in order:
            if bare and budget_s is not None and time.perf_counter() - began > budget_s / 2:
                break
            bare += replay(model, contexts[number])
            traced += spent[number]
    finally:
        model.free()
    return bare / traced


def _traced_seconds(operations: Operations) -> float:
    return float(sum(operation[3] for operation in operations if operation[0] == "run"))


def replay(model: Model, operations: Operations) -> float:
    """Run one context's operations again; the seconds inside llama_decode."""
    params = context_params(**operations[0][2])
    handle = C.llama_init_from_model(model.handle, params)
    if not handle:
        raise EngineError("llama.cpp could not make the context again")
    memory = C.llama_get_memory(handle)
    batch = Batch(int(C.llama_n_batch(handle)))
    seconds = 0.0
    try:
        for kind, _, *rest in operations[1:]:
            if kind == "run":
                runs = (Run(tuple(t), p, tuple(s), tuple(o)) for t, p, s, o in rest[0])
                filled = batch.filled(Pass(tuple(runs)))
                began = time.perf_counter()
                code = C.llama_decode(handle, filled)
                C.llama_synchronize(handle)
                seconds += time.perf_counter() - began
                if code:
                    raise EngineError(f"llama_decode returned {code} in the replay")
            elif kind == "fork":
                source, targets, position = rest
                for target in targets:
                    C.llama_memory_seq_cp(memory, source, target, 0, position)
            elif kind == "load":
                _decode_again(handle, batch, *rest)
            elif kind == "slide":
                _slide(memory, *rest)
            elif kind == "cut":
                for sequence in rest[0]:
                    C.llama_memory_seq_rm(memory, sequence, rest[1], -1)
            else:
                C.llama_memory_clear(memory, False)
    finally:
        C.llama_free(handle)
    return seconds


def _decode_again(handle: Any, batch: Batch, sequence: int, tokens: list[int]) -> None:
    """What a load put there: the saved bytes are not in the trace, their tokens are."""
    step = int(C.llama_n_batch(handle))
    for at in range(0, len(tokens), step):
        run = Run(tuple(tokens[at : at + step]), at, (sequence,))
        if code := C.llama_decode(handle, batch.filled(Pass((run,)))):
            raise EngineError(f"llama_decode returned {code} in the replay of a load")
    C.llama_synchronize(handle)


def _slide(memory: Any, sequence: int, first: int, end: int, sharers: list[list[int]]) -> None:
    for one in (sequence, *(sharer for sharer, _ in sharers)):
        C.llama_memory_seq_rm(memory, one, first, end)
    C.llama_memory_seq_add(memory, sequence, end, -1, first - end)
    for one, own in sharers:
        C.llama_memory_seq_add(memory, one, own, -1, first - end)
