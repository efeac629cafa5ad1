"""What may be a label: names of the configuration, and no others. Pure.

What a tenant calls its own questions and answers is nobody else's to read, and every name
that somebody makes up would be a series for ever: these are all `other`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from flashfeed.models.config import Config

from .tenancy import PART_SEPARATOR

OTHER: Final = "other"


class MetricNames:
    """The tenants, feeds and questions that have labels of their own; of each question the
    choices that it may be answered with."""

    def __init__(
        self,
        tenants: Collection[str] = (),
        feeds: Collection[str] = (),
        queries: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._tenants = frozenset(tenants)
        self._feeds = frozenset(feeds)
        self._queries = {name: frozenset(values) for name, values in (queries or {}).items()}

    @classmethod
    def of(cls, config: Config, tenants: Collection[str] = ()) -> MetricNames:
        """The configuration's names; `tenants` are those that have keys."""
        queries: dict[str, set[str]] = {}
        for template in config.templates.values():
            for query in template.spec().flash:
                queries.setdefault(query.label, set()).update(query.choices)
        own = {template.tenant for template in config.templates.values()}
        return cls({*tenants, *own}, config.feeds, queries)

    def tenant(self, name: str) -> str:
        """A tenant; a part of one is the whole tenant."""
        whole = name.partition(PART_SEPARATOR)[0]
        return whole if not whole or whole in self._tenants else OTHER

    def feed(self, name: str) -> str:
        """A feed; "" where none brought it."""
        return name if not name or name in self._feeds else OTHER

    def query(self, label: str) -> str:
        """A standing question."""
        return label if label in self._queries else OTHER

    def value(self, label: str, value: str) -> str:
        """A question's answer where it is one of its choices; "" of a free text, and of a
        question that is not the configuration's."""
        choices = self._queries.get(label, frozenset[str]())
        return value if value in choices else OTHER if choices else ""
