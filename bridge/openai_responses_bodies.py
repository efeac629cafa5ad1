"""Responses in OpenAI's words. Pure."""

from __future__ import annotations

from typing import Any

from flashfeed.models.errors import FlashfeedError
from flashfeed.models.generation import GeneratedPiece

from .openai_bodies import Head, Json
from .openai_responses_requests import ResponseBody


def begun(head: Head, asked: ResponseBody) -> Json:
    """A response that is being written."""
    conversation = {"id": asked.conversation_id} if asked.conversation_id else None
    form = asked.text.format.model_dump(by_alias=True, exclude_unset=True)
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions or None,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "model": head.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls,
        "previous_response_id": asked.previous_response_id or None,
        "conversation": conversation,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": asked.store,
        "temperature": asked.temperature,
        "text": {"format": {"type": "text"} | form},
        "tool_choice": asked.tool_choice,
        "tools": [{"type": "function", "strict": True} | tool for tool in asked.tools],
        "top_logprobs": asked.top_logprobs,
        "top_p": asked.top_p,
        "truncation": asked.truncation,
        "usage": None,
        "user": asked.user or None,
        "metadata": asked.metadata,
    }


def ended(response: Json, items: list[Json], last: GeneratedPiece, completed_at: int) -> Json:
    """The response with what was written; incomplete where the tokens ran out."""
    cut = last.finish_reason == "length"
    return response | {
        "status": "incomplete" if cut else "completed",
        "completed_at": None if cut else completed_at,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": items,
        "usage": _usage(last),
    }


def failed(response: Json, error: FlashfeedError) -> Json:
    """The response after an error half-way."""
    code = "server_error" if error.status >= 500 else "invalid_prompt"
    if error.status == 429:
        code = "rate_limit_exceeded"
    return response | {"status": "failed", "error": {"code": code, "message": str(error)}}


def _usage(last: GeneratedPiece) -> dict[str, Any]:
    cached = last.cached_tokens
    written = last.prompt_tokens - cached  # a chat's tokens stay for its next turn
    return {
        "input_tokens": last.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": last.n_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": last.prompt_tokens + last.n_tokens,
    }
