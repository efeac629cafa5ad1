"""Brokers of one Apache Kafka cluster as processes of this machine (KRaft, each controller and
broker), to be tried out (`make kafka`, `make kafka3`) and to be troubled (bench/chaos.py).

    python tests/kafka_cluster.py 3        prints where they are; stops with Ctrl-C
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flashfeed.cli.embedded_broker import free_port

from apache_kafka import format_node, start_node, wait_for_node

HEAP = "-Xmx256m"
FIRST_PORT = 9092
TERMINATE_S = 30.0


@dataclass(frozen=True)
class Door:
    """One more listener of a broker: where it listens, and where its clients find it, which
    may be a proxy."""

    port: int
    advertised: int


@dataclass
class Broker:
    """One node. `doors` are its listeners beside the plain one, by name."""

    number: int
    home: Path
    port: int
    controller: int
    doors: Mapping[str, Door] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again with what it stored; returns when it listens."""
        self.process = start_node(self.home, HEAP)
        wait_for_node(self.home, self.port, self.process)

    def stop(self) -> None:
        """Ask it to end: it hands its partitions over first."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(TERMINATE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)


def settings(broker: Broker, brokers: list[Broker]) -> str:
    """A node's server.properties. Three copies of everything, two of which must be there to
    write, where there are brokers enough."""
    replicas, in_sync = min(3, len(brokers)), min(2, len(brokers))
    voters = ",".join(f"{one.number}@127.0.0.1:{one.controller}" for one in brokers)
    doors = {"PLAIN": Door(broker.port, broker.port), **broker.doors}
    listeners = [f"{name}://127.0.0.1:{door.port}" for name, door in doors.items()]
    advertised = ",".join(f"{name}://127.0.0.1:{door.advertised}" for name, door in doors.items())
    protocols = ",".join(f"{name}:PLAINTEXT" for name in ("CONTROLLER", *doors))
    return f"""process.roles=broker,controller
node.id={broker.number}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
listeners=CONTROLLER://127.0.0.1:{broker.controller},{",".join(listeners)}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
inter.broker.listener.name=PLAIN
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
leader.imbalance.check.interval.seconds=10
leader.imbalance.per.broker.percentage=0
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=4000000
log.dirs={broker.home / "data"}
auto.create.topics.enable=false
"""


@contextlib.contextmanager
def kafka_cluster(
    home: Path,
    count: int,
    doors: Callable[[int], Mapping[str, Door]] = lambda _number: {},
    first_port: int = 0,
) -> Iterator[list[Broker]]:
    """A cluster of so many brokers, numbered from 1, once all listen. `doors` says what more
    listeners a broker has; `first_port` 0: any free ones."""
    brokers = []
    for number in range(1, count + 1):
        folder = home / f"broker{number}"
        folder.mkdir()
        port = first_port + number - 1 if first_port else free_port()
        brokers.append(Broker(number, folder, port, free_port(), doors(number)))
    for one in brokers:
        format_node(one.home, settings(one, brokers))
    try:
        for one in brokers:  # a node alone is no quorum: they come up together
            one.process = start_node(one.home, HEAP)
        for one in brokers:
            assert one.process is not None
            wait_for_node(one.home, one.port, one.process)
        yield brokers
    finally:
        # All at once: the last ones would wait in vain for a quorum to let them go.
        for one in brokers:
            if one.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    one.signal(signal.SIGCONT)
                one.kill()


def bootstrap(brokers: list[Broker]) -> str:
    """Where clients find the cluster."""
    return ",".join(f"127.0.0.1:{one.port}" for one in brokers)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with (
        tempfile.TemporaryDirectory(prefix="flashfeed-kafka-") as home,
        kafka_cluster(Path(home), count, first_port=FIRST_PORT) as brokers,
    ):
        print(f"Apache Kafka on {bootstrap(brokers)} (kept in {home} until it is stopped)")
        print("stop with Ctrl-C", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
