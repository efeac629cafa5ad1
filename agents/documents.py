"""Documents of the dialects: small JSON values by tenant, kind and id.

A dialect that must remember something between two requests (an agent, a conversation, a
response that the next one goes on from) keeps it here, and not in a session. They are
kept on `flashfeed.documents`, which every worker follows: the key is tenant/kind/id, the
value the document. All workers read the same order, and so let the same documents go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote
from weakref import WeakValueDictionary

import orjson

from flashfeed.models.errors import RequestError

log = logging.getLogger(__name__)

KIND_DOCUMENTS_MAX: Final = 2000
KIND_BYTES_MAX: Final = 64 * 1024 * 1024
DOCUMENT_BYTES_MAX: Final = 512 * 1024
NAME_CHARS_MAX: Final = 512

Body = dict[str, Any]


class Log(Protocol):
    """Where documents are written, by key; None erases one. Done when the shelf has it."""

    async def put(self, *entries: tuple[bytes, bytes | None]) -> None:
        """Write entries in order."""


@dataclass(slots=True)
class _Kind:
    """One tenant's documents of one kind, the least lately written first."""

    values: dict[str, bytes] = field(default_factory=dict)
    bytes_held: int = 0

    def remove(self, document_id: str) -> None:
        self.bytes_held -= len(self.values.pop(document_id, b""))

    def add(self, document_id: str, value: bytes) -> None:
        self.remove(document_id)
        self.values[document_id] = value
        self.bytes_held += len(value)

    def beyond(self, document_id: str, value: bytes) -> list[str]:
        """Which documents have no room beside a new one."""
        before = self.values.get(document_id)
        count = len(self.values) + (before is None)
        size = self.bytes_held - len(before or b"") + len(value)
        gone: list[str] = []
        for name, kept in self.values.items():
            if count <= KIND_DOCUMENTS_MAX and size <= KIND_BYTES_MAX:
                break
            if name != document_id:
                gone.append(name)
                count, size = count - 1, size - len(kept)
        return gone


class Shelf:
    """The documents of every tenant as the topic gives them. Pure. Of a tenant's kind the
    least lately written go first, whoever reads."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock]
        self._turns = WeakValueDictionary()

    def turn(self, tenant: str, kind: str, document_id: str) -> asyncio.Lock:
        """Held by who changes a document; it is there for as long as anybody wants it."""
        return self._turns.setdefault((tenant, kind, document_id), asyncio.Lock())

    def take(self, key: bytes, value: bytes | None) -> None:
        """Note a message of the topic; one that is no document's is logged and left out: of a
        kind they are listed together, and one that cannot be read would hide the others."""
        try:
            tenant, kind, document_id = document_of(key)
            if value is not None and not isinstance(orjson.loads(value), dict):
                raise ValueError("expected an object")
        except ValueError as error:
            log.error("flashfeed.documents, %r: left out: not a document: %s", key, error)
            return
        documents = self._kinds.setdefault((tenant, kind), _Kind())
        if value is None:
            documents.remove(document_id)
        else:
            for gone in documents.beyond(document_id, value):
                documents.remove(gone)
            documents.add(document_id, value)
        if not documents.values:
            del self._kinds[tenant, kind]

    def kind(self, tenant: str, kind: str) -> dict[str, bytes]:
        """A tenant's documents of a kind by id, oldest first."""
        documents = self._kinds.get((tenant, kind))
        return documents.values if documents else {}

    def beyond(self, tenant: str, kind: str, document_id: str, value: bytes) -> list[str]:
        """Which documents a new one pushes out."""
        documents = self._kinds.get((tenant, kind))
        return documents.beyond(document_id, value) if documents else []


class TenantDocuments:
    """One tenant's documents: the Documents of the session service."""

    def __init__(self, shelf: Shelf, written: Log, tenant: str) -> None:
        self._shelf = shelf
        self._log = written
        self._tenant = tenant

    async def put(self, kind: str, document_id: str, body: Body) -> None:
        """Write a document; done when Kafka has it, and `get` too.

        Raises RequestError where it is too large, its id is none, or JSON has no room for
        what is in it (half a surrogate pair, an integer beyond 64 bits, too deep nesting).
        """
        value = _written(f"{kind} {document_id}", body)
        if len(value) > DOCUMENT_BYTES_MAX:
            raise RequestError(
                f"{kind} {document_id}: expected at most {DOCUMENT_BYTES_MAX} bytes, "
                f"got {len(value)}"
            )
        if not 0 < len(document_id) <= NAME_CHARS_MAX or not _whole(document_id):
            raise RequestError(
                f"{kind}: expected an id of 1 to {NAME_CHARS_MAX} whole characters, "
                f"got {document_id[:NAME_CHARS_MAX]!r}"
            )
        # What has no room is erased from the topic too, or compaction would keep it.
        gone = self._shelf.beyond(self._tenant, kind, document_id, value)
        erased = [(document_key(self._tenant, kind, one), None) for one in gone]
        await self._log.put(*erased, (document_key(self._tenant, kind, document_id), value))

    async def change(
        self, kind: str, document_id: str, change: Callable[[Body], Body]
    ) -> Body | None:
        """Write what `change` makes of a document, one change after the other; None where
        there is none."""
        async with self._shelf.turn(self._tenant, kind, document_id):
            body = self.get(kind, document_id)
            if body is None:
                return None
            changed = change(body)
            await self.put(kind, document_id, changed)
            return changed

    def get(self, kind: str, document_id: str) -> Body | None:
        """The document, None where there is none."""
        value = self._shelf.kind(self._tenant, kind).get(document_id)
        return None if value is None else orjson.loads(value)

    def list(self, kind: str) -> list[tuple[str, Body]]:
        """Every document of a kind with its id, oldest first."""
        documents = self._shelf.kind(self._tenant, kind)
        return [(document_id, orjson.loads(value)) for document_id, value in documents.items()]

    async def delete(self, kind: str, document_id: str) -> bool:
        """Remove a document; whether there was one."""
        if document_id not in self._shelf.kind(self._tenant, kind):
            return False
        await self._log.put((document_key(self._tenant, kind, document_id), None))
        return True


class MemoryDocuments:
    """Documents that no topic keeps: what a bridge without Kafka has."""

    def __init__(self) -> None:
        self._shelf = Shelf()

    def of(self, tenant: str) -> TenantDocuments:
        """One tenant's documents."""
        return TenantDocuments(self._shelf, self, tenant)

    async def put(self, *entries: tuple[bytes, bytes | None]) -> None:
        """Write entries in order."""
        for key, value in entries:
            self._shelf.take(key, value)


def _written(name: str, body: Body) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        if str(error).startswith("Type is not"):  # a fault of ours: no caller can send one
            raise
        raise RequestError(f"{name!r}: expected what JSON in UTF-8 can hold: {error}") from None


def _whole(text: str) -> bool:
    """Whether no character of a text is half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def document_key(tenant: str, kind: str, document_id: str) -> bytes:
    """A document's key: tenant/kind/id, each without a slash of its own."""
    return "/".join(quote(part, safe="") for part in (tenant, kind, document_id)).encode()


def document_of(key: bytes) -> tuple[str, str, str]:
    """The tenant, kind and id of a key; raises ValueError where it is none."""
    tenant, kind, document_id = key.decode().split("/")
    return unquote(tenant), unquote(kind), unquote(document_id)
