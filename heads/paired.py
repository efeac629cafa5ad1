"""Two forecasters of the same labels: is one better, or is it chance? Pure.

Answer by answer the difference of their losses, and its mean with an interval by the moving
block bootstrap (Kuensch, Annals of Statistics 17, 1989): neighbouring answers share most of
their data, and answers of the same moment their news. So what is drawn are whole blocks of
neighbouring moments, all sessions of a moment together. A block has n^(1/3) moments (Hall,
Horowitz and Jing, Biometrika 82, 1995), and no fewer than an outcome takes to be known, for as
long labels overlap.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 2000
MOMENTS_MIN: Final = 20
"""With fewer no interval is given."""
_SEED: Final = 20240229
_TAILS: Final = (2.5, 97.5)


class Pair(NamedTuple):
    """The losses of two forecasters for one label, at a time, which was known at another."""

    time: int
    known: int
    one: float
    other: float


class Difference(msgspec.Struct, frozen=True):
    """`mean` is that of the first's loss less the other's, in nats a label: below 0 the first
    is better. `low` and `high` are its 95% interval, `p` how often chance alone is as far from
    0; None where there are too few moments. `block` is the length of a block in moments."""

    labels: int
    one: float
    other: float
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    block: int = 0


def difference(pairs: Iterable[Pair]) -> Difference | None:
    """How the first compares with the other; None where there is nothing to compare."""
    kept = sorted(pairs)
    if not kept:
        return None
    one, other = (float(np.mean([pair[at] for pair in kept])) for at in (2, 3))
    times = sorted({pair.time for pair in kept})
    place = {time: at for at, time in enumerate(times)}
    sums, counts = np.zeros(len(times)), np.zeros(len(times))
    for pair in kept:
        sums[place[pair.time]] += pair.one - pair.other
        counts[place[pair.time]] += 1
    bare = Difference(len(kept), one, other, one - other)
    if len(times) < MOMENTS_MIN:
        return bare
    block = _block(kept, times)
    means = _drawn(sums, counts, block)
    low, high = np.percentile(means, _TAILS)
    # Around its own mean the drawn one is what chance gives.
    p = (1 + int((np.abs(means - bare.mean) >= abs(bare.mean)).sum())) / (1 + DRAWS)
    return msgspec.structs.replace(bare, low=float(low), high=float(high), p=p, block=block)


def _block(pairs: Sequence[Pair], times: Sequence[int]) -> int:
    """A block's length in moments; at least four blocks are left."""
    waited = max(bisect_left(times, pair.known) - bisect_left(times, pair.time) for pair in pairs)
    usual = math.ceil(math.cbrt(len(times)))
    return max(1, min(max(usual, waited), len(times) // 4))


def _drawn(
    sums: NDArray[np.float64], counts: NDArray[np.float64], block: int
) -> NDArray[np.float64]:
    n = len(sums)
    draw = np.random.default_rng(_SEED)
    starts = draw.integers(0, n - block + 1, size=(DRAWS, -(-n // block)))
    of_sums, of_counts = (
        np.convolve(values, np.ones(block), mode="valid") for values in (sums, counts)
    )
    means: NDArray[np.float64] = of_sums[starts].sum(axis=1) / of_counts[starts].sum(axis=1)
    return means
