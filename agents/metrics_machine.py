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
    """NVIDIA's GPUs by NVML; none where pynvml (the `gpu` extra) or the driver is missing."""

    def __init__(self) -> None:
        self._nvml: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
        except ImportError:
            return
        except pynvml.NVMLError as error:
            log.info("no GPU metrics: %s", error)
            return
        self._nvml = pynvml

    def collect(self) -> Iterable[Metric]:
        """The families, for a scrape."""
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
        for number in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            labels = (str(number), str(nvml.nvmlDeviceGetName(handle)))
            try:
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                used.add_metric(labels, memory.used)
                total.add_metric(labels, memory.total)
                busy.add_metric(labels, nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except nvml.NVMLError as error:  # MIG tells no use
                log.debug("GPU %d: %s", number, error)
        return used, total, busy
