"""The bridge: live sessions over HTTP, server-sent events and WebSocket.

One module a dialect over one session service (agents/service.py); no session logic
lives here. A dialect turns a request into a call of the service and the result into
its own words; it knows no engine and no other dialect. What a client pushes goes
through the service to `flashfeed.records`, as everything else does.

app.py          the app: gate, dialects, health, metrics; start reading here
server.py       uvicorn on the worker's event loop
caller.py       who makes a request: its tenant, and the sessions that this may use
gate.py         API keys, origins, the size of bodies: before any route
forward.py      requests for another worker's sessions, passed on (forward_socket.py for
                WebSockets, forwarded.py for how they are signed, peers.py for the way)
cluster.py      those that another worker passed on, taken in before the gate
body.py         a request's body that can be read twice
answers.py      a generation, whole or piece by piece, ended when its client goes
openai_messages.py  a conversation in OpenAI's words as the service takes it
openai_asker.py     whom a request asks: a session, or a model without data
openai.py           OpenAI's dialect: chat completions and the kept ones, completions,
openai_*.py         responses, conversations, models, embeddings; of each, `*_requests.py` checks
                    what is asked and `*_bodies.py` says the answer
llama_stack.py  Llama Stack's dialect, with llama_stack_*.py: agents and their turns,
                 inference, what the server says of itself
model_body.py   a model as every client reads it
errors.py       every error in one JSON envelope
request_ids.py  an id for every request
request_heads.py  HTTP whose heads are bounded in bytes and time
slow_clients.py  clients that do not read are cut off, whatever they speak
metrics.py      the bridge's own metrics
request_counts.py requests by route and code
sse.py          server-sent events
events.py       flashfeed's own event stream, which flashfeed.client reads
client/         flashfeed.client, for programs downstream: a package of its own
stats.py        statistics over a session's records; pure
anthropic_*.py  the Anthropic dialect: messages, requests, conversation, shapes
realm_*.py      the Realm WebSocket dialect: socket, frames, functions, pipelines,
                and sessions of other workers
health.py       whether the worker can serve: /health, /livez, /readyz
layerscale*.py  the LayerScale dialects 0.3 and 0.8; read layerscale.py first

May import models, and of agents the session service's contract alone; client/ models only.
"""
