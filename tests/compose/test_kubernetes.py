"""The Kubernetes example: valid, and of one mind with its configuration."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from flashfeed.bridge.gate import METRICS_PATH, OPEN_PATHS
from flashfeed.cli.main import parser
from flashfeed.cli.settings import load

from boards import ALERTS, rule_text
from deployment import COMPOSE, KUBERNETES, kubernetes_faults, manifest, manifests

CONFIG = load(KUBERNETES / "flashfeed.toml")
POD = manifest("StatefulSet")["spec"]["template"]
[WORKER] = POD["spec"]["containers"]
ENVIRONMENT = {one["name"]: one for one in WORKER["env"]}


@pytest.mark.parametrize(
    "document", manifests(), ids=lambda one: f"{one['kind']} {one['metadata']['name']}"
)
def test_the_schemas_have_nothing_against_it(document) -> None:
    assert kubernetes_faults(document) == []


@pytest.mark.parametrize("kind", ["StatefulSet", "PodMonitor", "PrometheusRule", "ScaledObject"])
def test_the_schemas_would_say_what_is_wrong(kind: str) -> None:
    document = manifest(kind)
    document["spec"]["replicaz"] = 3
    assert kubernetes_faults(document)


def test_kubectl_puts_it_together() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    ran = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    made = list(yaml.safe_load_all(ran.stdout))
    assert {one["kind"] for one in made} == {one["kind"] for one in manifests()} | {"ConfigMap"}
    [config] = [one for one in made if one["kind"] == "ConfigMap"]
    [pods] = [one["spec"]["template"]["spec"] for one in made if one["kind"] == "StatefulSet"]
    assert config["data"]["flashfeed.toml"] == (KUBERNETES / "flashfeed.toml").read_text()
    assert config["metadata"]["name"] in [
        one["configMap"]["name"] for one in pods["volumes"] if "configMap" in one
    ]
    assert pods["containers"][0]["image"] != WORKER["image"]


def test_probes_ask_routes_that_want_no_key() -> None:
    paths = {name: WORKER[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert paths == {"liveness": "/livez", "readiness": "/readyz"}
    assert set(paths.values()) <= OPEN_PATHS
    [port] = WORKER["ports"]
    assert port["containerPort"] == CONFIG.bridge.port


def test_a_worker_is_a_static_member_of_the_group_under_its_own_name() -> None:
    assert ENVIRONMENT["POD"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert ENVIRONMENT[CONFIG.kafka.instance_id_env]["value"] == "$(POD)"
    # A pod that is deleted may take its grace to stop, and a while to start.
    assert CONFIG.kafka.session_timeout_s == CONFIG.kafka.request_timeout_s


def test_workers_reach_one_another_by_the_headless_service() -> None:
    name = manifest("StatefulSet")["spec"]["serviceName"]
    [headless] = [one for one in manifests() if one["spec"].get("clusterIP") == "None"]
    assert headless["metadata"]["name"] == name
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert ENVIRONMENT["FLASHFEED_SELF"]["value"] == f"$(POD).{name}"
    for service in (one for one in manifests() if one["kind"] == "Service"):
        assert service["spec"]["selector"].items() <= POD["metadata"]["labels"].items()


def test_its_secrets_come_from_a_secret_that_no_file_holds() -> None:
    bridge = CONFIG.bridge
    for name in (bridge.api_keys_env, bridge.metrics_key_env, CONFIG.cluster.secret_env):
        reference = ENVIRONMENT[name]["valueFrom"]["secretKeyRef"]
        assert f"--from-literal={reference['key']}=" in (COMPOSE / "README.md").read_text()
    assert "Secret" not in {one["kind"] for one in manifests()}


def test_what_is_mounted_is_a_volume() -> None:
    volumes = {one["name"] for one in POD["spec"]["volumes"]}
    claims = manifest("StatefulSet")["spec"]["volumeClaimTemplates"]
    volumes |= {one["metadata"]["name"] for one in claims}
    assert {one["name"] for one in WORKER["volumeMounts"]} == volumes
    places = {one["name"]: one["mountPath"] for one in WORKER["volumeMounts"]}
    assert CONFIG.engine.snapshots.startswith(places["data"])


def test_it_is_as_many_threads_and_as_much_memory_as_are_asked_for() -> None:
    asked = WORKER["resources"]["requests"]
    assert str(CONFIG.engine.threads) == asked["cpu"]
    gibibytes = int(re.fullmatch(r"(\d+)Gi", asked["memory"])[1])
    assert CONFIG.engine.kv_bytes_max < gibibytes * 2**30 / 2


def test_keda_scales_by_the_lag_of_our_group_up_to_its_partitions() -> None:
    spec = manifest("ScaledObject")["spec"]
    [trigger] = spec["triggers"]
    assert trigger["metadata"]["bootstrapServers"] == CONFIG.kafka.brokers
    assert trigger["metadata"]["consumerGroup"] == CONFIG.kafka.group
    assert trigger["metadata"]["topic"] == CONFIG.topics.records
    assert spec["maxReplicaCount"] == CONFIG.kafka.partitions
    target = manifest("StatefulSet")
    assert spec["scaleTargetRef"] == {
        "apiVersion": target["apiVersion"],
        "kind": target["kind"],
        "name": target["metadata"]["name"],
    }
    assert "replicas" not in target["spec"]  # or each `kubectl apply` undoes what KEDA did


def test_prometheus_may_scrape_the_pods_under_the_name_of_the_alerts() -> None:
    monitor = manifest("PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= POD["metadata"]["labels"].items()
    [endpoint] = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in [one["name"] for one in WORKER["ports"]]
    assert endpoint["path"] == METRICS_PATH
    key = endpoint["authorization"]["credentials"]
    assert key == ENVIRONMENT[CONFIG.bridge.metrics_key_env]["valueFrom"]["secretKeyRef"]
    assert job_of(endpoint) == "flashfeed"


def test_the_probe_runs_and_is_scraped_under_the_name_of_the_alerts() -> None:
    deployment = manifest("Deployment", "flashfeed-probe")["spec"]
    pod = deployment["template"]
    assert deployment["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    [probe] = pod["spec"]["containers"]
    words = [*probe["command"], *probe["args"]]
    assert words[0] == "flashfeed"
    given = parser().parse_args(words[1:])
    assert (given.command, given.host) == ("probe", "0.0.0.0")
    assert 0 < given.every < 300  # FlashfeedProbeFailing takes more for a probe that hangs
    [port] = probe["ports"]
    assert port["containerPort"] == given.port
    assert probe["livenessProbe"]["httpGet"]["port"] == port["name"]
    # The configuration is where the worker's is.
    mounts = {one["name"]: one["mountPath"] for one in probe["volumeMounts"]}
    assert str(given.config) == f"{mounts['config']}/flashfeed.toml"
    configs = [
        [one["configMap"] for one in spec["volumes"] if one["name"] == "config"]
        for spec in (pod["spec"], POD["spec"])
    ]
    assert configs[0] == configs[1]
    monitor = manifest("PodMonitor", "flashfeed-probe")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    [endpoint] = monitor["podMetricsEndpoints"]
    assert (endpoint["port"], job_of(endpoint)) == (port["name"], "flashfeed-probe")
    # No service of the workers takes it for one.
    for service in (one for one in manifests() if one["kind"] == "Service"):
        assert not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


def job_of(endpoint) -> str:
    return {one["targetLabel"]: one.get("replacement") for one in endpoint["relabelings"]}["job"]


def test_the_rule_holds_the_alerts() -> None:
    written = (KUBERNETES / "prometheusrule.yaml").read_text()
    assert written == rule_text(ALERTS.read_text()), "run: make dashboards"
    assert manifest("PrometheusRule")["spec"] == yaml.safe_load(ALERTS.read_text())
