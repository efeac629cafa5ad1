"""Resident llama.cpp sessions that answer standing questions in the pass of an update.

sequence  one sequence id of a llama_context: a list of tokens at positions 0, 1, ...
position  a token's place in its sequence; a session's next token goes to its length
cell      one token's keys and values in the cache; forks share the session's cells
fork      a sequence that begins as a session's tokens and goes on with a question

A step is plan, run, settle: `plan.py` makes passes of tokens (pure), `context.py` runs
one (the only C call that computes, after `plan.check_pass`), `answer.py` and `score.py`
make answers of the logits (pure). `update.py` is the three in order: read it first.
`scheduler.py` is the thread, `engine.py` what asyncio sees of it, `sessions.py` who
holds which sequence, `model.py` and `chat.py` text to tokens, `generate.py` generations,
`packaged_model.py` where the model comes from.

Knows nothing of Kafka or HTTP; may import flashfeed.models only.

    engine = Engine(EngineSettings(model_path=path))
    engine.start()
    await engine.open("AAPL", spec)
    update = await engine.update("AAPL", ["close 150.70 +0.3%"], spec.flash)
    async for piece in engine.generate("AAPL", "What happened?", GenerateOptions()):
        print(piece.text, end="")
    await engine.stop()
"""

from .context import DecodeFailed
from .engine import Engine, Inspection
from .packaged_model import fastest_form, find_packaged_model
from .plan import PlanFault
from .settings import EngineSettings, Limits
from .update import Update

__all__ = [
    "DecodeFailed",
    "Engine",
    "EngineSettings",
    "Inspection",
    "Limits",
    "PlanFault",
    "Update",
    "fastest_form",
    "find_packaged_model",
]
