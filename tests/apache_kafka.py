"""One Apache Kafka node (KRaft) as a process, for what the embedded broker cannot show.

The jars come from Maven Central once, into the cache. Needs Java 17 and Maven; a test
that wants it is skipped where they are missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flashfeed.cli.embedded_broker import die_with_parent, free_port

VERSION = "4.1.0"
USER, READER, PASSWORD = "alice", "rabbit", "wonder-land"
HEAP = "-Xmx400m"
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
LOGINS = "org.apache.kafka.common.security"
SCRAMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
AUTHORIZER = """authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>flashfeed</groupId><artifactId>kafka-jars</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId>
<version>{VERSION}</version></dependency></dependencies></project>"""


class Node(NamedTuple):
    """Where the node listens, and the authority that signed its certificate."""

    plain: str
    secure: str
    ca_file: Path


def available() -> bool:
    """Whether this machine can run Kafka."""
    return all(shutil.which(tool) for tool in ("java", "mvn", "openssl"))


def jars() -> Path:
    """The folder of Kafka's jars, filled the first time."""
    cache = Path(os.environ.get("FLASHFEED_CACHE") or Path.home() / ".cache" / "flashfeed")
    folder = cache / f"kafka-{VERSION}"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pom.xml").write_text(POM)
        command = ["mvn", "-q", "-B", "-f", str(folder / "pom.xml"), "dependency:copy-dependencies"]
        subprocess.run([*command, f"-DoutputDirectory={folder}"], check=True, timeout=300)
        (folder / "complete").touch()
    return folder


def certificates(home: Path) -> tuple[Path, Path]:
    """A throw-away authority and a key with its certificate for 127.0.0.1."""
    ca, key = home / "ca.pem", home / "ca.key"
    request, server_key = home / "server.csr", home / "server.key"
    signed, extensions = home / "server.pem", home / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1")
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    for command in (
        [*new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", str(key), "-out", str(ca)],
        [*new, "-subj", "/CN=127.0.0.1", "-keyout", str(server_key), "-out", str(request)],
        ["openssl", "x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(key),
         "-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(signed)],
    ):  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    bundle = home / "server-bundle.pem"
    bundle.write_text(server_key.read_text() + signed.read_text() + ca.read_text())
    return ca, bundle


@contextlib.contextmanager
def kafka_node(home: Path, transaction_replicas: int = 1, *, acls: bool = False) -> Iterator[Node]:
    """A node with a plain listener and one with TLS and SASL. With more than one replica wanted
    of what transactions are kept in it, alone, has none. `acls`: who comes by the second one
    may do nothing that was not granted, who comes by the plain one everything."""
    plain, secure, controller = free_port(), free_port(), free_port()
    ca, bundle = certificates(home)
    scrams = "".join(
        f"listener.name.secure.{one.lower()}.sasl.jaas.config="
        f"{LOGINS}.scram.ScramLoginModule required;\n"
        for one in SCRAMS
    )
    settings = f"""process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CONTROLLER://127.0.0.1:{controller},PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure}
advertised.listeners=PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,SECURE:SASL_SSL
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN,{",".join(SCRAMS)}
{scrams}listener.name.secure.plain.sasl.jaas.config={LOGINS}.plain.PlainLoginModule required \\
  user_{USER}="{PASSWORD}" user_{READER}="{PASSWORD}";
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={bundle}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={transaction_replicas}
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.dirs={home / "data"}
auto.create.topics.enable=false
{AUTHORIZER if acls else ""}"""
    users = [
        argument
        for one in SCRAMS
        for argument in ("--add-scram", f"{one}=[name={USER},password={PASSWORD}]")
    ]
    with kafka_process(home, settings, secure, *users):
        while not _listens(plain):  # they open one after the other
            time.sleep(0.1)
        yield Node(f"127.0.0.1:{plain}", f"127.0.0.1:{secure}", ca)


@contextlib.contextmanager
def kafka_process(home: Path, settings: str, port: int, *formatting: str) -> Iterator[None]:
    """A node of those settings (of server.properties), once it listens on the port."""
    format_node(home, settings, *formatting)
    process = start_node(home)
    try:
        wait_for_node(home, port, process)
        yield
    finally:
        process.terminate()
        process.wait(30)


def format_node(home: Path, settings: str, *formatting: str) -> None:
    """Give a node its settings and an empty storage."""
    file = home / "server.properties"
    file.write_text(settings)
    tool = [*_java(HEAP), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(file)]
    subprocess.run([*tool, *formatting], check=True, capture_output=True, timeout=60)


def start_node(home: Path, heap: str = HEAP) -> subprocess.Popen[bytes]:
    """Start a formatted node; it goes on with what its storage has, and ends when we do."""
    with (home / "kafka.log").open("ab") as sink:
        return subprocess.Popen(
            [*_java(heap), "kafka.Kafka", str(home / "server.properties")],
            stdout=sink,
            stderr=sink,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing else ties it to us)
        )


def _java(heap: str) -> list[str]:
    return ["java", heap, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{jars()}/*"]


def wait_for_node(home: Path, port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the node listens on the port; fails with the end of its log."""
    log = home / "kafka.log"
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        if _listens(port):
            return
        time.sleep(0.1)
    raise AssertionError(f"Kafka did not listen on {port}: {log.read_text()[-3000:]}")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
