"""The worker's configuration as values. Every setting is declared once, here.

`flashfeed.toml` at the root of the repository is the commented example; cli/settings.py
reads a file into these. Names end in their unit (`_s`, `_ms`, `_tokens`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from .assembly import BarSpec, Merge, duration_s
from .feed import MappingSpec
from .session import (
    QUEUE_RECORDS_MAX,
    FlashQuery,
    OutcomeSpec,
    Overflow,
    SessionSpec,
    WindowSpec,
    with_query_ids,
)

Positive = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration file."""


class SaslConfig(_Table, frozen=True, kw_only=True):
    """How to log in to the brokers. The password comes from the environment or a file,
    so that the configuration can be committed."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: NonEmpty
    password_env: str = ""
    password_file: str = ""

    def __post_init__(self) -> None:
        if bool(self.password_env) == bool(self.password_file):
            raise ValueError("expected exactly one of password_env, password_file")


class TlsConfig(_Table, frozen=True, kw_only=True):
    """TLS to the brokers; empty files mean the system's authorities and no client
    certificate."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    key_password_env: str = ""
    verify_hostname: bool = True


class KafkaConfig(_Table, frozen=True, kw_only=True):
    """Where the brokers are, and how this group reads and writes there.

    `instance_id`, or what the environment variable `instance_id_env` has, makes the worker a
    static member of the group: its partitions wait for it while it is away for less than
    `session_timeout_s`. It is one worker's alone.
    """

    brokers: NonEmpty = "127.0.0.1:9092"
    group: NonEmpty = "flashfeed"
    partitions: Positive = 4
    replication: Positive = 1
    start_at: Literal["earliest", "latest"] = "earliest"
    session_timeout_s: Annotated[float, msgspec.Meta(ge=1)] = 6.0
    instance_id: Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9._-]{0,249}$")] = ""
    instance_id_env: str = ""
    max_poll_interval_s: Annotated[float, msgspec.Meta(ge=1)] = 300.0
    commit_interval_s: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    batch_records_max: Positive = 2000
    topics_refresh_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    request_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 40.0
    stalled_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    transactions: bool = True
    sasl: SaslConfig | None = None
    tls: TlsConfig | None = None

    def __post_init__(self) -> None:
        if self.instance_id and self.instance_id_env:
            raise ValueError("expected instance_id or instance_id_env, got both")


class SchemaRegistryConfig(_Table, frozen=True, kw_only=True):
    """The schema registry of the feeds whose messages name their schemas.

    `url` is Confluent's, or one that speaks its REST API, without a path of its own; of
    Apicurio the API's root (.../apis/registry/v3, .../apis/registry/v2 for apicurio_v2).
    `username` and a password, or `token_env`, log in. A request that fails is tried
    `attempts` times, and from then on every `retry_max_s` while its partition stays paused.
    """

    url: Annotated[str, msgspec.Meta(pattern="^https?://[^ ]+$")]
    kind: Literal["confluent", "apicurio", "apicurio_v2"] = "confluent"
    username: str = ""
    password_env: str = ""
    password_file: str = ""
    token_env: str = ""
    ca_file: str = ""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 5.0
    attempts: Positive = 6
    retry_max_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0

    def __post_init__(self) -> None:
        if "@" in self.url.split("://")[1].partition("/")[0]:  # the URL is logged
            raise ValueError("expected a url without a login; username and password_env are for it")
        passwords = (self.password_env, self.password_file)
        if (self.username and all(passwords)) or bool(self.username) != any(passwords):
            raise ValueError("expected a username with exactly one of password_env, password_file")
        if self.username and self.token_env:
            raise ValueError("expected a username or token_env, got both")


class TopicsConfig(_Table, frozen=True, kw_only=True):
    """The names of flashfeed's own topics; they are created where they are missing."""

    records: NonEmpty = "flashfeed.records"
    changelog: NonEmpty = "flashfeed.changelog"
    dead_letters: NonEmpty = "flashfeed.dead_letters"
    flash_ready: NonEmpty = "flashfeed.flash_ready"
    data_updated: NonEmpty = "flashfeed.data_updated"
    answers: NonEmpty = "flashfeed.answers"
    owners: NonEmpty = "flashfeed.owners"
    documents: NonEmpty = "flashfeed.documents"
    births: NonEmpty = "flashfeed.births"
    control: NonEmpty = "flashfeed.control"
    replies: NonEmpty = "flashfeed.replies"
    outcomes: NonEmpty = "flashfeed.outcomes"
    examples: NonEmpty = "flashfeed.examples"
    reservoirs: NonEmpty = "flashfeed.reservoirs"
    heads: NonEmpty = "flashfeed.heads"
    scores: NonEmpty = "flashfeed.scores"

    def __post_init__(self) -> None:
        names = [getattr(self, field) for field in self.__struct_fields__]
        if len(set(names)) != len(names):
            raise ValueError("expected topics with different names")


class OutputConfig(_Table, frozen=True, kw_only=True):
    """How the values of the output events are written. Avro and Protobuf have their schemas
    in the schema registry, and its framing."""

    format: Literal["json", "avro", "protobuf"] = "json"


class ControlConfig(_Table, frozen=True, kw_only=True):
    """Sessions and questions by message, on `topics.control`. A message may ask for its
    reply on `topics.replies`, or on one of `reply_topics`; on no other, so that nobody can
    have this worker write where it should not."""

    enabled: bool = True
    reply_topics: tuple[NonEmpty, ...] = ()


class LearningConfig(_Table, frozen=True, kw_only=True):
    """Questions that learn (`learn = true`). `enabled` none: where a template has one. With
    `hidden_states` heads read the model's hidden states (engine/hidden.py); without, they
    calibrate its probabilities alone. `heads_max` bounds the group's heads."""

    enabled: bool | None = None
    hidden_states: bool = True
    heads_max: Positive = 256


KvType = Literal["f16", "q8_0", "bf16", "f32"]
"""How the KV cache keeps a number. q8_0 takes half of f16's memory."""


class EngineConfig(_Table, frozen=True, kw_only=True):
    """The model that answers where nobody names another, and what may be kept resident.

    `model` is the name of a `[model.NAME]` table or what its `source` can be. Where a
    setting of speed is 0 or "auto", `flashfeed tune`'s choice for this model and machine
    is taken, and a default where it never ran. `kv_bytes_max` 0 is half of the memory
    that is free at the start, and one context at least. `answer_deadline_ms`: agents/step_size.py.
    """

    model: NonEmpty = "packaged"
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    gpu_layers: int = -1
    context_tokens: Annotated[int, msgspec.Meta(ge=256)] = 4096
    batch_tokens: Annotated[int, msgspec.Meta(ge=32)] = 512
    kv_type: Literal["auto"] | KvType = "auto"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    ubatch_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    step_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    answer_deadline_ms: Positive = 2000
    foreground_chunk: Annotated[int, msgspec.Meta(ge=0)] = 0
    sessions_per_context: Annotated[int, msgspec.Meta(ge=0)] = 0
    sessions_max: Positive = 64
    seats_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    kv_bytes_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    snapshots: str = ""
    snapshot_bytes_max: Annotated[int, msgspec.Meta(ge=0)] = 4 * 2**30
    snapshot_interval_s: Annotated[float, msgspec.Meta(gt=0)] = 300.0


class ModelsConfig(_Table, frozen=True, kw_only=True):
    """Which models a request may name beside those of the configuration, and the bounds
    on all of them. `bytes_max` counts weights and KV caches together; 0 is no bound."""

    dirs: tuple[NonEmpty, ...] = ()
    allow_hosts: tuple[NonEmpty, ...] = ()
    size_max_bytes: Positive = 20 * 2**30
    downloads_max_bytes: Positive = 60 * 2**30
    bytes_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    idle_unload_s: Annotated[float, msgspec.Meta(ge=0)] = 600.0


class ModelConfig(_Table, frozen=True, kw_only=True):
    """A model by name. What is left out is as `[engine]` has it.

    `source` is `packaged`, the path of a GGUF file, `hf:OWNER/REPO/FILE.gguf[@REVISION]`
    or an https URL; `sha256` what the file's must be.
    """

    source: NonEmpty
    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    context_tokens: Annotated[int, msgspec.Meta(ge=256)] | None = None
    gpu_layers: int | None = None
    kv_type: Literal["auto"] | KvType | None = None


class LimitsConfig(_Table, frozen=True, kw_only=True):
    """What one tenant may take of one worker; 0 is no limit. Requests and WebSocket frames
    count alike. Tokens are those the model reads for the tenant's questions (what is
    cached is free) and writes. A connection is a request, stream or WebSocket under way."""

    sessions: Annotated[int, msgspec.Meta(ge=0)] = 16
    requests_per_s: Annotated[float, msgspec.Meta(ge=0)] = 100.0
    tokens_per_minute: Annotated[int, msgspec.Meta(ge=0)] = 200_000
    connections: Annotated[int, msgspec.Meta(ge=0)] = 100


class BridgeConfig(_Table, frozen=True, kw_only=True):
    """The HTTP and WebSocket side; `enabled = false` leaves it out.

    Keys come from the environment (`tenant:key[,tenant:key...]`), from a file (README.md
    has its format) or from both; without any the bridge listens on loopback only.
    `metrics_key_env` names a variable with the key that opens the worker's /metrics alone.
    `advertise_url` is where the other workers reach it; "" is its host and port.
    """

    enabled: bool = True
    host: NonEmpty = "127.0.0.1"
    port: Port = 8080
    api_keys_env: str = ""
    keys_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    cors_origins: tuple[NonEmpty, ...] = ()
    metrics_key_env: str = ""
    limits: LimitsConfig = LimitsConfig()
    queue_records_max: Positive = 10_000
    advertise_url: Annotated[str, msgspec.Meta(pattern="^(https?://[^/?#@]+)?$")] = ""


class ClusterConfig(_Table, frozen=True, kw_only=True):
    """How the workers of a group pass requests to one another: what they sign them with,
    the same for all of them, and whose certificates they trust where their bridges speak
    TLS ("": the system's authorities). Without a secret nothing is passed on."""

    secret_env: str = ""
    secret_file: str = ""
    ca_file: str = ""

    def __post_init__(self) -> None:
        if self.secret_env and self.secret_file:
            raise ValueError("expected at most one of secret_env, secret_file")

    @property
    def passes_on(self) -> bool:
        """Whether there is a secret."""
        return bool(self.secret_env or self.secret_file)


class PipelineStep(_Table, frozen=True, kw_only=True):
    """One prompt of a pipeline, and who answers it: a model as a chat names it ("": the
    default one), or a live session over its data.

    In the prompt `{input}` stands for the whole input, `{previous}` for the answer of the
    step before, and any other `{name}` for that field of the input.
    """

    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]
    model: str = ""
    session: str = ""
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=32_768)] = 100
    temperature: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.0

    def __post_init__(self) -> None:
        if self.model and self.session:
            raise ValueError("expected a model or a session, got both")


class PipelineConfig(_Table, frozen=True, kw_only=True):
    """A named chain of prompts that a client may run."""

    steps: Annotated[tuple[PipelineStep, ...], msgspec.Meta(min_length=1, max_length=16)]
    description: str = ""

    def __post_init__(self) -> None:
        if "{previous}" in self.steps[0].prompt:
            raise ValueError("expected no {previous} in the first step: nothing is before it")


class PricesConfig(_Table, frozen=True, kw_only=True):
    """What /metrics makes money of: an hour of the device inside llama_decode, and a million
    tokens. With both 0 there are no series of money."""

    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] = "USD"
    device_hour: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    million_tokens: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    @property
    def given(self) -> bool:
        """Whether anything costs money."""
        return bool(self.device_hour or self.million_tokens)


class LogConfig(_Table, frozen=True, kw_only=True):
    """What is written to stderr, and how: `json` is one object a line, `text` is for people,
    `auto` is text on a terminal and else JSON."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class TracesConfig(_Table, frozen=True, kw_only=True):
    """Traces by OpenTelemetry, over OTLP and HTTP; without this table there are none.

    `endpoint` is the collector's address as OTEL_EXPORTER_OTLP_ENDPOINT has it (""): /v1/traces
    is put behind it. What brings a sampled `traceparent` is followed; of the rest a share of
    `sample_ratio`.
    """

    enabled: bool = True
    endpoint: Annotated[str, msgspec.Meta(pattern="^(https?://[^/?#@]+[^?#]*)?$")] = ""
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class SessionTemplate(_Table, frozen=True, kw_only=True):
    """What a session is made from: the fields of a session spec, without ids.

    `outcomes` say, by the questions' names, what their true answers were: `flashfeed score`
    holds recorded answers against them, and a question with `learn = true` learns from them;
    it may have its rule in itself, which then goes before (`rules` are all of them).
    No session knows those of the others.
    """

    type: Literal["ohlcv", "iot", "vitals", "spatial", "event"]
    prompt: str = ""
    text: str = ""
    context: Annotated[int, msgspec.Meta(ge=0)] = 0
    tenant: str = ""
    model: str = ""
    bars: BarSpec | None = None
    merge: Merge = ""
    live: bool = False
    overflow: Overflow = "block"
    queue_records: Annotated[int, msgspec.Meta(ge=0, le=QUEUE_RECORDS_MAX)] = 0
    window: WindowSpec = WindowSpec()
    flash: tuple[FlashQuery, ...] = ()
    outcomes: dict[str, OutcomeSpec] = {}

    def spec(self) -> SessionSpec:
        """The session spec that this template gives."""
        fields = msgspec.to_builtins(self)
        del fields["outcomes"]
        # By conversion, which checks every bound; a constructor checks none.
        spec = with_query_ids(msgspec.convert(fields, SessionSpec))
        ruled = tuple(
            msgspec.structs.replace(query, outcome=query.outcome or self.outcomes.get(query.label))
            if query.learn
            else query
            for query in spec.flash
        )
        return msgspec.structs.replace(spec, flash=ruled)

    def rules(self) -> dict[str, OutcomeSpec]:
        """The outcome rules by the questions' labels: `outcomes`, and before them what questions
        have in themselves. Raises ValueError where `spec` does."""
        own = {query.label: query.outcome for query in self.spec().flash}
        return self.outcomes | {label: rule for label, rule in own.items() if rule is not None}


class FeedConfig(_Table, frozen=True, kw_only=True):
    """Topics somebody already has, and which template's sessions they feed.

    `topics` are names or patterns with `*`. `codec` is by default the preset's, else json;
    `codec_options` are its own. The mapping is a preset's, this table's own keys, or a
    preset with some keys of one's own. `session` names the session; `{key}` is the
    mapping's key.

    It feeds the sessions whose ids match one of `allow` (patterns with `*`; none: any) and
    none of `deny`. One that is not there is made from the template, where its worker has
    fewer than `sessions_max` made so by this feed (0: no limit), and is deleted when nothing
    reached it for `idle_ttl` (a duration; "": never). What is refused is a dead letter.
    """

    topics: Annotated[tuple[NonEmpty, ...], msgspec.Meta(min_length=1)]
    template: NonEmpty
    codec: str = ""
    codec_options: dict[str, Any] = {}
    preset: str = ""
    session: NonEmpty = "{key}"
    allow: tuple[NonEmpty, ...] = ()
    deny: tuple[NonEmpty, ...] = ()
    sessions_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    idle_ttl: str = ""
    model: str = ""
    key: str = ""
    time: str = ""
    root: str = ""
    each: str = ""
    when: dict[str, Any] = {}
    final: str = ""
    map: dict[str, str] = {}
    units: dict[str, str | float] = {}
    unwrap: str = ""
    pivot: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.idle_ttl and not duration_s(self.idle_ttl):
            raise ValueError("expected idle_ttl above 0s")

    def mapping_overrides(self) -> dict[str, Any]:
        """The mapping keys that this feed sets itself."""
        names = [name for name in MappingSpec.__struct_fields__ if hasattr(self, name)]
        return {name: getattr(self, name) for name in names if getattr(self, name)}


class Config(_Table, frozen=True, kw_only=True):
    """The whole configuration."""

    kafka: KafkaConfig = KafkaConfig()
    schema_registry: SchemaRegistryConfig | None = None
    topics: TopicsConfig = TopicsConfig()
    output: OutputConfig = OutputConfig()
    control: ControlConfig = ControlConfig()
    learning: LearningConfig = LearningConfig()
    engine: EngineConfig = EngineConfig()
    models: ModelsConfig = ModelsConfig()
    model: dict[NonEmpty, ModelConfig] = {}
    bridge: BridgeConfig = BridgeConfig()
    cluster: ClusterConfig = ClusterConfig()
    prices: PricesConfig = PricesConfig()
    log: LogConfig = LogConfig()
    traces: TracesConfig | None = None
    feeds: dict[str, FeedConfig] = {}
    templates: dict[str, SessionTemplate] = {}
    pipelines: dict[NonEmpty, PipelineConfig] = {}

    @property
    def learns(self) -> bool:
        """Whether this worker's questions may learn."""
        if self.learning.enabled is not None:
            return self.learning.enabled
        return any(query.learn for one in self.templates.values() for query in one.flash)
