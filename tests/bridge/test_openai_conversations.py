"""A conversation that several change at once, over a log as slow as Kafka's."""

import asyncio

from flashfeed.agents.documents import Shelf, TenantDocuments
from flashfeed.bridge.openai_responses_kept import CONVERSATION, add_items, kept_conversation


class SlowLog:
    """Has what is written after a while."""

    def __init__(self, shelf):
        self._shelf = shelf

    async def put(self, *entries):
        await asyncio.sleep(0.01)
        for key, value in entries:
            self._shelf.take(key, value)


async def test_items_that_come_at_once_are_all_kept():
    shelf = Shelf()
    log = SlowLog(shelf)
    # Each request has documents of its own over the one shelf.
    await TenantDocuments(shelf, log, "t").put(CONVERSATION, "c", {"items": []})
    await asyncio.gather(
        *(add_items(TenantDocuments(shelf, log, "t"), "c", [{"id": n}]) for n in range(5))
    )
    kept = kept_conversation(TenantDocuments(shelf, log, "t"), "c")
    assert [item["id"] for item in kept["items"]] == list(range(5))
