"""Nothing that comes from outside ends the process or confuses a session (invariant 6).

A short run, the same one every time; `make soak` does 2,000 operations, others each time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .machine import AnyOrder

pytestmark = pytest.mark.model


def test_any_order_of_operations(model_path: Path) -> None:
    AnyOrder.model_path = model_path
    AnyOrder.done.clear()
    AnyOrder.run(6, examples=6, steps=25)
    assert AnyOrder.operations() > 50
    assert AnyOrder.done["compared"]
