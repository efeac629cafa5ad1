"""The bridge: live sessions over HTTP, server-sent events and WebSocket.

One module a dialect over one session service (agents/service.py); no session logic
lives here. A dialect turns a request into a call of the service and the result into
its own words; it knows no engine and no other dialect. What a client pushes goes
through the service to `flashfeed.records`, as everything else does.

app.py          the app: gate, dialects, health, metrics; start reading here
server.py       uvicorn on the worker's event loop
gate.py         API keys, origins, the size of bodies: before any route
errors.py       every error in one JSON envelope
sse.py          server-sent events
stats.py        statistics over a session's records; pure
layerscale_v03*.py  the LayerScale 0.3 dialect: routes, requests, shapes, bodies,
                    generate, socket

May import models, and of agents the session service's contract alone.
"""
