"""`flashfeed check`: what is wrong with a configuration, without starting anything."""

from __future__ import annotations

from pathlib import Path

from flashfeed.agents.connection import client_settings
from flashfeed.agents.rights import acl_commands, worker_rights
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.supply_counts import Uncounted

from .models import catalogue, describe, engine_of
from .settings import bridge_settings, load
from .worker import engine_settings, tracing_of


def print_acls(path: Path, user: str) -> int:
    """Print the `kafka-acls.sh` calls that let a worker of the configuration do all it must, and
    nothing else. Raises ConfigError."""
    config = load(path)
    feeds = {name: feed.topics for name, feed in config.feeds.items()}
    for line in acl_commands(worker_rights(config, feeds), user):
        print(line)
    return 0


def check(path: Path) -> int:
    """Print what the configuration says; raises ConfigError with every problem."""
    config = load(path)
    client_settings(config.kafka)  # reads the secrets and certificates that it names
    Supplies(config, Uncounted()).check()
    if tracing := tracing_of(config):
        tracing.close()
    keyed = bool(bridge_settings(config).keys.tenants)
    models = catalogue(config)
    for name in models.named:
        engine_settings(engine_of(config, name), Path(name))
    print(f"{path}: good")
    print(f"  brokers   {config.kafka.brokers} as group {config.kafka.group}")
    for name, source in models.named.items():
        print(f"  model     {name}: {describe(source)}{' (default)' * (name == models.default)}")
    for name, feed in config.feeds.items():
        print(f"  feed      {name}: {', '.join(feed.topics)} -> sessions of {feed.template}")
        if keyed and not config.templates[feed.template].tenant:
            print(
                f"            no key sees these sessions: name a tenant "
                f"(templates.{feed.template}.tenant)"
            )
    for name, template in config.templates.items():
        queries = ", ".join(query.label for query in template.spec().flash) or "none"
        print(f"  template  {name} ({template.type}): questions {queries}")
    bridge = config.bridge
    print(f"  bridge    {f'http://{bridge.host}:{bridge.port}' if bridge.enabled else 'off'}")
    return 0
