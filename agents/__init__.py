"""The Faust app: existing topics in, sessions kept, events out.

Read app.py first (the wiring: every topic and agent, no logic), then feeds.py,
partitions.py and session_owner.py. May import models, codecs and engine. Where offsets
are committed: transport.py over offsets.py. What a bad record becomes: dead_letters.py.
"""
