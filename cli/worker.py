"""`flashfeed worker`: engine, Faust app and bridge in one process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from flashfeed.agents.app import Worker
from flashfeed.agents.feeds import Feed
from flashfeed.bridge.app import create_app
from flashfeed.bridge.server import BridgeServer
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.registry import decoder
from flashfeed.engine import Engine, EngineSettings
from flashfeed.engine.packaged_model import fastest_form, find_packaged_model
from flashfeed.models.config import Config, EngineConfig

from .settings import bridge_settings, feed_mapping, load, session_name

log = logging.getLogger(__name__)


def run_worker(path: Path, trace: Path | None = None) -> int:
    """Run until stopped; 0 after a clean stop, 1 where the worker could not go on."""
    return asyncio.run(_run(load(path), trace))


def model_path(engine: EngineConfig, say: Callable[[str], None]) -> Path:
    """The model's file; brings the packaged model into its fastest form first."""
    if engine.model == "packaged":
        return fastest_form(find_packaged_model(), progress=say)
    return Path(engine.model)


def engine_settings(engine: EngineConfig, model: Path) -> EngineSettings:
    """The engine's settings. Raises ConfigError where they contradict one another."""
    return EngineSettings(
        model_path=model,
        threads=engine.threads or None,
        gpu_layers=engine.gpu_layers,
        context_tokens=engine.context_tokens,
        batch_tokens=engine.batch_tokens,
        sessions_per_context=engine.sessions_per_context,
        sessions_max=engine.sessions_max,
    )


def feeds_of(config: Config) -> list[Feed]:
    """The configuration's feeds, compiled."""
    feeds = []
    for name, feed in config.feeds.items():
        spec = feed_mapping(name, feed)
        feeds.append(
            Feed(
                name=name,
                template=feed.template,
                type=spec.model,
                decode=decoder(feed.codec),
                mapping=Mapping(spec),
                session_id=session_name(feed),
            )
        )
    return feeds


async def _run(config: Config, trace: Path | None) -> int:
    bridge_options = bridge_settings(config)
    settings = engine_settings(config.engine, model_path(config.engine, log.info))
    settings = dataclasses.replace(settings, trace=trace)
    engine = Engine(settings)
    engine.start()
    worker = Worker(config, engine, feeds_of(config))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    server: BridgeServer | None = None
    code = 0
    try:
        service = await worker.start()
        if config.bridge.enabled:
            server = BridgeServer(
                create_app(service, bridge_options), config.bridge.host, config.bridge.port
            )
            await server.start()
            log.info("bridge on http://%s:%d", config.bridge.host, server.port)
        failed = asyncio.ensure_future(worker.failed())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({failed, stopped}, return_when=asyncio.FIRST_COMPLETED)
        code = 0 if stop.is_set() else 1
        for task in (failed, stopped):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
    finally:
        if server is not None:
            await server.stop()
        await worker.stop()
        await engine.stop()
    return code
