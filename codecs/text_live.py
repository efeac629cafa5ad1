r"""What a line says where its candle is not final: behind the codec's own line, for every
text codec.

    122.00 down 6.4 open
"""

from __future__ import annotations

from typing import Final

MARK: Final = " open"
LEGEND: Final = "A last line that ends in `open` is a candle that is not over and may still change."


def live_line(line: str) -> str:
    """A codec's line, marked."""
    return f"{line.removesuffix(chr(10))}{MARK}\n"
