"""A thousand cases against a worker; `make fuzz` runs twenty thousand."""

import pytest

from run_fuzz import report, run

pytestmark = [pytest.mark.broker, pytest.mark.model]


def test_a_thousand_cases_harm_nobody():
    target, spent_s = run(1000, 7)
    assert target.cases >= 1000
    assert not target.failures, report(target, spent_s)
