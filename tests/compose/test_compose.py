"""compose.yaml: valid, bounded, closed to the outside, and without secrets."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flashfeed.bridge.gate import OPEN_PATHS
from flashfeed.cli.main import parser
from flashfeed.cli.settings import bridge_settings, cluster_peers, load

from deployment import COMPOSE, ROOT, compose_faults, read, strings

FILE = read("compose.yaml")
SERVICES: dict[str, Any] = FILE["services"]
OWN = [name for name, one in SERVICES.items() if one["image"].startswith("flashfeed")]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_the_specification_s_schema_has_nothing_against_it(name: str) -> None:
    assert compose_faults(read(name)) == []


def test_the_schema_would_say_what_is_wrong() -> None:
    wrong = copy.deepcopy(FILE)
    wrong["services"]["flashfeed"]["healthchek"] = {}
    assert compose_faults(wrong)


def test_everything_that_is_asked_for_is_there() -> None:
    assert set(SERVICES) == {
        "kafka", "flashfeed", "probe", "feed", "prometheus", "alertmanager", "grafana",
    }  # fmt: skip
    assert SERVICES["feed"]["profiles"] == ["demo"]
    assert set(read("compose.cuda.yaml")["services"]) == set(OWN)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    for mount in SERVICES[name].get("volumes", ()):
        source, target, *_ = mount.split(":")
        assert target.startswith("/")
        if source.startswith("."):
            assert (COMPOSE / source).resolve().exists(), mount
            assert mount.endswith(":ro"), mount
        else:
            assert source in FILE["volumes"], mount


def test_every_volume_is_used() -> None:
    mounted = {
        one.split(":")[0] for service in SERVICES.values() for one in service.get("volumes", ())
    }
    assert set(FILE["volumes"]) <= mounted


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_alone(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:"), port


@pytest.mark.parametrize("name", SERVICES)
def test_each_is_bounded_watched_and_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert "memory" in service["deploy"]["resources"]["limits"]
    assert "cpus" in service["deploy"]["resources"]["limits"] or "cpuset" in service
    assert service["cap_drop"] == ["ALL"]
    assert "test" in service["healthcheck"] or name == "feed"  # which ends
    assert ":" in service["image"] and not service["image"].endswith(":latest")


def test_what_is_secret_comes_from_the_environment() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("KEY|SECRET|PASSWORD", name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?.*secrets\.sh.*\}", value), name


def test_the_secrets_are_random_and_stay_out_of_git_and_of_the_image(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_bytes((COMPOSE / "secrets.sh").read_bytes())
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    written = tmp_path / ".env"
    assert written.stat().st_mode & 0o777 == 0o600
    lines = [line for line in written.read_text().splitlines() if not line.startswith("#")]
    values = dict(line.split("=", 1) for line in lines)
    wanted = {
        found for text in strings(SERVICES) for found in re.findall(r"\$\{([A-Z_]+):\?", text)
    }
    assert set(values) == wanted | {"COMPOSE_PROFILES"}
    secrets = {values[name].rsplit(":", 1)[-1] for name in wanted}
    assert len(secrets) == len(wanted)
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in secrets)
    assert set(values["COMPOSE_PROFILES"].split(",")) == {
        profile for one in SERVICES.values() for profile in one.get("profiles", ())
    }
    again = subprocess.run(["sh", str(script)], check=False, capture_output=True, text=True)
    assert again.returncode == 1 and "is there already" in again.stderr
    assert ".env" in (COMPOSE / ".gitignore").read_text().split()
    ignored = (COMPOSE / "Dockerfile.dockerignore").read_text()
    assert "\n*\n" in ignored and "!compose\n" not in ignored


def test_the_configuration_loads_and_its_secrets_are_enough(monkeypatch) -> None:
    config = load(COMPOSE / "flashfeed.toml")
    environment = SERVICES["flashfeed"]["environment"]
    bridge = config.bridge
    secrets = {bridge.api_keys_env, bridge.metrics_key_env, config.cluster.secret_env}
    assert secrets == set(environment)
    monkeypatch.setenv(bridge.metrics_key_env, "c" * 64)
    monkeypatch.setenv(config.bridge.api_keys_env, "demo:" + "a" * 64)
    monkeypatch.setenv(config.cluster.secret_env, "b" * 64)
    assert cluster_peers(config) is not None
    # No session of the demo's feeds is out of the key's sight.
    assert {one.tenant for one in config.templates.values()} == {"demo"}
    assert bridge_settings(config).keys.tenants == ["demo"]
    assert bridge_settings(config).metrics_key


def test_the_brokers_are_those_that_the_file_starts() -> None:
    config = load(COMPOSE / "flashfeed.toml")
    kafka = SERVICES["kafka"]["environment"]
    assert f"INSIDE://{config.kafka.brokers}" in kafka["KAFKA_ADVERTISED_LISTENERS"]
    assert config.kafka.brokers in SERVICES["feed"]["command"]
    published = SERVICES["kafka"]["ports"][0].removesuffix(":9092")
    assert f"OUTSIDE://{published}" in kafka["KAFKA_ADVERTISED_LISTENERS"]


def test_the_worker_s_health_check_is_a_route_that_asks_for_no_key() -> None:
    config = load(COMPOSE / "flashfeed.toml")
    asked = re.search(
        r"http://127\.0\.0\.1:(\d+)(/\w+)", SERVICES["flashfeed"]["healthcheck"]["test"][-1]
    )
    assert asked is not None
    assert int(asked[1]) == config.bridge.port
    assert asked[2] in OPEN_PATHS
    assert SERVICES["flashfeed"]["ports"][0].endswith(f":{config.bridge.port}")


def test_the_probe_s_command_is_one() -> None:
    probe = SERVICES["probe"]
    words = [*probe["entrypoint"], *probe["command"]]
    assert words[0] == "flashfeed"
    given = parser().parse_args(words[1:])
    assert given.host == "0.0.0.0"
    asked = f"http://127.0.0.1:{given.port}/metrics"
    assert asked in probe["healthcheck"]["test"][-1]
    assert f"{given.config}" in probe["volumes"][0]


def test_docker_compose_reads_it_where_there_is_one() -> None:
    # compose config resolves what the schema cannot: variables, anchors, profiles, extends.
    command = ["docker", "compose"]
    try:
        subprocess.run([*command, "version"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs docker compose")
    names = set(re.findall(r"\$\{([A-Z_]+):\?", (COMPOSE / "compose.yaml").read_text()))
    files = ["-f", "compose.yaml", "-f", "compose.cuda.yaml"]
    ran = subprocess.run(
        [*command, *files, "--profile", "*", "config", "--quiet"],
        cwd=COMPOSE, env={**os.environ, **dict.fromkeys(names, "x")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_the_readme_names_what_there_is() -> None:
    text = (COMPOSE / "README.md").read_text()
    for name in SERVICES:
        assert f"`{name}`" in text, name
    for path in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (COMPOSE / path).exists(), path
    assert "compose/README.md" in (ROOT / "README.md").read_text()
