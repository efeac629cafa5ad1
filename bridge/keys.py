"""API keys: which tenant a key belongs to. Only the keys' hashes are held.

A key that `flashfeed keys new` makes has 256 random bits, so that one SHA-256 is enough:
nobody can go through that many. A slow hash protects what people choose; a key that
somebody chose has to be KEY_CHARS_MIN long at least.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

from flashfeed.models.errors import ConfigError
from flashfeed.models.tenant import TENANT_PATTERN, TENANT_RULE

DEFAULT_TENANT: Final = "default"
OPERATOR: Final = "operator"
"""Who a key to the worker's metrics belongs to; no tenant's name is looked up by it."""
KEY_CHARS_MIN: Final = 16
KEY_BYTES_MAX: Final = 512
KEYS_MAX: Final = 1000
_PREFIX: Final = "ffk_"  # known to scanners that look for secrets in places they do not belong
_HASH: Final = re.compile("sha256:([0-9a-f]{64})")


class Keys:
    """Every key's hash, and its tenant. False where there are none: nobody is asked then."""

    def __init__(self, hashes: Mapping[str, Iterable[bytes]] | None = None) -> None:
        pairs = [(digest, name) for name, all_ in (hashes or {}).items() for digest in all_]
        if len(pairs) > KEYS_MAX:
            raise ConfigError(f"expected at most {KEYS_MAX} API keys, got {len(pairs)}")
        tenants: dict[bytes, str] = {}
        for digest, name in pairs:
            if tenants.setdefault(digest, name) != name:
                raise ConfigError(
                    f"tenants {tenants[digest]} and {name} have the same API key; "
                    "a key belongs to one tenant"
                )
        self._tenants = tuple(tenants.items())

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def __repr__(self) -> str:
        return f"Keys({len(self._tenants)} of {len(self.tenants)} tenants)"

    @property
    def tenants(self) -> list[str]:
        """The tenants that have a key."""
        return sorted({tenant for _, tenant in self._tenants})

    def hashes(self) -> dict[str, list[bytes]]:
        """The hashes by tenant."""
        found: dict[str, list[bytes]] = {}
        for digest, tenant in self._tenants:
            found.setdefault(tenant, []).append(digest)
        return found

    def authenticate(self, key: str | bytes) -> str | None:
        """The tenant that a key belongs to; None where it is nobody's.

        Every hash is compared, each in constant time: how long it takes tells nothing.
        """
        given = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
        digest = key_hash(given[:KEY_BYTES_MAX])
        found: str | None = None
        for known, tenant in self._tenants:
            if hmac.compare_digest(digest, known):
                found = tenant
        return found if len(given) <= KEY_BYTES_MAX else None


def key_hash(key: bytes) -> bytes:
    """What is held of a key."""
    return hashlib.sha256(key).digest()


def new_key() -> str:
    """A new key of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def written_hash(key: str) -> str:
    """A key's hash as a keys file has it."""
    return f"sha256:{key_hash(key.encode()).hex()}"


def read_hash(text: str) -> bytes:
    """The hash in a keys file's line. Raises ConfigError, which does not repeat the text:
    somebody may have written the key itself."""
    match = _HASH.fullmatch(text)
    if match is None:
        raise ConfigError(
            "expected sha256: and 64 digits of 0-9 a-f, as `flashfeed keys new TENANT` prints "
            f"them, got {len(text)} other characters; the key itself does not belong here"
        )
    return bytes.fromhex(match[1])


def read_key_list(text: str) -> Keys:
    """Keys from `tenant:key[,tenant:key...]`; one without a tenant is DEFAULT_TENANT's.

    Raises ConfigError, which names the place and never the key.
    """
    hashes: dict[str, list[bytes]] = {}
    entries = [entry.strip() for entry in text.split(",")]
    for place, entry in enumerate((entry for entry in entries if entry), start=1):
        name, colon, key = entry.partition(":")
        tenant, key = (name.strip(), key.strip()) if colon else (DEFAULT_TENANT, entry)
        if not re.fullmatch(TENANT_PATTERN, tenant):
            raise ConfigError(f"key {place}: expected a tenant of {TENANT_RULE} before the colon")
        if not KEY_CHARS_MIN <= len(key.encode()) <= KEY_BYTES_MAX:
            raise ConfigError(
                f"key {place}, of tenant {tenant}: expected {KEY_CHARS_MIN} to {KEY_BYTES_MAX} "
                f"bytes, got {len(key.encode())}; `flashfeed keys new {tenant}` makes one"
            )
        hashes.setdefault(tenant, []).append(key_hash(key.encode()))
    if not hashes:  # an open bridge is never what somebody meant who named the keys
        raise ConfigError("expected tenant:key[,tenant:key...], got no key")
    return Keys(hashes)


def read_metrics_key(text: str) -> Keys:
    """The key that opens the worker's metrics and nothing else. Raises ConfigError, without it."""
    key = text.strip().encode()
    if not KEY_CHARS_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ConfigError(
            f"expected a key of {KEY_CHARS_MIN} to {KEY_BYTES_MAX} bytes, got {len(key)}; "
            "try: openssl rand -hex 32"
        )
    return Keys({OPERATOR: [key_hash(key)]})


def joined(one: Keys, other: Keys) -> Keys:
    """The keys of both. Raises ConfigError where they disagree about a key's tenant."""
    hashes = one.hashes()
    for tenant, digests in other.hashes().items():
        hashes.setdefault(tenant, []).extend(digests)
    return Keys(hashes)
