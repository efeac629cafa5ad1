"""The metrics of what the worker runs as, and on: its build, its process, its GPUs."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)


class BuildCollector(Collector):
    """Which flashfeed, llama.cpp and Python this is."""

    def __init__(self, llama_cpp: str = "") -> None:
        self.llama_cpp = llama_cpp
        try:
            self._version = version("flashfeed")
        except PackageNotFoundError:  # run from a copy that was never installed
            self._version = "unknown"

    def collect(self) -> Iterable[Metric]:
        """The family, for a scrape."""
        family = GaugeMetricFamily(
            "flashfeed_build_info", "What this worker is.",
            labels=("version", "llama_cpp", "python"),
        )  # fmt: skip
        family.add_metric((self._version, self.llama_cpp, platform.python_version()), 1)
        return (family,)


class GpuCollector(Collector):
    """NVIDIA's GPUs by NVML; none where pynvml (the `gpu` extra) or the driver is missing. It
    begins at the first scrape: who makes metrics to count nothing wakes no driver."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._began = False

    def collect(self) -> Iterable[Metric]:
        """The families, for a scrape. A GPU that does not answer has no values, and the
        others' stand."""
        if not self._began:
            self._began, self._nvml = True, _nvml()
        if self._nvml is None:
            return ()
        nvml = self._nvml
        used, total, busy = (
            GaugeMetricFamily(f"flashfeed_gpu_{name}", what, labels=("gpu", "name"))
            for name, what in (
                ("memory_used_bytes", "Memory of a GPU in use, by whomever."),
                ("memory_bytes", "Memory of a GPU."),
                ("busy_ratio", "Share of the last moments in which a GPU computed."),
            )
        )
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            log.debug("no GPU can be counted: %s", error)
            count = 0
        for number in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                labels = (str(number), str(nvml.nvmlDeviceGetName(handle)))
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                used.add_metric(labels, memory.used)
                total.add_metric(labels, memory.total)
                busy.add_metric(labels, nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except nvml.NVMLError as error:  # MIG tells no use
                log.debug("GPU %d: %s", number, error)
        return used, total, busy


def _nvml() -> Any:
    """NVML, begun; None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return None
    except pynvml.NVMLError as error:
        log.info("no GPU metrics: %s", error)
        return None
    return pynvml
