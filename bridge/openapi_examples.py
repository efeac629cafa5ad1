"""Example answers for the OpenAPI document: what a real worker answered, in examples.json.

The file has, by route (`GET /v1/models`) and content type, one answer. Routes that give
an example of their own keep it. A test asks a worker the same again and holds the shapes
against the file; with --write-examples it writes the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import FastAPI

FILE: Final = Path(__file__).with_name("examples.json")


def add_examples(app: FastAPI) -> None:
    """Let the app's document show an answer of every route."""
    described = app.openapi

    def document() -> dict[str, Any]:
        fresh = app.openapi_schema is None
        whole = described()
        if fresh:
            _fill(whole)
        return whole

    app.openapi = document  # type: ignore[method-assign]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation of a document, by method and path."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def _fill(document: dict[str, Any]) -> None:
    examples = orjson.loads(FILE.read_bytes())
    for name, operation in operations(document):
        content = operation["responses"].get("200", {}).setdefault("content", {})
        for kind, example in examples.get(name, {}).items():
            content.setdefault(kind, {}).setdefault("example", example)
