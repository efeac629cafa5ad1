"""The whole numbers between two bounds, as a grammar's node. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flashfeed.models.errors import RequestError

from .grammar_nodes import Alt, Chars, Node, Repeat, Seq, Text

DIGITS_MAX: Final = 15
"""Digits of a number: every such number is exact as a double."""

_LIMIT: Final = 10**DIGITS_MAX - 1


def integers_between(low: int | None, high: int | None) -> Node:
    """The decimal writing of every whole number from low to high.

    None is no bound; numbers of more than DIGITS_MAX digits are left out. Raises
    RequestError where none is left.
    """
    low = -_LIMIT if low is None else max(low, -_LIMIT)
    high = _LIMIT if high is None else min(high, _LIMIT)
    if low > high:
        raise RequestError(f"expected whole numbers of at most {DIGITS_MAX} digits, got others")
    nodes: list[Node] = []
    if high >= 0:
        nodes += _naturals(max(low, 0), high)
    if low < 0:
        nodes += [Seq((Text("-"), one)) for one in _naturals(max(1, -high), -low)]
    return Alt(tuple(nodes))


def _naturals(low: int, high: int) -> Iterator[Node]:
    """0 <= low <= high: runs in which all digits after the first ones are free."""
    while low <= high:
        step = 1
        # The most digits at the end that can be free without leaving low..high.
        while low % (step * 10) == 0 and low + step * 10 - 1 <= high and step * 10 <= low:
            step *= 10
        digit = low // step % 10
        last = min(9, digit + (high + 1 - low) // step - 1)
        head, free = low // step // 10, len(str(step)) - 1
        yield Seq(
            (
                Text(str(head) if head else ""),
                Chars(((0x30 + digit, 0x30 + last),)),
                Repeat(Chars(((0x30, 0x39),)), free, free),
            )
        )
        low += (last - digit + 1) * step
