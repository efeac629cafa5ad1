"""Linear algebra in one thread, in this process, from the first fit on.

How many threads BLAS takes changes the order of its sums, and so the last bits of a fit: the
same examples would give another head on a machine with other cores (inv. 8). And where the
cores are busy its threads wait for one another in a spin: a fit of 2,000 examples took 3.5 s
of CPU in two threads and 0.4 s in one, beside an engine that has all cores.
"""

from __future__ import annotations

from functools import cache

from threadpoolctl import threadpool_limits


@cache
def use_one_thread() -> None:
    """From now on BLAS has one thread here."""
    threadpool_limits(limits=1, user_api="blas")
