"""Requests for embeddings, one after the other, in a thread beside the sessions' own; what they
took is counted by tenant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from flashfeed.models.errors import Overloaded

from .embed import Vectors
from .homes import Homes
from .stats import Spent

EMBEDDINGS_WAITING_MAX: Final = 32


class EmbeddingQueue:
    """Any event loop may ask."""

    def __init__(self, threads: int) -> None:
        self._threads: Final = threads
        self._thread: Final = ThreadPoolExecutor(1, "flashfeed-embeddings")
        self._waiting = 0
        self.spent: dict[str, Spent] = {}
        """Tokens, and the seconds that llama.cpp worked on them. Written in the thread alone."""

    async def embed(
        self, homes: Homes, texts: Sequence[str], model: str, tenant: str = ""
    ) -> tuple[Vectors, int]:
        """A vector of length 1 for each text, and how many tokens they were. Raises
        Overloaded where too many wait, and what `embed.py` raises."""
        if self._waiting >= EMBEDDINGS_WAITING_MAX:
            raise Overloaded(
                f"{EMBEDDINGS_WAITING_MAX} requests for embeddings wait already; try again soon"
            )

        def run() -> tuple[Vectors, int]:
            with homes.embedding(model) as (embedding, settings, charge):
                tokens = [embedding.tokens(text, place) for place, text in enumerate(texts)]
                charge(embedding.context_bytes(tokens))
                began, n_tokens = time.perf_counter(), sum(map(len, tokens))
                vectors = embedding.embed(tokens, settings.threads or self._threads)
                spent = self.spent.setdefault(tenant, Spent())
                spent.tokens += n_tokens
                spent.seconds += time.perf_counter() - began
                return vectors, n_tokens

        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(self._thread, run)
        # Not when the caller goes: the work runs on.
        work.add_done_callback(self._ended)
        return await work

    def _ended(self, _: object) -> None:
        self._waiting -= 1
