"""The Llama Stack dialect, for llama-stack-client 0.0.35 to 0.7: its routers as one.

llama_stack_requests.py and llama_stack_words.py read what clients send;
llama_stack_store.py keeps agents, llama_stack_turns.py says what a turn is.
"""

from __future__ import annotations

from fastapi import APIRouter

from . import (
    llama_stack_admin,
    llama_stack_agents,
    llama_stack_inference,
    llama_stack_turn_routes,
)

router = APIRouter()
for _part in (
    llama_stack_agents,
    llama_stack_turn_routes,
    llama_stack_inference,
    llama_stack_admin,
):
    router.include_router(_part.router)
