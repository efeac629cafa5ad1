"""Reads a configuration file, and says exactly what is wrong with one.

`load` collects every problem it finds; each names the file's key, what was expected
and, for an unknown key, the nearest known one.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from flashfeed.agents.connection import secret
from flashfeed.agents.supplies import Supplies
from flashfeed.agents.supply_counts import Uncounted
from flashfeed.bridge.forwarded import SECRET_CHARS_MIN
from flashfeed.bridge.keys import Keys, joined, read_key_list, read_metrics_key
from flashfeed.bridge.origins import ANY_ORIGIN
from flashfeed.bridge.peers import ClusterPeers
from flashfeed.bridge.server import refuse_open
from flashfeed.bridge.settings import BridgeSettings
from flashfeed.codecs.mapping import Mapping
from flashfeed.codecs.nearest import nearest
from flashfeed.codecs.presets import codec_of, mapping_spec, preset_names
from flashfeed.codecs.registry import codec, codec_names, text_codec
from flashfeed.heads.outcome_rule import OutcomeRule
from flashfeed.models.config import BridgeConfig, Config, FeedConfig, SessionTemplate
from flashfeed.models.errors import ConfigError
from flashfeed.models.feed import MappingSpec
from flashfeed.models.session import OutcomeSpec
from flashfeed.models.tenant import TENANT_PATTERN, TENANT_RULE

from .keys_file import read_keys_file

ANY_HOST = ("0.0.0.0", "::")


def load(path: Path) -> Config:
    """The configuration in a TOML file. Raises ConfigError listing every problem."""
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; copy flashfeed.toml from the repository's root to begin"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    problems = _unknown_keys(raw, Config, "")
    config: Config | None = None
    if not problems:
        try:
            config = msgspec.convert(raw, Config)
        except msgspec.ValidationError as error:
            problems.append(_wrong_value(str(error), raw))
    if config is not None:
        problems += _cross_checks(config)
    if problems or config is None:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return config


def feed_mapping(name: str, feed: FeedConfig) -> MappingSpec:
    """The mapping that a feed's table and its preset give together.

    Raises ConfigError, naming the feed's key.
    """
    if feed.preset and feed.preset not in preset_names():
        raise ConfigError(
            f"feeds.{name}.preset: expected one of {', '.join(preset_names())}, "
            f'got "{feed.preset}"{nearest(feed.preset, preset_names())}'
        )
    try:
        return mapping_spec(feed.preset or None, feed.mapping_overrides())
    except ConfigError as error:
        hint = "" if feed.preset else "; name a preset or write the mapping's keys here"
        raise ConfigError(f"feeds.{name}: {error}{hint}") from None


def outcome_rule(template: SessionTemplate, question: str) -> OutcomeRule:
    """The compiled rule of one of a template's `rules`.

    Raises ConfigError where it is none.
    """
    return _compiled(template, question, template.rules()[question])


def _compiled(template: SessionTemplate, question: str, rule: OutcomeSpec) -> OutcomeRule:
    """A question's rule. Raises ConfigError where there is no such question, too."""
    choices = {query.label: query.choices for query in template.spec().flash if query.choices}
    if question not in choices:
        known = ", ".join(choices) or "there is none"
        raise ConfigError(
            f"expected the name of a question with choices ({known}){nearest(question, choices)}"
        )
    return OutcomeRule(rule.after, rule.label, template.type, choices[question])


def bridge_settings(config: Config) -> BridgeSettings:
    """The bridge's settings, with the keys of the environment and of the keys file.

    Raises ConfigError, naming what to set; never with a key in it.
    """
    bridge = config.bridge
    keys, tenant_limits = Keys(), {}
    if bridge.api_keys_env:
        try:
            keys = read_key_list(secret(bridge.api_keys_env))
        except ConfigError as error:
            raise ConfigError(f"environment variable {bridge.api_keys_env}: {error}") from None
    if bridge.keys_file:
        read = read_keys_file(Path(bridge.keys_file).expanduser(), bridge.limits)
        keys, tenant_limits = joined(keys, read.keys), read.limits
    if bridge.enabled:
        refuse_open(bridge.host, keys)
    return BridgeSettings(
        keys=keys,
        limits=bridge.limits,
        tenant_limits=tenant_limits,
        metrics_key=_metrics_key(bridge, keys),
        cors_origins=bridge.cors_origins,
        tls=(Path(bridge.tls_cert).expanduser(), Path(bridge.tls_key).expanduser())
        if bridge.tls_cert
        else None,
        pipelines=config.pipelines,
    )


def _metrics_key(bridge: BridgeConfig, keys: Keys) -> Keys:
    """The key to the worker's metrics; none where none is named."""
    if not bridge.metrics_key_env:
        return Keys()
    text = secret(bridge.metrics_key_env)
    try:
        found = read_metrics_key(text)
    except ConfigError as error:
        raise ConfigError(f"environment variable {bridge.metrics_key_env}: {error}") from None
    if keys.authenticate(text.strip()) is not None:
        raise ConfigError(
            f"environment variable {bridge.metrics_key_env}: this is a tenant's key too; expected "
            "one of its own: openssl rand -hex 32"
        )
    return found


def cluster_peers(config: Config) -> ClusterPeers | None:
    """The way to the group's other workers; None where they share no secret."""
    cluster = config.cluster
    if not cluster.passes_on:
        return None
    shared = secret(cluster.secret_env, cluster.secret_file)
    if len(shared) < SECRET_CHARS_MIN:
        raise ConfigError(
            f"cluster: expected a secret of at least {SECRET_CHARS_MIN} characters, got "
            f"{len(shared)}; try: openssl rand -hex 32"
        )
    return ClusterPeers(shared.encode(), cluster.ca_file)


def advertised_url(config: Config, port: int) -> str:
    """Where the other workers reach this one's bridge, which listens on `port`; "" where
    it has none."""
    bridge = config.bridge
    if not bridge.enabled:
        return ""
    host = f"[{bridge.host}]" if ":" in bridge.host else bridge.host
    scheme = "https" if bridge.tls_cert else "http"
    return bridge.advertise_url or f"{scheme}://{host}:{port}"


def session_name(feed: FeedConfig) -> Callable[[str], str]:
    """How a feed names the session of a mapping key."""
    literal = feed.session
    return lambda key: literal.replace("{key}", key)


def session_filter(feed: FeedConfig) -> Callable[[str], bool]:
    """Which sessions a feed may feed, by its `allow` and `deny`."""
    allow, deny = (
        re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None
        for patterns in (feed.allow, feed.deny)
    )

    def admits(session_id: str) -> bool:
        allowed = allow is None or allow.match(session_id) is not None
        return allowed and (deny is None or deny.match(session_id) is None)

    return admits


def _struct_of(annotation: Any) -> type[msgspec.Struct] | None:
    """The Struct inside `X`, `X | None`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    for inner in get_args(annotation):
        found = _struct_of(inner)
        if found is not None:
            return found
    return None


def _unknown_keys(table: Any, struct: type[msgspec.Struct], where: str) -> list[str]:
    """Every key that no setting has, depth first, with the nearest known one."""
    if not isinstance(table, dict):
        return []
    known = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    problems: list[str] = []
    for key, value in table.items():
        place = f"{where}.{key}" if where else key
        if key not in known:
            problems.append(
                f"{place}: unknown key{nearest(key, known)}; "
                f"expected one of {', '.join(sorted(known))}"
            )
            continue
        inner = _struct_of(known[key])
        if inner is None:
            continue
        if get_origin(known[key]) is dict and isinstance(value, dict):
            for name, sub in value.items():
                problems += _unknown_keys(sub, inner, f"{place}.{name}")
        elif isinstance(value, list):
            for index, sub in enumerate(value):
                problems += _unknown_keys(sub, inner, f"{place}[{index}]")
        else:
            problems += _unknown_keys(value, inner, place)
    return problems


def _wrong_value(message: str, raw: dict[str, Any]) -> str:
    """msgspec's message, with the key first and what stands there."""
    what, _, path = message.partition(" - at `")
    key = path.rstrip("`").removeprefix("$").lstrip(".")
    if "[...]" in key:
        key = _find_instance(key, raw, Config)
    return f"{key or 'the file'}: {what[0].lower()}{what[1:]}{_value_at(key, raw)}"


def _find_instance(key: str, entries: Any, kind: Any) -> str:
    """`feeds[...].topics` as `feeds.candles.topics`: the entry that fails alone, and so on
    inside it. `entries` are what stands in the file where a `kind` is expected."""
    path, found, rest = key.partition("[...]")
    if not found:
        return key
    for part in re.findall(r"\w+", path):
        if part.isdigit():
            entries = entries[int(part)]
            continue
        struct = _struct_of(kind)
        fields = msgspec.structs.fields(struct) if struct is not None else ()
        kind = next((one.type for one in fields if one.encode_name == part), None)
        entries = entries[part]
    inner = _struct_of(kind) or (get_args(kind)[1] if get_origin(kind) is dict else None)
    if inner is None or not isinstance(entries, dict):
        return key
    for name, entry in entries.items():
        try:
            msgspec.convert(entry, inner)
        except msgspec.ValidationError:
            return f"{path}.{name}{_find_instance(rest, entry, inner)}"
    return key


def _value_at(key: str, raw: Any) -> str:
    here = raw
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(here, dict) and part in here:
            here = here[part]
        elif isinstance(here, list) and part.isdigit() and int(part) < len(here):
            here = here[int(part)]
        else:
            return ""
    return "" if isinstance(here, dict | list) else f", got {here!r}"


def _cross_checks(config: Config) -> list[str]:
    """What no single key shows: names that must exist, mappings that must compile."""
    problems: list[str] = []

    def check(where: str, test: Callable[[], Any]) -> None:
        try:
            test()
        except ConfigError as error:
            text = str(error)
            problems.append(text if text.startswith(where) else f"{where}: {text}")
        except ValueError as error:
            problems.append(f"{where}: {error}")

    for name, template in config.templates.items():
        check(f"templates.{name}", template.spec)
        check(f"templates.{name}.text", partial(text_codec, template.text, template.type))
        for question, rule in template.outcomes.items():
            where = f"templates.{name}.outcomes.{question}"
            check(where, partial(_compiled, template, question, rule))
        for query in template.flash:
            if query.outcome is not None:
                where = f"templates.{name}.flash.{query.name or query.query[:40]!r}.outcome"
                made = (query.outcome.after, query.outcome.label, template.type, query.choices)
                check(where, partial(OutcomeRule, *made))
        if template.tenant and re.fullmatch(TENANT_PATTERN, template.tenant) is None:
            problems.append(
                f"templates.{name}.tenant: expected {TENANT_RULE}, got {template.tenant!r}"
            )
        if template.context > config.engine.context_tokens:
            problems.append(
                f"templates.{name}.context: expected at most engine.context_tokens "
                f"({config.engine.context_tokens}), got {template.context}"
            )
    for name, feed in config.feeds.items():
        if feed.codec in ("", *codec_names()):
            check(f"feeds.{name}.codec_options", partial(_check_codec, feed, config))
        else:
            problems.append(
                f"feeds.{name}.codec: expected one of {', '.join(codec_names())}, "
                f'got "{feed.codec}"{nearest(feed.codec, codec_names())}'
            )
        if feed.template not in config.templates:
            problems.append(
                f"feeds.{name}.template: expected one of {', '.join(sorted(config.templates))}, "
                f'got "{feed.template}"{nearest(feed.template, config.templates)}'
            )
        if set("{}") & set(feed.session.replace("{key}", "")):
            problems.append(
                f"feeds.{name}.session: expected text with {{key}} in it, got {feed.session!r}"
            )
        own = {getattr(config.topics, field) for field in config.topics.__struct_fields__}
        problems += [
            f"feeds.{name}.topics: {topic} is flashfeed's own topic"
            for topic in feed.topics
            if topic in own
        ]
        check(f"feeds.{name}", partial(_check_mapping, name, feed, config))
    own = {getattr(config.topics, field) for field in config.topics.__struct_fields__}
    read = {topic for feed in config.feeds.values() for topic in feed.topics}
    problems += [
        f"control.reply_topics: {topic} is a topic that flashfeed itself reads or writes"
        for topic in config.control.reply_topics
        if topic in own | read
    ]
    registry = config.schema_registry
    if config.output.format != "json" and (registry is None or registry.kind != "confluent"):
        problems.append(
            f"output.format: {config.output.format} needs a [schema_registry] of kind confluent "
            "to register its schemas in (Apicurio has that API too, under /apis/ccompat/v7)"
        )
    problems += _bridge_checks(config.bridge)
    bridge = config.bridge
    if config.cluster.passes_on and bridge.host in ANY_HOST and not bridge.advertise_url:
        problems.append(
            "bridge.advertise_url: expected the URL under which the other workers reach this "
            f'one, since bridge.host is {bridge.host}; for instance "http://10.0.0.7:8080"'
        )
    if config.kafka.session_timeout_s > config.kafka.request_timeout_s:
        problems.append(
            "kafka.session_timeout_s: expected at most kafka.request_timeout_s "
            f"({config.kafka.request_timeout_s}), got {config.kafka.session_timeout_s}"
        )
    return problems


def _check_codec(feed: FeedConfig, config: Config) -> None:
    # What the worker will use is made here as well: it connects to nothing before it starts.
    chosen = codec_of(feed.preset, feed.codec, feed.codec_options)
    codec(*chosen, Supplies(config, Uncounted()).outside)


def _bridge_checks(bridge: BridgeConfig) -> list[str]:
    """What the file alone shows; whether keys and certificates can be read, the start does."""
    problems: list[str] = []
    has_keys = bool(bridge.api_keys_env or bridge.keys_file)
    if bridge.enabled and not has_keys:
        try:
            refuse_open(bridge.host, Keys())
        except ConfigError as error:
            problems.append(str(error))
    if bridge.metrics_key_env and not has_keys:
        problems.append(
            "bridge.metrics_key_env: expected bridge.keys_file or bridge.api_keys_env beside it: "
            "where no keys are set nobody is asked for one"
        )
    if bool(bridge.tls_cert) != bool(bridge.tls_key):
        missing = "tls_key" if bridge.tls_cert else "tls_cert"
        problems.append(f"bridge.{missing}: expected a file, as the other of the two is set")
    for origin in bridge.cors_origins:
        if origin == ANY_ORIGIN and not has_keys:
            problems.append(
                'bridge.cors_origins: "*" needs API keys: any page that a browser on this '
                "machine shows could call the bridge"
            )
        elif origin != ANY_ORIGIN and not re.fullmatch(r"https?://[^/\s]+", origin):
            problems.append(
                "bridge.cors_origins: expected origins as browsers send them "
                f'(https://app.example.com), got "{origin}"'
            )
    return problems


def _check_mapping(name: str, feed: FeedConfig, config: Config) -> None:
    spec = feed_mapping(name, feed)
    Mapping(spec)
    template = config.templates.get(feed.template)
    if template is not None and spec.model == "trade":
        if template.type != "ohlcv" or template.bars is None:
            raise ConfigError(
                f"feeds.{name}.template: the feed's records are trades; expected a template of "
                f"type ohlcv with `bars`, got {feed.template} of type {template.type}"
            )
    elif template is not None and template.type != spec.model:
        raise ConfigError(
            f"feeds.{name}.template: template {feed.template} is of type {template.type}, "
            f"the feed's records are {spec.model}"
        )
