"""Resident llama.cpp sessions that answer standing questions in the pass of an update.

Lines of text go in, answers with a confidence come out. Knows nothing of Kafka or HTTP; may
import flashfeed.models only. Alone, from Python (examples/engine_alone.py is whole):

    async with Engine(EngineSettings(model_path=fastest_form(find_packaged_model()))) as engine:
        await engine.open("AAPL", spec)
        update = await engine.update("AAPL", ["150.70 +0.3 29M"])
        for query, answer in zip(spec.flash, update.answers, strict=True):
            print(query.query, answer.value, answer.confidence)
        async for piece in engine.generate("AAPL", "What happened?"):
            print(piece.text, end="")

A call is a job in the engine's one thread. A step is plan, run, settle: passes of tokens are
planned, one is run, answers are made of its logits. `update.py` is the three in order: read
it first, then `scheduler.py`.

sequence  tokens at positions 0, 1, ... under one of a llama_context's sequence ids
position  a token's place in its sequence
cell      one token's keys and values in the KV cache; sequences that begin alike share cells
group     one llama_context: its seats, and its sequence ids to deal out
seat      a resident sequence: a prefix, then items of one session (an item is a line)
prefix    what never slides out (system prompt, frozen lines), once for a group's like seats
senior    the seat that answers
junior    under an exact window, the seat that takes over when the window moves
fork      a sequence that begins as a seat's and goes on with a question; gone with its round
branch    the same for a generation; a chat's stays for the conversation's next message
ask       runs of tokens that a job wants decoded in one context
turn      whose ask goes into the next pass (turns.py); in chat_turns.py one side's message
step      one pass of one context, with the asks whose turn it is

engine.py           what asyncio sees
settings.py         what an engine is made from; the limits of a context

  plan, run, settle
update.py           the job that updates a session and asks it
opening.py          the jobs that open a session and freeze its prefix
plan.py             which tokens go through the model in which passes
context.py          one llama_context; the only C call that computes, after every check
batch.py            a pass as C sees it; context_params.py: what a context is made with
hidden.py           the hidden states of a pass's outputs, where somebody reads them
answer.py score.py  a question on its way from logits to an answer; the numbers in it
questions.py        standing questions as tokens, remembered
steps.py            how a job speaks to the scheduler
turns.py            which waiting asks go into the next pass, and that nobody starves
scheduler.py        the engine's thread
stats.py            what is counted of it all, in plain numbers

  sessions, seats, windows
sessions.py         sessions (when a window moves: models/window.py)
seats.py            groups, and the seats, prefixes and branches in them
groups.py           which groups there are, and whether there is room for one more
pool.py             the open sessions; who is admitted, who is evicted
seat_queue.py       who waits for a seat, and whose turn it is
prefix_states.py    prefixes' KV as bytes, for other contexts
residency.py        making a session resident: prefix, window, junior
chores.py           what is done in the background, unasked

  snapshots
snapshots.py        when a session's KV is saved, and how it comes back
snapshot_file.py    the file's format, and whether it is to be believed
snapshot_store.py   the folder, bounded
snapshot_secret.py  what the files are signed with

  models
homes.py            the loaded models that sessions live on, with their settings
home_loads.py       those that are not loaded yet, once for all who wait
model_pool.py       loaded models inside a budget of bytes
model.py            one model's weights and vocabulary: text to tokens and back
tokeniser.py        in which pieces a text is handed to llama.cpp, and why
model_source.py     what a reference means: packaged, a path, hf:, https:, a name
model_download.py   https, from allowed hosts, resumed; model_hash.py: a file's SHA-256
token_count.py      tokens of a text by a file's vocabulary alone
model_probe.py      a file tried in a process of its own before it is used
gguf.py             a file's header: what the model is and will take
embed.py            texts as vectors, by models that give embeddings; embedding_queue.py: who waits
capabilities.py     what a kind of model can do here, and why not the rest
recurrent.py        what a recurrent state takes; checkpoints.py: which copies of it there are
ubatches.py         in which order a pass of such states is computed
packaged_model.py   the packaged model in its fastest form; alone.py: made by one process at a time

  generations, chat, tools
generate.py         a generation, in a branch
prompt.py           what it is asked, made ready
plain_chats.py      chats without a session's data, and the places they run in
sampler.py          the next token
writer.py           from logits to pieces; stop_text.py: whole characters, no stop string
chat.py             a model's chat template, cut into its pieces
chat_turns.py       a conversation as text after the data; turn_gaps.py: what is between turns
tool_guide.py       how the model is told of tools
tool_calls.py       the calls in what it writes; json_end.py: where a JSON value ends

  grammars
grammar.py          which tokens may come next
grammar_rules.py    rules compiled; grammar_nodes.py: what rules are written in
gbnf.py             llama.cpp's notation as rules
json_schema.py      a schema as rules; json_text.py, integer_range.py: JSON values, bounds

  measuring
tune.py tuned.py    `flashfeed tune`: what settings cost here; the choice, kept
measure.py          what a context's passes cost, and how true its logits stay
machine.py          which machine that holds for
trace.py replay.py  every pass written down; the same passes in a bare loop
"""

from .context import DecodeFailed
from .engine import Engine, Inspection
from .packaged_model import fastest_form, find_packaged_model
from .plan import PlanFault
from .settings import EngineSettings, Limits
from .stats import EngineStats
from .update import Update

__all__ = [
    "DecodeFailed",
    "Engine",
    "EngineSettings",
    "EngineStats",
    "Inspection",
    "Limits",
    "PlanFault",
    "Update",
    "fastest_form",
    "find_packaged_model",
]
