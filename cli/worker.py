"""`flashfeed worker`: engine, Faust app and bridge in one process."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashfeed.agents.app import Worker
from flashfeed.agents.feeds import Feed
from flashfeed.agents.stopping import STOP_MAX_S, Stopping
from flashfeed.bridge.app import Cluster, create_app
from flashfeed.bridge.server import BridgeServer
from flashfeed.codecs.codec import Outside
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.presets import codec_of
from flashfeed.codecs.registry import codec
from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.homes import DEFAULT, Locate
from flashfeed.engine.model_source import Catalogue, fetch
from flashfeed.engine.tuned import Tuned, recall, tuned_file
from flashfeed.models.config import Config, EngineConfig
from flashfeed.models.errors import ConfigError, FlashfeedError

from .collector import calm_collector
from .logs import set_up, show_traces
from .models import catalogue, default_engine, engine_of
from .settings import (
    advertised_url,
    bridge_settings,
    cluster_peers,
    feed_mapping,
    load,
    session_filter,
    session_name,
)

if TYPE_CHECKING:
    from flashfeed.agents.tracing import Tracing

log = logging.getLogger(__name__)
_ATTENTION = ("kv_type", "flash_attention")
END_MAX_S = 9.5
"""A service manager kills what has not stopped 10 s after it was asked, or later."""
_SPEED = tuple(field.name for field in dataclasses.fields(Tuned))


def run_worker(path: Path, trace: Path | None = None, verbose: bool = False) -> int:
    """Run until stopped; 0 after a clean stop, 1 where the worker could not go on, 2 where
    the configuration is wrong. Why stands in the log, except what is wrong in the file
    itself (the log's own settings are in it): that is raised as ConfigError."""
    config = load(path)
    set_up(config.log, verbose)
    try:
        return asyncio.run(_run(config, trace))
    except FlashfeedError as error:
        log.critical("%s", error)
        return 2 if isinstance(error, ConfigError) else 1
    except Exception:
        log.critical("the worker failed", exc_info=True)
        return 1


def engine_settings(
    engine: EngineConfig, model: Path, tuned: Tuned | None = None
) -> EngineSettings:
    """The engine's settings: the configuration's, where it leaves one to the machine those
    of `tuned`, else the engine's own. Raises ConfigError where they contradict one another.
    """
    written = {name: getattr(engine, name) for name in _SPEED if getattr(engine, name)}
    written = {name: value for name, value in written.items() if value != "auto"}
    measured = dataclasses.asdict(tuned) if tuned else {}
    if "kv_type" in written or "flash_attention" in written:
        # They were chosen together: llama.cpp refuses q8_0 without flash attention.
        measured = {key: measured[key] for key in measured if key not in _ATTENTION}
    return EngineSettings(
        model_path=model,
        gpu_layers=engine.gpu_layers,
        context_tokens=engine.context_tokens,
        batch_tokens=engine.batch_tokens,
        sessions_max=engine.sessions_max,
        seats_max=engine.seats_max,
        kv_bytes_max=engine.kv_bytes_max,
        snapshots=Path(engine.snapshots).expanduser() if engine.snapshots else None,
        snapshot_bytes_max=engine.snapshot_bytes_max,
        snapshot_interval_s=engine.snapshot_interval_s,
        **{**measured, **written},
    )


def tuned_for(engine: EngineConfig, model: Path) -> Tuned | None:
    """What `flashfeed tune` chose for the model on this machine, and a line in the log."""
    record = recall(tuned_file(model, engine.gpu_layers))
    if record is None:
        log.info("%s is not tuned; flashfeed tune measures it in about a minute", model.name)
        return None
    chosen = ", ".join(f"{key} {value}" for key, value in dataclasses.asdict(record.tuned).items())
    log.info("tuned for this machine, where the configuration leaves it open: %s", chosen)
    return record.tuned


def locate_models(config: Config, models: Catalogue, hidden_states: bool = False) -> Locate:
    """Finds the models that sessions name beside the default one; downloads where it must."""

    def locate(reference: str) -> tuple[str, EngineSettings]:
        name, source = models.resolve(reference)
        path = fetch(source, models.limits, progress=log.info)
        options = engine_of(config, name)
        settings = engine_settings(options, path, tuned_for(options, path))
        settings = dataclasses.replace(settings, hidden_states=hidden_states)
        return (DEFAULT if name == models.default else name), settings

    return locate


def feeds_of(config: Config, outside: Outside) -> list[Feed]:
    """The configuration's feeds, compiled."""
    feeds = []
    for name, feed in config.feeds.items():
        spec = feed_mapping(name, feed)
        mapping = Mapping(spec)
        beside = dataclasses.replace(outside, fields=mapping.fields)
        feeds.append(
            Feed(
                name=name,
                template=feed.template,
                type=spec.model,
                codec=codec(*codec_of(feed.preset, feed.codec, feed.codec_options), beside),
                mapping=mapping,
                session_id=session_name(feed),
                tenant=config.templates[feed.template].tenant,
                admits=session_filter(feed),
            )
        )
    return feeds


def engine_for(config: Config, **changes: Any) -> Engine:
    """The configuration's engine, not started; its model is downloaded where it is not here.
    `changes` to its settings go before what is configured."""
    models = catalogue(config)
    path = fetch(models.named[models.default], models.limits, progress=log.info)
    options = default_engine(config)
    settings = engine_settings(options, path, tuned_for(options, path))
    return Engine(
        dataclasses.replace(settings, **changes),
        locate_models(config, models, changes.get("hidden_states", False)),
        config.models.bytes_max,
        config.models.idle_unload_s,
    )


def tracing_of(config: Config) -> Tracing | None:
    """What follows records, where the configuration says so: only then it is imported.

    Raises ConfigError where it is not installed.
    """
    traces = config.traces
    if traces is None or not traces.enabled:
        return None
    if os.getenv("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        from flashfeed.agents.tracing import Tracing
    except ImportError as error:
        raise ConfigError(
            f"traces: {error.name} is not installed; try: pip install 'flashfeed[traces]'"
        ) from None
    return Tracing(config, traces)


async def _run(config: Config, trace: Path | None) -> int:
    bridge_options = bridge_settings(config)
    peers = cluster_peers(config)
    tracing = tracing_of(config)
    if tracing is not None:
        show_traces(tracing.current)
    hidden = config.learns and config.learning.hidden_states
    engine = engine_for(config, trace=trace, hidden_states=hidden)
    engine.start()
    tenants = bridge_options.keys.tenants
    worker = Worker(config, engine, partial(feeds_of, config), peers, tenants, tracing)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    servers: list[BridgeServer] = []
    why: list[Exception] = []

    async def serve() -> None:
        service = await worker.start()
        calm_collector()
        if config.bridge.enabled:
            cluster = Cluster(service.everywhere, peers) if peers is not None else None
            provider = tracing.provider if tracing is not None else None
            app = create_app(service, bridge_options, cluster, worker.health, provider)
            server = BridgeServer(app, config.bridge.host, config.bridge.port)
            servers.append(server)
            await server.start()
            scheme = "https" if bridge_options.tls else "http"
            log.info("bridge on %s://%s:%d", scheme, config.bridge.host, server.port)
        worker.claims.announce(advertised_url(config, servers[0].port if servers else 0))
        try:
            await worker.failed()
        except Exception as error:
            why.append(error)

    serving = asyncio.create_task(serve(), name="worker")
    stopped = asyncio.create_task(stop.wait(), name="wait for a signal")
    try:
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()  # raises where it could not start
    finally:
        end_within(END_MAX_S, 0 if stop.is_set() else 1)
        stopping = Stopping(STOP_MAX_S)
        serving.cancel()
        await asyncio.wait({serving}, timeout=1.0)
        for server in servers:
            await stopping.part("the bridge", server.stop(), 4.0)
        await worker.stop(stopping)
        if peers is not None:
            await stopping.part("the way to other workers", peers.close(), 1.0)
        await stopping.part("the engine", engine.stop(), STOP_MAX_S)
        if tracing is not None:
            await stopping.part("the traces", asyncio.to_thread(tracing.close), 2.0)
    for one in why:  # again, behind what its parts said as they stopped: it is looked for last
        log.critical("%s", one if isinstance(one, FlashfeedError) else repr(one))
    return 0 if stop.is_set() else 1


def end_within(seconds: float, code: int) -> None:
    """End this process after so long with that exit code, whatever hangs then."""

    def end() -> None:
        log.warning("it did not stop within %.1f s, and is ended as it is", seconds)
        logging.shutdown()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
