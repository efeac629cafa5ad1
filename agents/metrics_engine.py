"""The engine's metrics, read from its own numbers at each scrape (engine/stats.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from flashfeed.engine import EngineStats
from flashfeed.engine.stats import KINDS, Buckets, Spent

from .plain_histogram import add_buckets


class EngineCollector(Collector):
    """Every series of the engine; none where it does not run."""

    def __init__(self, stats: Callable[[], EngineStats | None]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """The families, for a scrape."""
        stats = self._stats()
        if stats is None:
            return
        by_kind = {kind: Spent() for kind in KINDS}
        for (_, kind), spent in stats.spent.items():
            by_kind[kind].tokens += spent.tokens
            by_kind[kind].seconds += spent.seconds
        yield _filled(
            CounterMetricFamily(
                "flashfeed_engine_tokens", "Tokens decoded by kind.", labels=("kind",)
            ),
            {kind: spent.tokens for kind, spent in by_kind.items()},
        )
        yield _filled(
            CounterMetricFamily(
                "flashfeed_engine_decode_seconds",
                "Time inside llama_decode by kind; of embeddings with what makes their context.",
                labels=("kind",),
            ),
            {kind: spent.seconds for kind, spent in by_kind.items()},
        )  # fmt: skip
        yield _filled(
            GaugeMetricFamily(
                "flashfeed_engine_jobs", "Jobs that wait for the engine or run in it.",
                labels=("kind",),
            ),
            stats.jobs,
        )  # fmt: skip
        yield _histograms(
            "flashfeed_engine_step_seconds",
            "Forward passes, by the kind of work that led them.", stats.steps,
        )  # fmt: skip
        yield _histograms(
            "flashfeed_engine_wait_seconds", "From a job's coming to its first pass.", stats.waits
        )
        yield _filled(
            GaugeMetricFamily(
                "flashfeed_engine_sessions", "Open sessions by state.", labels=("state",)
            ),
            stats.sessions,
        )
        yield _filled(
            CounterMetricFamily(
                "flashfeed_engine_restores",
                "Sessions that came back to memory, by source; decode: also windows that moved "
                "without a second seat.", labels=("source",),
            ),
            stats.restores,
        )  # fmt: skip
        yield _filled(
            CounterMetricFamily(
                "flashfeed_engine_snapshots", "Snapshots by what became of them.",
                labels=("result",),
            ),
            stats.snapshots,
        )  # fmt: skip
        yield CounterMetricFamily(
            "flashfeed_engine_evictions", "Sessions that gave up their seats.", stats.evictions
        )
        for name, what, value in (
            ("kv_cells", "Cells of all KV caches.", stats.kv_cells),
            ("kv_cells_used", "Cells of the KV caches that hold a token.", stats.kv_cells_used),
            ("kv_bytes", "Bytes of all KV caches.", stats.kv_bytes),
            ("kv_bytes_limit", "Bytes that the KV caches may take.", stats.kv_bytes_max),
            ("seats", "Resident sequences.", stats.seats),
            ("seats_limit", "Resident sequences that there may be.", stats.seats_max),
        ):
            yield GaugeMetricFamily(f"flashfeed_engine_{name}", what, value)
        yield from _models(stats)


def _models(stats: EngineStats) -> Iterable[Metric]:
    info = GaugeMetricFamily(
        "flashfeed_model_info", "A loaded model and the hash of its file.",
        labels=("model", "hash"),
    )  # fmt: skip
    weights = GaugeMetricFamily(
        "flashfeed_model_weights_bytes", "Bytes of a loaded model's weights.", labels=("model",)
    )
    kv = GaugeMetricFamily(
        "flashfeed_model_kv_bytes", "Bytes of a model's KV caches.", labels=("model",)
    )
    for model in stats.models:
        info.add_metric((model.name, model.hash), 1)
        weights.add_metric((model.name,), model.weights_bytes)
        kv.add_metric((model.name,), model.kv_bytes)
    devices = GaugeMetricFamily(
        "flashfeed_device_info", "What llama.cpp can compute on.", labels=("device", "name")
    )
    for number, name in enumerate(stats.devices):
        devices.add_metric((str(number), name), 1)
    return info, weights, kv, devices


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]) -> Metric:
    """The family with each value of its one label."""
    for value, number in values.items():
        family.add_metric((value,), number)
    return family


def _histograms(name: str, what: str, by_kind: Mapping[str, Buckets]) -> Metric:
    family = HistogramMetricFamily(name, what, labels=("kind",))
    for kind, buckets in by_kind.items():
        add_buckets(family, (kind,), buckets)
    return family
