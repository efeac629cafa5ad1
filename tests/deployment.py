"""The deployment's files, and the schemas that others published for such files.

Docker Compose's schema and the operators' come with their Go modules, Kubernetes' with a
Python package; each is fetched into its usual cache once, and a test that wants one is
skipped where it cannot be had.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from jsonschema import Draft7Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from client_packages import python_package

ROOT: Final = Path(__file__).parents[1]
COMPOSE: Final = ROOT / "compose"
KUBERNETES: Final = COMPOSE / "kubernetes"
KUBERNETES_VERSION: Final = "v1.34.0"
KUBERNETES_SCHEMAS: Final = "kubernetes-validate==1.37.0"
COMPOSE_GO: Final = "github.com/compose-spec/compose-go/v2@v2.16.2"
OPERATORS: Final = {
    "PrometheusRule": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "PodMonitor": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
    "ScaledObject": (
        "github.com/kedacore/keda/v2@v2.21.0",
        "config/crd/bases/keda.sh_scaledobjects.yaml",
    ),
}


def read(name: str) -> Any:
    """A YAML file of compose/."""
    return yaml.safe_load((COMPOSE / name).read_text())


def manifests() -> list[dict[str, Any]]:
    """What Kubernetes is given, as the kustomization names it."""
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [one for name in names for one in yaml.safe_load_all((KUBERNETES / name).read_text())]


def manifest(kind: str, name: str = "flashfeed") -> dict[str, Any]:
    """The one manifest of a kind and name."""
    [found] = [one for one in manifests() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


@cache
def go_module(name: str) -> Path:
    """The folder of a Go module, `path@version`."""
    if shutil.which("go") is None:
        pytest.skip(f"needs go, for {name}")
    ran = subprocess.run(
        ["go", "mod", "download", "-json", name],
        cwd="/", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if ran.returncode:
        pytest.skip(f"needs {name}: {ran.stdout}{ran.stderr}")
    return Path(json.loads(ran.stdout)["Dir"])


def compose_faults(document: Any) -> list[str]:
    """What the Compose specification's schema has against a file."""
    text = (go_module(COMPOSE_GO) / "schema" / "compose-spec.json").read_text()
    schema = json.loads(text)
    return _faults(validator_for(schema)(schema), document)


def kubernetes_faults(document: dict[str, Any]) -> list[str]:
    """What Kubernetes' schemas, or an operator's, have against a manifest. Fields that they
    do not know are faults too."""
    if document["kind"] in OPERATORS:
        return _faults(Draft7Validator(_operator_schema(document)), document)
    folder = python_package(KUBERNETES_SCHEMAS) / "kubernetes_validate" / "kubernetes-json-schema"
    schemas = folder / f"{KUBERNETES_VERSION}-local-strict"

    def retrieve(uri: str) -> Resource[Any]:
        text = (schemas / uri.rsplit("/", 1)[-1]).read_text()
        return Resource.from_contents(json.loads(text), default_specification=DRAFT7)

    group, _, version = document["apiVersion"].rpartition("/")
    parts = [document["kind"].lower(), *([group.split(".")[0]] if group else []), version]
    name = "-".join(parts) + ".json"
    registry: Registry[Any] = Registry(retrieve=retrieve)  # type: ignore[call-arg]
    return _faults(Draft7Validator(retrieve(name).contents, registry=registry), document)


def _operator_schema(document: dict[str, Any]) -> dict[str, Any]:
    module, path = OPERATORS[document["kind"]]
    definition = yaml.safe_load((go_module(module) / path).read_text())["spec"]
    group, version = document["apiVersion"].split("/")
    assert (definition["group"], definition["names"]["kind"]) == (group, document["kind"])
    [schema] = [
        one["schema"]["openAPIV3Schema"] for one in definition["versions"] if one["name"] == version
    ]
    _close(schema["properties"]["spec"])
    return schema


def _close(schema: Any) -> None:
    """Have a definition's schema refuse what it does not name, as the API server drops it."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for one in schema.values():
            _close(one)
    elif isinstance(schema, list):
        for one in schema:
            _close(one)


def _faults(validator: Any, document: Any) -> list[str]:
    return [f"{one.json_path}: {one.message[:300]}" for one in validator.iter_errors(document)]


def strings(value: Any) -> Iterator[str]:
    """Every string in a document, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
