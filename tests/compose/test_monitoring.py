"""Prometheus', Alertmanager's and Grafana's files, and what they name of one another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from flashfeed.cli.settings import load

from deployment import COMPOSE, ROOT, read
from prometheus_tools import amtool, promtool

SERVICES = read("compose.yaml")["services"]
ALERTS = ROOT / "dashboards" / "alerts.yml"


def mounted(service: str) -> dict[str, Path]:
    """Where a service's files are in its container, and here."""
    mounts = [one.split(":") for one in SERVICES[service]["volumes"]]
    return {one[1]: (COMPOSE / one[0]).resolve() for one in mounts if one[0].startswith(".")}


def laid_out(service: str, into: Path) -> Path:
    """A service's files as its container has them, below a folder."""
    for place, here in mounted(service).items():
        target = into / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(here, target) if here.is_dir() else shutil.copy(here, target)
    return into


def flag(service: str, name: str) -> str:
    [value] = [one.split("=")[1] for one in SERVICES[service]["command"] if one.startswith(name)]
    return value


def test_prometheus_reads_its_configuration_and_our_alerts(tmp_path: Path) -> None:
    config = laid_out("prometheus", tmp_path) / flag("prometheus", "--config.file").lstrip("/")
    text = config.read_text()
    for name in SERVICES["prometheus"]["secrets"]:
        place = f"/run/secrets/{name}"
        assert place in text
        (tmp_path / name).write_text("k" * 64)
        text = text.replace(place, str(tmp_path / name))
    config.write_text(text)
    ran = promtool("check", "config", str(config))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 rule files found" in ran.stdout


def test_prometheus_scrapes_workers_and_probe_under_the_names_of_the_alerts() -> None:
    jobs = {one["job_name"]: one for one in read("prometheus.yml")["scrape_configs"]}
    [discovery] = jobs["flashfeed"]["dns_sd_configs"]
    assert discovery["names"] == ["flashfeed"] and "flashfeed" in SERVICES
    assert SERVICES["flashfeed"]["ports"][0].endswith(f":{discovery['port']}")
    [name] = SERVICES["prometheus"]["secrets"]
    variable = read("compose.yaml")["secrets"][name]["environment"]
    assert variable == load(COMPOSE / "flashfeed.toml").bridge.metrics_key_env
    assert variable in SERVICES["flashfeed"]["environment"]
    [probe] = jobs["flashfeed-probe"]["static_configs"][0]["targets"]
    command = SERVICES["probe"]["command"]
    assert probe == f"probe:{command[command.index('--port') + 1]}"
    assert 'job="flashfeed"' in ALERTS.read_text()


def test_alerts_reach_an_alertmanager_that_reads_its_configuration(tmp_path: Path) -> None:
    name = flag("alertmanager", "--config.file")
    config = laid_out("alertmanager", tmp_path) / name.lstrip("/")
    ran = amtool("check-config", str(config))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [managers] = read("prometheus.yml")["alerting"]["alertmanagers"]
    [target] = managers["static_configs"][0]["targets"]
    assert target.split(":")[0] in SERVICES


def test_every_severity_goes_to_a_receiver_of_its_own(tmp_path: Path) -> None:
    rules = [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]
    severities = {rule["labels"]["severity"] for rule in rules if "alert" in rule}
    went = {}
    for severity in severities:
        config = str(COMPOSE / "alertmanager.yml")
        ran = amtool("config", "routes", "test", f"--config.file={config}", f"severity={severity}")
        assert ran.returncode == 0, ran.stderr
        went[severity] = ran.stdout.strip()
    assert went == {"page": "now", "ticket": "today"}


def test_grafana_finds_the_datasource_and_every_dashboard(tmp_path: Path) -> None:
    home = laid_out("grafana", tmp_path) / "etc" / "grafana"
    [source] = yaml.safe_load((home / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    port = SERVICES["prometheus"]["ports"][0].split(":")[-1]
    assert source["url"] == f"http://prometheus:{port}"
    assert source["type"] == "prometheus" and source["isDefault"]
    [provider] = yaml.safe_load((home / "provisioning/dashboards/flashfeed.yaml").read_text())[
        "providers"
    ]
    folder = tmp_path / provider["options"]["path"].lstrip("/")
    found = {json.loads(path.read_text())["uid"] for path in folder.glob("*.json")}
    wanted = {path.stem for path in (ROOT / "dashboards" / "json").glob("*.json")}
    assert found == {f"flashfeed-{name}" for name in wanted}
    start = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (tmp_path / start.lstrip("/")).is_file()
