"""Properties have no deadline here: on a busy machine any one example may take long. What a
codec may take is test_fuzz.py's business, in processor time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
