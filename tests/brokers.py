"""A broker of either kind for tests that hold on both: without transactions, and with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from flashfeed.cli.embedded_broker import embedded_broker

from apache_kafka import available, kafka_node

APACHE: Final = "apache"
NEEDS_KAFKA: Final = pytest.mark.skipif(not available(), reason="needs java, mvn and openssl")
KINDS: Final[list[Any]] = ["embedded", pytest.param(APACHE, marks=NEEDS_KAFKA)]


@contextmanager
def broker_of(kind: str, home: Path) -> Iterator[str]:
    """`host:port` of an embedded broker, or of an Apache Kafka node."""
    if kind == APACHE:
        with kafka_node(home) as node:
            yield node.plain
    else:
        with embedded_broker() as brokers:
            yield brokers
