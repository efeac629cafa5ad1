"""Nothing that comes from outside ends the process or confuses a session (invariant 6).

A short run, the same one every time; `make soak` does 2,000 operations, others each time.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import AnyOrder

pytestmark = pytest.mark.model


def test_any_order_of_operations(model_path: Path) -> None:
    AnyOrder.model_path = model_path
    AnyOrder.done.clear()
    run_state_machine_as_test(
        seed(6)(AnyOrder),
        settings=settings(
            max_examples=6,
            stateful_step_count=25,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert AnyOrder.operations() > 50
    assert AnyOrder.done["compared"]
