"""Standing questions as tokens, remembered: the same question is tokenised once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from flashfeed.models.errors import RequestError
from flashfeed.models.session import FlashQuery

from .model import Model
from .plan import Asked

_REMEMBERED: Final = 1024


class Questions:
    """The tokenised questions of an engine, the least lately asked forgotten first."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: OrderedDict[FlashQuery, Asked] = OrderedDict()

    def asked(self, query: FlashQuery) -> Asked:
        """The question's tokens. Raises RequestError for a choice that has none."""
        known = self._known.get(query)
        if known is None:
            known = ask(self._model, query)
            self._known[query] = known
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(query)
        return known


def ask(model: Model, query: FlashQuery) -> Asked:
    """The question, the end of the turn, the assistant's header, and the choices.

    A choice is tokenised as it follows the header, without a space before it. Where one
    is the beginning of another, all get the end of the turn as their last token: else
    the longer could never be likelier than the shorter.
    """
    tokens = model.tokens(query.query) + model.tail
    choices = tuple(model.tokens(choice) for choice in query.choices)
    if not all(choices):
        raise RequestError(f"expected choices with text, got {query.choices!r}")
    if any(a is not b and b[: len(a)] == a for a in choices for b in choices):
        choices = tuple((*choice, model.end_of_turn) for choice in choices)
    return Asked(tokens, choices, query.max_tokens, shared=model.capabilities.cuts)
