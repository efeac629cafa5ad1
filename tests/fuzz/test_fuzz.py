"""A thousand cases against the worker; `make fuzz` runs twenty thousand."""

import time

import pytest

from run_fuzz import fuzz, report

pytestmark = [pytest.mark.broker, pytest.mark.model]


def test_a_thousand_cases_harm_nobody(worker):
    began = time.monotonic()
    target = fuzz(worker.url, 1000, 7)
    assert target.cases >= 1000
    assert not target.failures, report(target, time.monotonic() - began)
