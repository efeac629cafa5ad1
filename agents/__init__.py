"""The Faust app: existing topics in, sessions kept, events out.

Read app.py first (the wiring: every topic and agent, no logic), then feeds.py,
partitions.py and session_owner.py; a session's step is plan, run, settle (session_step.py
says where). May import models, codecs, engine and heads. Where offsets are committed:
transport.py over offsets.py. What a bad record becomes: dead_letters.py.
"""
