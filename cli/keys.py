"""`flashfeed keys new TENANT`: an API key, and the line of the keys file that lets it in."""

from __future__ import annotations

import re
import sys

from flashfeed.bridge.keys import new_key, written_hash
from flashfeed.models.errors import ConfigError
from flashfeed.models.tenant import TENANT_PATTERN, TENANT_RULE


def print_new_key(tenant: str) -> int:
    """Print a new key on stdout, and what to write where on stderr: so the key alone can
    be piped on. It is kept nowhere. Raises ConfigError for a name that is none."""
    if re.fullmatch(TENANT_PATTERN, tenant) is None:
        raise ConfigError(f"expected a tenant's name of {TENANT_RULE}, got {tenant!r}")
    key = new_key()
    print(key)
    print(
        "The key is shown this once. In the keys file (bridge.keys_file), which has its hash "
        f'alone:\n\n[tenant.{tenant}]\nkeys = ["{written_hash(key)}"]',
        file=sys.stderr,
    )
    return 0
