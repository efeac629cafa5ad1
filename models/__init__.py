"""The vocabulary of flashfeed: values only, no I/O, no clock, no state.

record    one typed observation: a candle, a reading, a set of vitals (records.py)
feed      topics somebody already has, and how their messages map to records (feed.py)
session   one stream's long-lived context in the engine, made from a spec (session.py)
window    which of a session's items its context holds now (window.py)
flash query  a standing question of a session, answered after every update (session.py)
message   what is written to `flashfeed.records`, a session's only history (messages.py)
event     what comes out: flash_ready, data_updated, the latest answer (events.py)

May import nothing of flashfeed but itself. Read records.py first, then session.py.
"""
