"""Registering the schemas of the output events, once, before the first event goes out.

Each output topic has the subject `<topic>-value`. A schema has one id, whatever the
subjects that it stands under; a registry that gives it two cannot be used.
"""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import quote

import httpx
import orjson

from flashfeed.models.config import Config, SchemaRegistryConfig
from flashfeed.models.errors import ConfigError, Unavailable
from flashfeed.models.event_format import registered_schema

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.5


def subjects(config: Config) -> list[tuple[str, str]]:
    """Each subject, and the name of the event whose schema it is."""
    topics = config.topics
    pairs = (
        (topics.flash_ready, "flash_ready"),
        (topics.answers, "flash_ready"),
        (topics.data_updated, "data_updated"),
    )
    return [(f"{topic}-value", name) for topic, name in pairs]


async def register_events(config: Config, client: httpx.AsyncClient) -> dict[str, int]:
    """Register what is not there yet; the schemas' ids by the event's name.

    Raises ConfigError where the registry refuses a schema, Unavailable where it cannot be
    reached in as many attempts as the configuration has.
    """
    registry = config.schema_registry
    assert registry is not None
    ids: dict[str, int] = {}
    for subject, name in subjects(config):
        kind, text = registered_schema(name, config.output.format)
        body = {"schemaType": kind, "schema": text}
        found = await _post(client, registry, subject, body)
        if ids.setdefault(name, found) != found:
            raise ConfigError(
                f"schema_registry: one schema has ids {ids[name]} and {found} there; expected a "
                "registry that gives a schema one id"
            )
        log.info("schema of %s: id %d", subject, found)
    return ids


async def _post(
    client: httpx.AsyncClient, registry: SchemaRegistryConfig, subject: str, body: dict[str, str]
) -> int:
    where = f"{registry.url.rstrip('/')}/subjects/{quote(subject, safe='')}/versions"
    wait_s = RETRY_FIRST_S
    for attempt in range(1, registry.attempts + 1):
        try:
            return _id(await client.post(where, content=orjson.dumps(body), headers=_HEADERS))
        except (httpx.HTTPError, Unavailable) as error:
            if attempt == registry.attempts:
                raise Unavailable(f"{where}: {type(error).__name__} {error}") from error
            log.warning("%s: %s, attempt %d", where, error, attempt)
        await asyncio.sleep(min(wait_s, registry.retry_max_s))
        wait_s *= 2
    raise AssertionError("an attempt returns or raises")


_HEADERS = {"content-type": "application/vnd.schemaregistry.v1+json"}


def _id(answer: httpx.Response) -> int:
    """The id in the registry's answer. Raises ConfigError where it will never take the
    schema, Unavailable where it may."""
    if answer.status_code in (401, 403, 404, 405, 409, 422):
        raise ConfigError(
            f"schema_registry: {answer.request.url} answered {answer.status_code} to a schema: "
            f"{answer.text[:300]!r}"
        )
    try:
        found = orjson.loads(answer.content)["id"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        found = None
    if answer.status_code != 200 or not isinstance(found, int):
        raise Unavailable(f"it answered {answer.status_code}: {answer.text[:200]!r}")
    return found
