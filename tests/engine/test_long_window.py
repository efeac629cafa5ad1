"""An exact window that has slid many times answers as a fresh context does (invariants 4, 5)."""

from __future__ import annotations

import pytest

from flashfeed.engine import Engine
from flashfeed.engine.model import Model

from .conftest import Fresh
from .long_window import run_windows

pytestmark = pytest.mark.model


async def test_fifty_windows_of_records(
    engine: Engine, model: Model, fresh: Fresh, name: str
) -> None:
    report = await run_windows(
        engine, model, fresh, name, windows=50, records_max=5, questions_always=False
    )
    assert report.windows == 50
    assert report.sampled > 10
    assert report.is_fresh, report
