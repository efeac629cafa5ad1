"""A wrong configuration is told by its key, what was expected, and the nearest key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from flashfeed.bridge.keys import written_hash
from flashfeed.cli.main import main
from flashfeed.cli.settings import bridge_settings, feed_mapping, load, outcome_rule, session_name
from flashfeed.models.config import Config, LimitsConfig, ModelConfig
from flashfeed.models.errors import ConfigError

ROOT = Path(__file__).parents[2]
GOOD = """
[feeds.candles]
topics = ["candles-*"]
preset = "cryptofeed"
template = "market"

[templates.market]
type = "ohlcv"
[[templates.market.flash]]
query = "Up?"
choices = ["yes", "no"]
"""
OUTCOME = """
[templates.market.outcomes.{}]
after = "{}"
label = "{}"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('[templates.o.outcomes."Up?"]\nafter = ""', "templates.o.outcomes.Up?.after: expected"),
        ("[templates.o.outcomes.b]\nafter = 7", "templates.o.outcomes.b.after: expected `str`"),
        ("[[templates.o.flash]]\nquery = 3", "templates.o.flash[0].query: expected `str`"),
        ("[feeds.b]\ntopics = 7", "feeds.b.topics: expected `array`, got `int`, got 7"),
        ("[feeds]\nb = 3", "feeds.b: expected `object`, got `int`, got 3"),
        ("[feeds.b.map]\na = 3", "feeds.b.map.a: expected `str`, got `int`, got 3"),
    ],
)
def test_a_wrong_value_is_told_by_all_of_its_names(
    tmp_path: Path, wrong: str, message: str
) -> None:
    text = '[templates.o]\ntype = "ohlcv"\noutcomes.a = {after = "1d", label = "yes"}\n'
    if wrong.startswith("[feeds.b"):
        wrong = wrong.replace("[feeds.b]", '[feeds.b]\ntemplate = "o"')
    with pytest.raises(ConfigError) as fault:
        load(write(tmp_path, text + wrong))
    assert message in str(fault.value)


def test_the_commented_example_is_good_and_its_defaults_are_the_defaults() -> None:
    config = load(ROOT / "flashfeed.toml")
    assert set(config.feeds) == {"candles", "sensors"}
    written = tomllib.loads((ROOT / "flashfeed.toml").read_text())
    for table in ("kafka", "engine", "models", "bridge", "log", "topics"):
        for key, value in written[table].items():
            default = getattr(getattr(Config(), table), key)
            assert orjson.loads(msgspec.json.encode(default)) == value, key


def test_the_example_names_every_table_and_every_kafka_engine_bridge_key() -> None:
    text = (ROOT / "flashfeed.toml").read_text()
    for table in (Config().engine, Config().models, ModelConfig(source="x"), Config().bridge):
        for key in table.__struct_fields__:
            assert f"{key} = " in text or f".{key}]" in text, key


def test_a_good_file_gives_a_feed_and_a_template(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    spec = feed_mapping("candles", config.feeds["candles"])
    assert spec.key == "{exchange}:{symbol}:{interval}"
    assert session_name(config.feeds["candles"])("a:b") == "a:b"
    assert [query.id for query in config.templates["market"].spec().flash] == [1]


def test_a_rule_of_the_questions_own_goes_before_and_both_are_checked(tmp_path: Path) -> None:
    own = 'learn = true\noutcome = { after = "2 records", label = "yes if close > 1 else no" }\n'
    other = '[[templates.market.flash]]\nquery = "Down?"\nchoices = ["yes", "no"]\n'
    text = GOOD + own + other + OUTCOME.format("q1", "1 record", "yes")
    text += OUTCOME.format("q2", "3 records", "no")
    template = load(write(tmp_path, text)).templates["market"]
    assert {name: rule.after for name, rule in template.rules().items()} == {
        "q1": "2 records",
        "q2": "3 records",
    }
    assert outcome_rule(template, "q1").records == 2
    for wrong, named in (
        (("2 records", "soon"), "templates.market.flash.'Up?'.outcome"),
        (("1 record", "soon"), "templates.market.outcomes.q1"),
    ):
        with pytest.raises(ConfigError) as fault:
            load(write(tmp_path, text.replace(*wrong)))
        assert str(fault.value).count(named) == 1
        assert str(fault.value).count("soon") == 1


def test_outcomes_are_the_configurations_and_no_sessions(tmp_path: Path) -> None:
    plain = load(write(tmp_path, GOOD)).templates["market"]
    outcome = OUTCOME.format("q1", "5 records", "yes if close > close@0 else no")
    template = load(write(tmp_path, GOOD + outcome)).templates["market"]
    assert template.spec() == plain.spec()
    assert outcome_rule(template, "q1").records == 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('preset = "cryptofeed"', 'preset = "cryptofed"'), ["feeds.candles.preset", "cryptofeed"]),
        (('template = "market"', 'tempalte = "market"'), ["feeds.candles.tempalte", "template"]),
        (('template = "market"', 'template = "markt"'), ["feeds.candles.template", "market"]),
        (('topics = ["candles-*"]', "topics = []"), ["feeds.candles.topics", "length >= 1"]),
        (('topics = ["candles-*"]', "topics = 7"), ["feeds.candles.topics", "array", "7"]),
        (('type = "ohlcv"', 'type = "ohlc"'), ["templates.market.type", "ohlc"]),
        (('type = "ohlcv"', 'type = "iot"'), ["feeds.candles.template", "iot", "ohlcv"]),
        (('choices = ["yes", "no"]', 'choices = ["yes"]'), ["templates.market", "2 to 16 choices"]),
        (('query = "Up?"', 'quer = "Up?"'), ["templates.market.flash[0].quer", "query"]),
        (("[feeds.candles]", "[kafka]\nbroker='x'\n[feeds.candles]"), ["kafka.broker", "brokers"]),
        (("[feeds.candles]", "[bridge]\nport=99999\n[feeds.candles]"), ["bridge.port", "65535"]),
        (('type = "ohlcv"', 'type = "ohlcv"\ntext = "iot"'), ["templates.market.text", "ohlcv"]),
        (
            ('type = "ohlcv"', 'type = "ohlcv"\nwindow = { mode = "exakt" }'),
            ["templates.market.window.mode", "exakt"],
        ),
        (('type = "ohlcv"', 'type = "ohlcv"\ncontext = 99999'), ["context", "4096"]),
        (
            ("[templates.market]", OUTCOME.format("q2", "1 record", "yes") + "[templates.market]"),
            ["templates.market.outcomes.q2", "q1"],
        ),
        (
            ("[templates.market]", OUTCOME.format("q1", "soon", "yes") + "[templates.market]"),
            ["templates.market.outcomes.q1", "after", "5 records", "soon"],
        ),
        (
            ("[templates.market]", OUTCOME.format("q1", "1 record", "up") + "[templates.market]"),
            ["templates.market.outcomes.q1", "choices yes, no", "character 1"],
        ),
        (("[feeds.candles]", "[feeds.candles]\ntime = 'start:year'"), ["feeds.candles", "start"]),
        (("[feeds.candles]", "[feeds.candles]\ncodec = 'jsn'"), ["feeds.candles.codec", "json"]),
        (("[feeds.candles]", "[feeds.candles]\nsession = '{sym}'"), ["feeds.candles.session"]),
        (("[feeds.candles]", "[model.x]\n[feeds.candles]"), ["model.x", "source"]),
        (
            ("[feeds.candles]", "[model.x]\nsource='p'\nsha256='z'\n[feeds.candles]"),
            ["model.x.sha256", "[0-9a-f]"],
        ),
        (("[feeds.candles]", "[models]\ndir=[]\n[feeds.candles]"), ["models.dir", "dirs"]),
        (
            ("[feeds.candles]", "[engine]\nkv_type='q4'\n[feeds.candles]"),
            ["engine.kv_type", "q4"],
        ),
        (
            ("[feeds.candles]", "[engine]\nsnapshot_interval_s = 0\n[feeds.candles]"),
            ["engine.snapshot_interval_s", "0"],
        ),
        (
            ("[feeds.candles]", "[engine]\nkv_bytes_max = -1\n[feeds.candles]"),
            ["engine.kv_bytes_max", "-1"],
        ),
        (
            ("[feeds.candles]", "[kafka.sasl]\nusername='u'\n[feeds.candles]"),
            ["kafka.sasl", "password_env"],
        ),
        (
            ("[feeds.candles]", "[bridge]\nhost = '0.0.0.0'\n[feeds.candles]"),
            ["bridge.host", "0.0.0.0", "bridge.keys_file", "flashfeed keys new"],
        ),
        (
            ("[feeds.candles]", "[bridge]\nmetrics_key_env = 'X'\n[feeds.candles]"),
            ["bridge.metrics_key_env", "bridge.api_keys_env"],
        ),
        (
            ("[feeds.candles]", "[bridge]\ntls_cert = 'c.pem'\n[feeds.candles]"),
            ["bridge.tls_key", "expected a file"],
        ),
        (
            ("[feeds.candles]", "[bridge]\ncors_origins = ['app.example.com']\n[feeds.candles]"),
            ["bridge.cors_origins", "https://app.example.com", "app.example.com"],
        ),
        (
            ("[feeds.candles]", "[bridge]\ncors_origins = ['*']\n[feeds.candles]"),
            ["bridge.cors_origins", "needs API keys"],
        ),
        (
            ("[feeds.candles]", "[bridge.limits]\nsession = 1\n[feeds.candles]"),
            ["bridge.limits.session", "sessions"],
        ),
        (
            ("[feeds.candles]", "[bridge.limits]\nconnections = -1\n[feeds.candles]"),
            ["bridge.limits.connections", "-1"],
        ),
        (
            ('type = "ohlcv"', 'type = "ohlcv"\ntenant = "a b"'),
            ["templates.market.tenant", "A-Z", "a b"],
        ),
        (
            ("[feeds.candles]", "[feeds.candles]\ncodec = 'arvo'"),
            ["feeds.candles.codec", 'got "arvo"', "did you mean 'avro'"],
        ),
        (
            ("[feeds.candles]", "[feeds.candles]\ncodec = 'csv'\ncodec_options = {colums = []}"),
            ["feeds.candles.codec_options", "colums", "did you mean 'columns'"],
        ),
        (
            ("[feeds.candles]", "[feeds.candles]\ncodec = 'avro'"),
            ["feeds.candles.codec_options: schema_file", "[schema_registry]"],
        ),
        (
            ("[feeds.candles]", "[schema_registry]\nurl = 'registry:8081'\n[feeds.candles]"),
            ["schema_registry.url", "registry:8081"],
        ),
        (
            (
                "[feeds.candles]",
                "[schema_registry]\nurl = 'http://r'\nkind = 'glue'\n[feeds.candles]",
            ),
            ["schema_registry.kind", "glue"],
        ),
        (
            (
                "[feeds.candles]",
                "[schema_registry]\nurl = 'http://r'\nusername = 'u'\n[feeds.candles]",
            ),
            ["schema_registry", "password_env"],
        ),
        (
            (
                "[feeds.candles]",
                "[schema_registry]\nurl = 'https://u:p@ss@r/x'\n[feeds.candles]",
            ),
            ["schema_registry", "without a login"],
        ),
        (
            ("[feeds.candles]", "[log]\nformat = 'xml'\n[feeds.candles]"),
            ["log.format", "xml"],
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: Any, says: list[str]) -> None:
    old, new = change
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, GOOD.replace(old, new, 1)))
    for part in says:
        assert part in str(caught.value)


def test_keys_come_from_the_environment_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.toml"
    in_file, in_variable = "a key in the file", "one-in-the-variable"
    keys.write_text(
        f'[tenant.a]\nkeys = ["{written_hash(in_file)}"]\nlimits = {{ sessions = 1 }}\n'
    )
    table = (
        f'[bridge]\nhost = "0.0.0.0"\napi_keys_env = "X_KEYS"\nkeys_file = "{keys}"\n'
        "[bridge.limits]\nconnections = 5\n"
    )
    config = load(write(tmp_path, GOOD + table))
    with pytest.raises(ConfigError, match="X_KEYS is not set"):
        bridge_settings(config)
    monkeypatch.setenv("X_KEYS", "b:short")
    with pytest.raises(ConfigError, match=r"environment variable X_KEYS: key 1, of tenant b"):
        bridge_settings(config)
    monkeypatch.setenv("X_KEYS", f"b:{in_variable}")
    settings = bridge_settings(config)
    assert settings.keys.authenticate(in_file) == "a"
    assert settings.keys.authenticate(in_variable) == "b"
    assert settings.limits == LimitsConfig(connections=5)
    assert settings.tenant_limits == {"a": LimitsConfig(sessions=1, connections=5)}
    for secret in (in_file, in_variable):
        assert secret not in repr(settings)


def test_the_metrics_key_comes_from_the_environment_and_is_no_tenants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = '[bridge]\napi_keys_env = "X_KEYS"\nmetrics_key_env = "X_METRICS"\n'
    config = load(write(tmp_path, GOOD + table))
    monkeypatch.setenv("X_KEYS", "b:one-of-a-tenant-s")
    with pytest.raises(ConfigError, match="X_METRICS is not set"):
        bridge_settings(config)
    for wrong, says in ("much-too-short", "16 to 512 bytes"), ("one-of-a-tenant-s", "a tenant's"):
        monkeypatch.setenv("X_METRICS", wrong)
        with pytest.raises(ConfigError, match=f"variable X_METRICS: .*{says}") as caught:
            bridge_settings(config)
        assert wrong not in str(caught.value)
    monkeypatch.setenv("X_METRICS", "one-of-the-metrics\n")
    settings = bridge_settings(config)
    assert settings.metrics_key.authenticate("one-of-the-metrics") is not None
    assert settings.keys.authenticate("one-of-the-metrics") is None
    assert "one-of-the" not in repr(settings)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("cryptofeed", "nope").replace('template = "market"', 'template = "x"')
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert len(str(caught.value).splitlines()) >= 2


@pytest.mark.parametrize("text", ["[kafka", "\x00", None])
def test_what_is_no_toml_is_told(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "x.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.toml"):
        load(path)


def test_check_ends_with_a_code_and_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "-c", str(write(tmp_path, GOOD))])
    assert ended.value.code == 0
    assert "good" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["check", "-c", str(write(tmp_path, GOOD.replace("ohlcv", "candle")))])
    assert ended.value.code == 2
    assert "templates.market.type" in capsys.readouterr().err


def test_check_says_whose_sessions_no_key_sees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys.toml").write_text(f'[tenant.acme]\nkeys = ["sha256:{"0" * 64}"]\n')
    keyed = GOOD + f'\n[bridge]\nkeys_file = "{tmp_path / "keys.toml"}"\n'
    owned = keyed.replace('type = "ohlcv"', 'type = "ohlcv"\ntenant = "acme"')
    for text, said in ((GOOD, False), (keyed, True), (owned, False)):
        with pytest.raises(SystemExit) as ended:
            main(["check", "-c", str(write(tmp_path, text))])
        out = capsys.readouterr().out
        assert (ended.value.code, "no key sees these sessions" in out) == (0, said), out


def test_check_names_a_secret_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "[kafka.sasl]\nusername='u'\npassword_env='NO_SUCH_SECRET'\n" + GOOD
    with pytest.raises(SystemExit) as ended:
        main(["check", "-c", str(write(tmp_path, text))])
    assert ended.value.code == 2
    monkeypatch.setenv("NO_SUCH_SECRET", "s3cret")
    with pytest.raises(SystemExit) as ended:
        main(["check", "-c", str(write(tmp_path, text))])
    assert ended.value.code == 0


def test_a_registry_serves_feeds_that_name_no_file(tmp_path: Path) -> None:
    registry = "[schema_registry]\nurl = 'http://127.0.0.1:9'\ntoken_env = 'NO_SUCH_SECRET'\n"
    text = registry + GOOD.replace("[feeds.candles]", "[feeds.candles]\ncodec = 'avro'")
    config = load(write(tmp_path, text))  # nothing is asked of it before the worker runs
    assert config.schema_registry is not None and config.schema_registry.kind == "confluent"
    with pytest.raises(SystemExit) as ended:
        main(["check", "-c", str(write(tmp_path, text))])
    assert ended.value.code == 2  # the secret is not there


@pytest.mark.parametrize("command", ["", "worker", "check", "tune", "tail", "broker", "demo"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert "usage: flashfeed" in capsys.readouterr().out
