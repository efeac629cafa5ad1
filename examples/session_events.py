"""Print a session's events: python examples/session_events.py http://HOST:PORT SESSION_ID"""

import asyncio
import sys

from flashfeed.client import SessionEvents


async def main(url: str, session_id: str) -> None:
    async with SessionEvents(url, session_id, standing=True) as events:
        async for event in events:
            print(event.id, event.data.data_version, getattr(event.data, "value", ""))


asyncio.run(main(*sys.argv[1:3]))
