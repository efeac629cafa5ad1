"""In which order llama.cpp computes a pass, where sequences have a recurrent state. Pure.

Such sequences are decoded side by side, as many tokens of each: a pass whose runs differ in
length falls into several physical batches (llama-batch.cpp, split_equal), and what is copied
out of the graph (hidden.py) comes in their order. Logits llama.cpp puts back in order itself.
"""

from __future__ import annotations

from .plan import Pass


def output_order(one: Pass, n_ubatch: int, *, following: bool) -> list[int]:
    """The pass's outputs, by their place in batch order, as they are computed.

    Each run is of one sequence. `following`: only sequences whose ids follow one another are
    decoded side by side, which is so where a model has no KV cache beside its states.
    """
    tokens: dict[int, list[int | None]] = {}
    """Of each sequence: its tokens' places among the outputs, None for those that are none."""
    n_outputs = 0
    starts: list[tuple[int, int]] = []
    for run in one.runs:
        [sequence] = run.sequences
        own = tokens.setdefault(sequence, [])
        starts.append((sequence, len(own) + len(run.tokens)))
        wanted = set(run.outputs)
        for offset in range(len(run.tokens)):
            own.append(n_outputs if offset in wanted else None)
            n_outputs += offset in wanted
    used = dict.fromkeys(tokens, 0)
    order: list[int] = []
    while True:
        together: list[int] = []
        for sequence, end in starts:
            is_left = used[sequence] < end and sequence not in together
            if is_left and (not following or not together or sequence == together[-1] + 1):
                together.append(sequence)
                if len(together) > n_ubatch:
                    break
        if not together:
            return order
        least = min(len(tokens[sequence]) - used[sequence] for sequence in together)
        n = min(least, max(1, n_ubatch // len(together)))
        for sequence in together:
            begin = used[sequence]
            part = tokens[sequence][begin : begin + n]
            order.extend(place for place in part if place is not None)
            used[sequence] = begin + n
