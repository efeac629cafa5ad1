"""A GPU that fails takes no scrape along. No GPU is here: NVML is one that answers what is said."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flashfeed.agents.metrics import Metrics
from flashfeed.agents.metrics_machine import GpuCollector


class NVMLError(Exception):
    """NVML's."""


class Nvml:
    """Two GPUs, of which what is named in `broken` fails, for the first one alone where there
    is a handle."""

    NVMLError = NVMLError

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.begun = 0

    def __getattr__(self, name: str) -> Any:
        def answer(handle: Any = None) -> Any:
            if name in self.broken and handle in (None, 0):
                raise NVMLError("the GPU is lost")
            return {
                "nvmlInit": None,
                "nvmlDeviceGetCount": 2,
                "nvmlDeviceGetHandleByIndex": handle,
                "nvmlDeviceGetName": "GPU",
                "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=1, total=2),
                "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=50),
            }[name]

        if name == "nvmlInit":
            self.begun += 1
        return answer


def gpus(monkeypatch: pytest.MonkeyPatch, *broken: str) -> dict[str, float]:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(*broken))
    registry = CollectorRegistry()
    registry.register(GpuCollector())
    return {
        one.labels["gpu"]: one.value
        for family in registry.collect()
        if family.name == "flashfeed_gpu_busy_ratio"
        for one in family.samples
    }


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        ((), {"0": 0.5, "1": 0.5}),
        (("nvmlDeviceGetHandleByIndex",), {"1": 0.5}),
        (("nvmlDeviceGetName",), {"1": 0.5}),
        (("nvmlDeviceGetMemoryInfo",), {"1": 0.5}),
        (("nvmlDeviceGetCount",), {}),
        (("nvmlInit",), {}),
    ],
)
def test_what_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...], seen: dict[str, float]
) -> None:
    assert gpus(monkeypatch, *broken) == seen


def test_no_driver_is_woken_before_somebody_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    metrics = Metrics()
    assert nvml.begun == 0
    for _ in range(2):
        metrics.collect()
    assert nvml.begun == 1
