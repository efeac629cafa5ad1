"""What is troubled: brokers, and workers that are real processes, each with links of its own to
every broker and a small disk of its own for snapshots."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from chaos_feed import LARGE_BYTES
from chaos_network import Link

from flashfeed.cli.embedded_broker import free_port
from flashfeed.cli.worker_process import start_worker, stop_worker, wait_until_ready
from flashfeed.models.errors import Unavailable

from kafka_cluster import Broker, Door, bootstrap, kafka_cluster

SECRET_ENV = "FLASHFEED_CHAOS_SECRET"
SOURCE, PARTITIONS = "candles", 4
DISK_MB_MIN = 48
"""A session takes some 5 MB."""
SUPERVISE_S = 0.3
READY_TRIES = 4
RESTART_S = 1.0
"""What keeps a worker alive in production waits so long as well."""
CONFIG = """
[kafka]
brokers = "{brokers}"
group = "chaos"
partitions = {partitions}
replication = {replication}
session_timeout_s = {session_timeout_s}

[bridge]
port = {port}

[cluster]
secret_env = "{secret_env}"

[engine]
context_tokens = 256
threads = 1
sessions_max = {sessions_max}
seats_max = {seats}
snapshots = "{snapshots}"
snapshot_bytes_max = {snapshot_bytes}
snapshot_interval_s = 5.0

[log]
format = "text"

[feeds.candles]
topics = ["{source}"]
model = "ohlcv"
key = "s"
time = "t:s"
map = {{ o = "o", h = "h", l = "l", c = "c", v = "v", sym = "s" }}
template = "market"
session = "{{key}}"

[templates.market]
type = "ohlcv"
prompt = "Watch."
text = "format:{{c:.0f}} {{change:+.0f}}"
window = {{ mode = "exact", items = 4 }}

[[templates.market.flash]]
name = "way"
query = "Up or down?"
choices = ["up", "down"]
calibrate = false
"""


class Disk:
    """The folder of a worker's snapshots: a tmpfs where we may mount one; elsewhere its
    process is forbidden to write files of any size, its log among them."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        folder.mkdir()
        folder.chmod(0o700)
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "chaos", str(folder)]
        self.mounted = (
            os.geteuid() == 0
            and subprocess.run(mount, check=False, capture_output=True).returncode == 0
        )

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self, process: subprocess.Popen[bytes]) -> None:
        """Leave no room."""
        if not self.mounted:
            _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, most))
            return
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 65_536)

    def clear(self, process: subprocess.Popen[bytes]) -> None:
        """Give the room back."""
        if not self.mounted:
            with contextlib.suppress(ProcessLookupError):
                _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
            return
        self._filler.unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


@dataclass
class Seat:
    """A worker's place: its process may be another one by and by. While `held` nobody starts
    it again. `exits` are the ends that nobody asked for, in the words of its log."""

    port: int
    config: Path
    log: Path
    links: list[Link]
    disk: Disk
    process: subprocess.Popen[bytes] | None = None
    held: bool = False
    exits: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its bridge's."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """Its process now."""
        assert self.process is not None
        return self.process

    def start(self) -> None:
        """Start it; returns before it is ready."""
        self.process = start_worker(self.config, self.log)

    def ready(self) -> None:
        """Wait until it answers; on a busy machine that may take a while."""
        for _ in range(READY_TRIES):
            try:
                wait_until_ready(self.port, self.running, self.log)
                return
            except Unavailable:
                if self.running.poll() is not None:
                    raise
        raise Unavailable(f"{self.log.parent.name} did not get ready")

    async def supervise(self) -> None:
        """Start it again whenever it has ended."""
        while True:
            await asyncio.sleep(SUPERVISE_S)
            if self.held or self.running.poll() is None:
                continue
            self.exits.append(f"code {self.running.returncode}: {last_word(self.log)}")
            await asyncio.sleep(RESTART_S)
            if not self.held and self.running.poll() is not None:
                self.start()


def last_word(log: Path) -> str:
    """Why a worker ended, as its log has it."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 60_000))
        lines = file.read().decode(errors="replace").splitlines()
    said = [line for line in lines if re.search(r"CRITICAL|Error\b", line)]
    return " | ".join(line.strip()[:300] for line in said[-3:]) or "nothing said"


@dataclass
class Rig:
    """Everything that runs. `began_s` is when faults and feed begin (time.time)."""

    brokers: list[Broker]
    seats: list[Seat]
    began_s: float = 0.0

    @property
    def bootstrap(self) -> str:
        """Where clients find the brokers; no fault stands between."""
        return bootstrap(self.brokers)

    @property
    def disk(self) -> str:
        """How a full disk is made."""
        return "tmpfs" if all(seat.disk.mounted for seat in self.seats) else "rlimit"

    def seconds(self) -> float:
        """Since it began."""
        return time.time() - self.began_s


async def make_source(brokers: str, replication: int) -> None:
    """The source's topic, which takes large records."""
    settings = {"max.message.bytes": str(2 * LARGE_BYTES)}
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(SOURCE, PARTITIONS, replication, topic_configs=settings)])
    await admin.close()


@contextlib.asynccontextmanager
async def rig(
    home: Path, workers: int, brokers: int, sessions: int, session_timeout_s: float
) -> AsyncIterator[Rig]:
    """Brokers with the source's topic, and workers, ready."""
    os.environ[SECRET_ENV] = "a secret of the workers under trouble"
    names = [f"W{number}" for number in range(workers)]
    doors = [
        {name: Door(free_port(), free_port()) for name in names} for _ in range(brokers)
    ]  # by broker
    size_mb = max(DISK_MB_MIN, 2 * sessions)
    seats: list[Seat] = []
    supervisors: list[asyncio.Task[None]] = []
    with contextlib.ExitStack() as stack:
        cluster = kafka_cluster(home, brokers, lambda number: doors[number - 1])
        running = await asyncio.to_thread(stack.enter_context, cluster)
        await make_source(bootstrap(running), min(3, brokers))
        try:
            for name in names:
                links = [Link(door[name].advertised, door[name].port) for door in doors]
                for link in links:
                    await link.start()
                folder = home / name
                folder.mkdir()
                port = free_port()
                disk = Disk(folder / "snapshots", size_mb)
                stack.callback(disk.remove)
                text = CONFIG.format(
                    brokers=",".join(f"127.0.0.1:{link.port}" for link in links),
                    partitions=PARTITIONS,
                    replication=min(3, brokers),
                    session_timeout_s=session_timeout_s,
                    port=port,
                    secret_env=SECRET_ENV,
                    sessions_max=sessions + 16,
                    seats=max(8, sessions // 4),
                    snapshots=disk.folder,
                    snapshot_bytes=size_mb * 700_000,
                    source=SOURCE,
                )
                config = folder / "flashfeed.toml"
                config.write_text(text)
                seats.append(Seat(port, config, folder / "worker.log", links, disk))
            for seat in seats:
                seat.start()
            for seat in seats:
                await asyncio.to_thread(seat.ready)
            supervisors = [asyncio.create_task(seat.supervise()) for seat in seats]
            yield Rig(running, seats)
        finally:
            for task in supervisors:
                task.cancel()
            await asyncio.gather(*supervisors, return_exceptions=True)
            for seat in seats:
                if seat.process is not None:
                    await asyncio.to_thread(stop_worker, seat.process)
                for link in seat.links:
                    await link.stop()
