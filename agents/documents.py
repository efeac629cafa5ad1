"""Documents of the dialects: small JSON values by tenant, kind and id.

A dialect that must remember something between two requests (an agent, a conversation, a
response that the next one goes on from) keeps it here, and not in a session.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from flashfeed.models.errors import RequestError

KIND_DOCUMENTS_MAX: Final = 2000
DOCUMENT_BYTES_MAX: Final = 512 * 1024

Body = dict[str, Any]


class MemoryDocuments:
    """The documents of every tenant; of a tenant's kind the least lately written go first."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], dict[str, bytes]] = {}

    def of(self, tenant: str) -> TenantDocuments:
        """One tenant's documents."""
        return TenantDocuments(self._kinds, tenant)


class TenantDocuments:
    """One tenant's documents."""

    def __init__(self, kinds: dict[tuple[str, str], dict[str, bytes]], tenant: str) -> None:
        self._kinds = kinds
        self._tenant = tenant

    async def put(self, kind: str, document_id: str, body: Body) -> None:
        """Write a document."""
        value = orjson.dumps(body)
        if len(value) > DOCUMENT_BYTES_MAX:
            raise RequestError(
                f"{kind} {document_id}: expected at most {DOCUMENT_BYTES_MAX} bytes, "
                f"got {len(value)}"
            )
        documents = self._kinds.setdefault((self._tenant, kind), {})
        documents.pop(document_id, None)
        documents[document_id] = value
        while len(documents) > KIND_DOCUMENTS_MAX:
            del documents[next(iter(documents))]

    def get(self, kind: str, document_id: str) -> Body | None:
        """The document, None where there is none."""
        value = self._kinds.get((self._tenant, kind), {}).get(document_id)
        return None if value is None else orjson.loads(value)

    def list(self, kind: str) -> list[tuple[str, Body]]:
        """Every document of a kind with its id, oldest first."""
        documents = self._kinds.get((self._tenant, kind), {})
        return [(document_id, orjson.loads(value)) for document_id, value in documents.items()]

    async def delete(self, kind: str, document_id: str) -> bool:
        """Remove a document; whether there was one."""
        return self._kinds.get((self._tenant, kind), {}).pop(document_id, None) is not None
