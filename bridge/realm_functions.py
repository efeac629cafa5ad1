"""What a Realm client may call: generate, pipeline, health, metadata.

Each function gives its replies as they come: streaming ones where they are asked for,
and at last a complete one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, TypeAlias

import msgspec

from flashfeed.agents.service import SessionService
from flashfeed.models.config import PipelineConfig
from flashfeed.models.errors import RequestError

from . import realm_frames as frames
from .realm_pipelines import one_question, run_pipeline

VERSION: Final = version("flashfeed")

Replies: TypeAlias = AsyncGenerator[tuple[frames.Status, dict[str, Any] | None]]


@dataclass(frozen=True)
class Caller:
    """Who calls: the key's own sessions, and the service that its chats belong to."""

    sessions: SessionService
    chats: SessionService
    pipelines: Mapping[str, PipelineConfig]
    started_s: float


@dataclass(frozen=True)
class Function:
    """A function as it is run and as it is described."""

    run: Callable[[Caller, Any], Replies]
    params: type[msgspec.Struct]
    description: str
    returns: str
    streaming: bool = False


def call(caller: Caller, name: str, params: dict[str, Any]) -> Replies:
    """Run a function by its name. Raises FunctionUnknown, RequestError."""
    function = FUNCTIONS.get(name)
    if function is None:
        known = ", ".join(FUNCTIONS)
        raise frames.FunctionUnknown(f"no function {name[:100]!r}; known: {known}")
    return function.run(caller, frames.read_params(params, function.params))


async def _generate(caller: Caller, params: frames.GenerateParams) -> Replies:
    began_s = time.monotonic()
    options = params.options()
    pieces = (
        caller.sessions.generate(params.session_id, params.prompt, options)
        if params.session_id
        else caller.chats.chat(one_question(params.prompt), options, params.model)
    )
    texts: list[str] = []
    index = 0
    async with aclosing(pieces):
        async for piece in pieces:
            ended = piece.finish_reason is not None
            if piece.finish_reason == "cancelled":
                yield "cancelled", None
                return
            texts.append(piece.text)
            if params.stream and (piece.text or ended):
                yield "streaming", frames.token(piece.text, index, ended)
                index += 1
            last = piece
    yield (
        "complete",
        {
            "text": "".join(texts),
            "tokens_generated": last.n_tokens,
            "prompt_tokens": last.prompt_tokens,
            "time_ms": _since_ms(began_s),
        },
    )


async def _pipeline(caller: Caller, params: frames.PipelineParams) -> Replies:
    began_s = time.monotonic()
    pipeline = caller.pipelines.get(params.pipeline)
    if pipeline is None:
        known = ", ".join(sorted(caller.pipelines)) or "none"
        raise RequestError(f"no pipeline {params.pipeline[:100]!r}; known: {known}")
    steps: list[dict[str, Any]] = []
    written = 0
    results = run_pipeline(pipeline, params.input, caller.chats, caller.sessions)
    async with aclosing(results):
        async for result in results:
            step = {"text": result.text, "model_id": result.model_id, "step": result.step}
            steps.append(step)
            written += result.n_tokens
            if params.stream:
                yield "streaming", step
    yield (
        "complete",
        {
            "pipeline": params.pipeline,
            "text": steps[-1]["text"],
            "steps": steps,
            "tokens_generated": written,
            "time_ms": _since_ms(began_s),
        },
    )


async def _health(caller: Caller, _: frames.NoParams) -> Replies:
    yield (
        "complete",
        {
            "status": "healthy" if caller.sessions.ready else "unhealthy",
            "version": VERSION,
            "uptime_seconds": int(time.monotonic() - caller.started_s),
        },
    )


async def _metadata(caller: Caller, _: frames.NoParams) -> Replies:
    yield (
        "complete",
        {
            "version": VERSION,
            "functions": [_described(name, one) for name, one in FUNCTIONS.items()],
            "models": [model.id for model in caller.sessions.models()],
            "pipelines": [
                {"name": name, "description": one.description, "steps": len(one.steps)}
                for name, one in sorted(caller.pipelines.items())
            ],
        },
    )


def _described(name: str, function: Function) -> dict[str, Any]:
    """A function with its parameters, as its own model has them."""
    schema = msgspec.json.schema(function.params)
    [described] = schema["$defs"].values()
    required = described.get("required", [])
    params = []
    for param, about in described["properties"].items():
        kinds = [one["type"] for one in about.get("anyOf", [about])]
        kind = "|".join(kinds)
        entry = {
            "name": param,
            "type": kind,
            "param_type": kind,
            "description": about.get("description", ""),
            "required": param in required,
        }
        params.append(entry | ({"default": about["default"]} if "default" in about else {}))
    return {
        "name": name,
        "description": function.description,
        "params": params,
        "returns": function.returns,
        "streaming": function.streaming,
    }


def _since_ms(began_s: float) -> int:
    return int((time.monotonic() - began_s) * 1000)


FUNCTIONS: Final = {
    "generate": Function(
        _generate,
        frames.GenerateParams,
        "Answer a prompt.",
        "{text, tokens_generated, prompt_tokens, time_ms}",
        streaming=True,
    ),
    "pipeline": Function(
        _pipeline,
        frames.PipelineParams,
        "Run a chain of prompts that the worker's configuration names.",
        "{pipeline, text, steps: [{text, model_id, step}], tokens_generated, time_ms}",
        streaming=True,
    ),
    "health": Function(
        _health, frames.NoParams, "Whether the worker answers.", "{status, version, uptime_seconds}"
    ),
    "metadata": Function(
        _metadata,
        frames.NoParams,
        "The functions and their parameters, the models and the pipelines.",
        "{version, functions, models, pipelines}",
    ),
}
