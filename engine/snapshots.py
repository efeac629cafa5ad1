"""stub"""

from __future__ import annotations

from .model import Model
from .sessions import Seat, Session
from .settings import EngineSettings


class Snapshots:
    def __init__(self, settings: EngineSettings, model: Model) -> None:
        pass

    def save(self, session: Session) -> bool:
        return False

    def restore(self, session: Session, seat: Seat, start: int) -> bool:
        return False
