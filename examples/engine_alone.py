"""The engine without Kafka or HTTP, on real candles: python examples/engine_alone.py

The answers are as the model says them; in a worker heads/prior.py corrects them.
"""

import asyncio

from flashfeed.cli.sample_data import candles
from flashfeed.codecs.registry import text_codec
from flashfeed.engine import Engine, EngineSettings, fastest_form, find_packaged_model
from flashfeed.models.generation import GenerateOptions
from flashfeed.models.records import Ohlcv
from flashfeed.models.session import FlashQuery, SessionSpec, WindowSpec

codec = text_codec("ohlcv", "ohlcv")
spec = SessionSpec(
    type="ohlcv",
    prompt=f"You watch the daily candles of Apple's stock. {codec.legend}",
    window=WindowSpec("exact", items=20),  # answers see the last 20 to 39 days
    flash=(
        FlashQuery("Is the trend bullish or bearish?", "trend", ("bullish", "bearish")),
        FlashQuery("Is the volume high or low?", "volume", ("high", "low")),
    ),
)
days = [
    Ohlcv(o=row["open"], h=row["high"], l=row["low"], c=row["close"], v=row["volume"])
    for row in candles("AAPL")
]
memory, lines = None, []
for day in days[:50]:
    lines.append(codec.render(day, memory))  # a line may refer to those before it
    memory = codec.remember(memory, day)


async def main() -> None:
    async with Engine(EngineSettings(model_path=fastest_form(find_packaged_model()))) as engine:
        await engine.open("AAPL", spec)
        await engine.update("AAPL", lines[:40], queries=())  # its history: nothing is asked yet
        for line in lines[40:]:
            update = await engine.update("AAPL", [line])
            print(f"{line.strip():28}", end="")
            for query, answer in zip(spec.flash, update.answers, strict=True):
                print(f"  {query.name} {answer.value} {answer.confidence:.2f}", end="")
            print(f"  ({update.ingest_tokens + update.question_tokens} tokens)")
        asked = "How did the stock do?"
        async for piece in engine.generate("AAPL", asked, GenerateOptions(max_tokens=48)):
            print(piece.text, end="", flush=True)
        print()


asyncio.run(main())
