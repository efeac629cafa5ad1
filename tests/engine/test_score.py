"""From logits to numbers, against the textbook formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flashfeed.engine.packaged_model import Measured, best_form
from flashfeed.engine.score import (
    geometric_mean,
    log_normaliser,
    pick_greedy,
    softmax,
)

ROW = np.array([1.0, 3.0, -2.0, 2.5, 300.0, 299.0], np.float32)


def test_log_normaliser_does_not_overflow() -> None:
    assert log_normaliser(ROW) == pytest.approx(300 + math.log1p(math.exp(-1)), abs=1e-4)


def test_greedy_has_the_gap_and_the_log_probability() -> None:
    picked = pick_greedy(ROW, with_gap=True)
    assert (picked.token, picked.gap) == (4, 1.0)
    assert picked.log_probability == pytest.approx(-math.log1p(math.exp(-1)), abs=1e-4)


def test_softmax_and_geometric_mean() -> None:
    assert softmax([math.log(0.2), math.log(0.6)]) == pytest.approx([0.25, 0.75])
    assert geometric_mean([math.log(0.25), math.log(1.0)]) == pytest.approx(0.5)
    assert geometric_mean([]) == 0.0


def test_the_best_form_is_the_fastest_of_the_faithful() -> None:
    q8, f16, bf16 = Measured(165, 0.5), Measured(253, 0.01), Measured(240, 0.2)
    assert best_form({"Q8_0": q8, "F16": f16, "BF16": bf16}) == "F16"
    assert best_form({"Q8_0": Measured(165, 0.05), "F16": f16}) == "Q8_0"
    assert best_form({"Q8_0": q8, "BF16": bf16}) == "BF16"
