"""The schema registry's REST API: a schema by the id that a message names.

Confluent's API and Apicurio's of versions 2 and 3 (`kind`). Fetching and caching only. A
schema never changes under its id, so what was fetched is kept; that an id is unknown is
believed for UNKNOWN_S. Only the registry's own answer that it has no such schema makes an
id unknown: a wrong URL, a wrong password or a proxy's error page is an outage.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from flashfeed.codecs.codec import RegistryKind, SchemaRef, SchemaText, SchemaWanted
from flashfeed.models.config import SchemaRegistryConfig
from flashfeed.models.errors import ConfigError, Unavailable, UnknownSchema

from .connection import secret

UNKNOWN_S: Final = 60.0
SCHEMAS_MAX: Final = 10_000
SCHEMA_BYTES_MAX: Final = 4_000_000
REFERENCES_MAX: Final = 200

Note = Callable[[str], None]


class SchemaRegistry:
    """The schemas at hand (codecs/codec.py's Schemas), and how more are brought."""

    def __init__(self, config: SchemaRegistryConfig, note: Note, now: Callable[[], float]) -> None:
        self.kind: RegistryKind = config.kind
        self.config = config
        self._note = note
        self._now = now
        self._known: dict[SchemaRef, SchemaText] = {}
        self._unknown: dict[SchemaRef, float] = {}
        self._under_way: dict[SchemaRef, asyncio.Task[None]] = {}
        self._client: httpx.AsyncClient | None = None

    @classmethod
    def of(cls, config: SchemaRegistryConfig, note: Note) -> SchemaRegistry:
        """The registry that the configuration names, by this machine's clock."""
        return cls(config, note, time.monotonic)

    def find(self, reference: SchemaRef) -> SchemaText:
        """The schema. Raises SchemaWanted, or UnknownSchema where the registry has none."""
        known = self._known.get(reference)
        if known is not None:
            return known
        believed = self._unknown.get(reference)
        if believed is not None and self._now() < believed + UNKNOWN_S:
            raise UnknownSchema(f"the schema registry has no schema of {reference}")
        raise SchemaWanted(reference)

    async def bring(self, reference: SchemaRef) -> None:
        """Ask for a schema once, whoever wants it: it is known or unknown after that.

        Raises Unavailable where the registry cannot say.
        """
        task = self._under_way.get(reference)
        if task is None:
            task = asyncio.create_task(self._bring(reference), name=f"schema {reference}")
            self._under_way[reference] = task
            task.add_done_callback(lambda _: self._under_way.pop(reference, None))
        # One that waits and is cancelled leaves the request to the others.
        await asyncio.shield(task)

    def open(self) -> httpx.AsyncClient:
        """The HTTP client; connects to nothing yet. Raises ConfigError, which names a secret
        or a file that is missing."""
        if self._client is None:
            self._client = _client(self.config)
        return self._client

    async def stop(self) -> None:
        """Close the connections."""
        for task in list(self._under_way.values()):
            task.cancel()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _bring(self, reference: SchemaRef) -> None:
        try:
            schema = await (
                self._confluent(reference)
                if self.kind == "confluent"
                else self._apicurio(reference)
            )
        except Unavailable:
            self._note("failed")
            raise
        if schema is None:
            self._note("unknown")
            if len(self._unknown) >= SCHEMAS_MAX:
                del self._unknown[next(iter(self._unknown))]
            self._unknown[reference] = self._now()
            return
        self._note("fetched")
        self._unknown.pop(reference, None)
        if len(self._known) >= SCHEMAS_MAX:
            del self._known[next(iter(self._known))]
        self._known[reference] = schema

    # -- Confluent --------------------------------------------------------------------

    async def _confluent(self, reference: SchemaRef) -> SchemaText | None:
        folder = "guids" if reference.kind == "guid" else "ids"
        path = f"/schemas/{folder}/{quote(str(reference.value), safe='')}"
        found = await self._json(path)
        if found is None:
            return None
        kind = str(found.get("schemaType") or "AVRO")
        # The text of a .proto file needs a compiler; the registry has done its work.
        form = {"format": "serialized"} if kind == "PROTOBUF" else {}
        if form:
            found = await self._json(path, form)
        if found is None:
            return None
        references: dict[str, str] = {}
        await self._confluent_references(found, form, references, set())
        return SchemaText(kind, _text(found, "schema"), tuple(references.items()))

    async def _confluent_references(
        self, schema: dict[str, Any], form: dict[str, str], into: dict[str, str], open_: set[str]
    ) -> None:
        """What a schema refers to, each behind what it refers to itself."""
        for one in _list(schema, "references"):
            name = _text(one, "name")
            if name in into or name in open_:
                continue
            if len(into) + len(open_) >= REFERENCES_MAX:
                raise Unavailable(f"a schema with more than {REFERENCES_MAX} references")
            subject = quote(_text(one, "subject"), safe="")
            path = f"/subjects/{subject}/versions/{quote(str(one.get('version')), safe='')}"
            found = await self._json(path, form)
            if found is None:
                raise Unavailable(f"the schema registry has no {path}, which a schema refers to")
            open_.add(name)
            await self._confluent_references(found, form, into, open_)
            open_.discard(name)
            into[name] = _text(found, "schema")

    # -- Apicurio ---------------------------------------------------------------------

    async def _apicurio(self, reference: SchemaRef) -> SchemaText | None:
        folder = "globalIds" if reference.kind == "global_id" else "contentIds"
        path = f"/ids/{folder}/{quote(str(reference.value), safe='')}"
        answer = await self._get(path)
        if answer is None:
            return None
        references: dict[str, str] = {}
        await self._apicurio_references(f"{path}/references", references, set())
        text = answer.text
        kind = answer.headers.get("x-registry-artifacttype") or _guess_kind(text)
        return SchemaText(kind.upper(), text, tuple(references.items()))

    async def _apicurio_references(self, path: str, into: dict[str, str], open_: set[str]) -> None:
        for one in await self._references(path):
            name = _text(one, "name")
            if name in into or name in open_:
                continue
            if len(into) + len(open_) >= REFERENCES_MAX:
                raise Unavailable(f"a schema with more than {REFERENCES_MAX} references")
            group = quote(str(one.get("groupId") or "default"), safe="")
            artifact = quote(_text(one, "artifactId"), safe="")
            version = quote(str(one.get("version")), safe="")
            place = f"/groups/{group}/artifacts/{artifact}/versions/{version}"
            content = place if self.kind == "apicurio_v2" else f"{place}/content"
            answer = await self._get(content)
            if answer is None:
                raise Unavailable(f"the schema registry has no {place}, which a schema refers to")
            open_.add(name)
            await self._apicurio_references(f"{place}/references", into, open_)
            open_.discard(name)
            into[name] = answer.text

    async def _references(self, path: str) -> list[dict[str, Any]]:
        answer = await self._get(path)
        if answer is None:
            return []
        found = _parse(answer)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise Unavailable(f"the schema registry answered {path} with no list of references")
        return found

    # -- HTTP ---------------------------------------------------------------------------

    async def _json(self, path: str, query: dict[str, str] | None = None) -> dict[str, Any] | None:
        answer = await self._get(path, query)
        if answer is None:
            return None
        found = _parse(answer)
        if not isinstance(found, dict):
            raise Unavailable(f"the schema registry answered {path} with no object")
        return found

    async def _get(self, path: str, query: dict[str, str] | None = None) -> httpx.Response | None:
        """The answer; None where the registry itself says that there is no such thing."""
        client = self.open()
        where = f"{self.config.url.rstrip('/')}{path}"
        try:
            async with client.stream("GET", where, params=query) as answer:
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > SCHEMA_BYTES_MAX:
                        raise Unavailable(f"{where} answered more than {SCHEMA_BYTES_MAX} bytes")
        except httpx.HTTPError as error:
            raise Unavailable(f"{where}: {type(error).__name__} {error}") from error
        whole = httpx.Response(
            answer.status_code, headers=_kept(answer.headers), content=bytes(body)
        )
        if whole.status_code == 200:
            return whole
        if whole.status_code == 404 and _says_unknown(whole):
            return None
        raise Unavailable(f"{where} answered {whole.status_code}: {whole.text[:200]!r}")


def _client(config: SchemaRegistryConfig) -> httpx.AsyncClient:
    headers = {"accept": "application/vnd.schemaregistry.v1+json, application/json, */*"}
    auth: tuple[str, str] | None = None
    if config.username:
        auth = (config.username, secret(config.password_env, config.password_file))
    if config.token_env:
        headers["authorization"] = f"Bearer {secret(config.token_env)}"
    try:
        return httpx.AsyncClient(
            auth=auth,
            headers=headers,
            timeout=config.timeout_s,
            verify=config.ca_file or True,
            limits=httpx.Limits(max_connections=4),
        )
    except OSError as error:
        raise ConfigError(
            f"schema_registry.ca_file: cannot use {config.ca_file}: {error}"
        ) from None


def _kept(headers: httpx.Headers) -> dict[str, str]:
    """Without what says how the body was packed: it is unpacked by now."""
    return {name: value for name, value in headers.items() if name != "content-encoding"}


def _parse(answer: httpx.Response) -> Any:
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        raise Unavailable(f"the schema registry answered no JSON: {answer.text[:200]!r}") from None


def _says_unknown(answer: httpx.Response) -> bool:
    """Both registries give a JSON object with an error_code: 404 or 404xx."""
    try:
        said = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(said, dict):
        return False
    # Apicurio 3 speaks of problem details: `status` and `name`.
    code = str(said.get("error_code") or (said.get("status") if said.get("name") else ""))
    return code.startswith("404")


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise Unavailable(f"the schema registry's answer has no text {key!r}")
    return value


def _list(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = table.get(key) or []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Unavailable(f"the schema registry's answer has no list {key!r}")
    return value


def _guess_kind(text: str) -> str:
    """Apicurio 2 does not always say what it gives: JSON with a `type` is taken for Avro."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "PROTOBUF"
    return "JSON" if isinstance(found, dict) and "$schema" in found else "AVRO"
