"""What may be a label: names of the configuration, and no others. Pure.

What a tenant calls its own questions and answers is nobody else's to read, and every name
that somebody makes up would be a series for ever: these are all `other`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, TypeAlias

from flashfeed.models.config import Config

from .tenancy import PART_SEPARATOR

OTHER: Final = "other"
Scope: TypeAlias = tuple[str, str, str]
"""Tenant, feed and type: the labels of what sessions do."""


class MetricNames:
    """The tenants, feeds and questions that have labels of their own; of each question the
    choices that it may be answered with, and of each feed's scope the questions asked there."""

    def __init__(
        self,
        tenants: Collection[str] = (),
        feeds: Collection[str] = (),
        queries: Mapping[str, Collection[str]] | None = None,
        scopes: Mapping[Scope, Collection[str]] | None = None,
    ) -> None:
        self._tenants = frozenset(tenants)
        self._feeds = frozenset(feeds)
        self._scopes = {scope: frozenset(labels) for scope, labels in (scopes or {}).items()}
        self._queries = {name: frozenset(values) for name, values in (queries or {}).items()}

    @classmethod
    def of(cls, config: Config, tenants: Collection[str] = ()) -> MetricNames:
        """The configuration's names; `tenants` are those that have keys."""
        queries: dict[str, set[str]] = {}
        specs = {name: template.spec() for name, template in config.templates.items()}
        for spec in specs.values():
            for query in spec.flash:
                queries.setdefault(query.label, set()).update(query.choices)
        scopes: dict[Scope, list[str]] = {}
        for name, feed in config.feeds.items():
            # A template that is not there is told by what reads the feed.
            fed = specs.get(feed.template)
            if fed is not None:
                scopes[fed.tenant, name, fed.type] = [query.label for query in fed.flash]
        own = {spec.tenant for spec in specs.values()}
        return cls({*tenants, *own}, config.feeds, queries, scopes)

    # -- what there will be, so that its series are there from the start --------------

    @property
    def tenants(self) -> list[str]:
        """Every tenant, and "" for none."""
        return sorted({"", *self._tenants})

    @property
    def feeds(self) -> list[str]:
        """Every feed."""
        return sorted(self._feeds)

    @property
    def scopes(self) -> dict[Scope, list[str]]:
        """What each feed's sessions are, and their questions."""
        return {scope: sorted(labels) for scope, labels in self._scopes.items()}

    def values(self, label: str) -> list[str]:
        """What a question's answers may be as a label."""
        return sorted(self._queries.get(label, ())) or [""]

    # -- what may be a label ------------------------------------------------------------

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
