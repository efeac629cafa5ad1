"""Print each answer of flashfeed as it comes: python examples/consume_answers.py HOST:PORT"""

import asyncio
import sys

import orjson
from aiokafka import AIOKafkaConsumer


async def main(brokers: str) -> None:
    async with AIOKafkaConsumer("flashfeed.flash_ready", bootstrap_servers=brokers) as answers:
        async for record in answers:
            answer = orjson.loads(record.value)
            if answer["changed"]:
                print(answer["session_id"], answer["name"], answer["value"], answer["confidence"])


asyncio.run(main(sys.argv[1]))
