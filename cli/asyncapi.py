"""`flashfeed asyncapi`: what a worker reads and writes on Kafka, for other programs."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from flashfeed.agents.asyncapi import asyncapi_document
from flashfeed.models.config import Config

from .settings import load


def print_asyncapi(path: Path | None) -> int:
    """Print the AsyncAPI document of a configuration, as JSON."""
    document = asyncapi_document(load(path) if path else Config())
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    return 0
