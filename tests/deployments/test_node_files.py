"""Container files, units and manifests of a cluster: held against the schemas and linters of those who read them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deployments.cluster_fixtures import command

ROOT = Path(__file__).parents[2] / "deployments"
LINTERS = Path("/opt/manifests")
"""Where tests/system_packages.sh puts them, apart from the project's environment."""
VALUES = {"CLUSTER_HOST": "127.0.0.1", "CLUSTER_ADDRESS": "tls://127.0.0.1:1"}


def _lint(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60, check=False)


def _commands() -> dict[str, list[str]]:
    """Return the words after `detector-pool` in each file, by where they stand."""
    found = {}
    for unit in sorted((ROOT / "systemd").iterdir()):
        (line,) = re.findall(r"^ExecStart=\S+/detector-pool (.*)$", unit.read_text(), re.MULTILINE)
        found[unit.name] = [VALUES.get(word.strip("${}"), word) for word in shlex.split(line)]
    compose = yaml.safe_load((ROOT / "containers" / "compose.yaml").read_text())
    return found | {name: service["command"] for name, service in compose["services"].items()}


@pytest.mark.parametrize(
    "name", ["detector-pool-cluster.service", "detector-pool-workers.service", "scheduler", "workers"]
)
def test_what_they_run_is_understood(name: str, tmp_path: Path) -> None:
    """When this fails, a service starts over and over, since an option has another name."""
    words = _commands()[name]
    done = subprocess.run(
        command(*words), env={**os.environ, "DETECTOR_POOL_HOME": str(tmp_path)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip

    assert words[0] == "cluster"
    assert done.returncode == 2
    assert "needs certificates" in done.stderr
    assert len(_commands()) == 4


@pytest.mark.system
def test_units_are_understood_by_systemd(tmp_path: Path) -> None:
    """When this fails, systemd ignores a line, or refuses the unit."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing here")
    for unit in (ROOT / "systemd").iterdir():
        text = unit.read_text().replace("/opt/detector-pool/.venv/bin/detector-pool", sys.executable)
        (tmp_path / unit.name).write_text(text)
    done = _lint("systemd-analyze", "verify", "--man=no", *tmp_path.iterdir())

    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line or "detector-pool" in line] == []


@pytest.mark.system
def test_container_files_pass_their_linter_and_schema() -> None:
    """When this fails, an engine refuses the files, or an image is built in a way that its linter warns of."""
    if not LINTERS.exists():
        pytest.skip("linters are missing; tests/system_packages.sh installs them")
    programs = LINTERS / "bin"
    image = _lint(programs / "hadolint", ROOT / "containers" / "Containerfile")
    compose = _lint(
        programs / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "containers" / "compose.yaml"
    )

    assert image.returncode == 0, image.stdout
    assert compose.returncode == 0, compose.stdout


def _closed(schema: Any) -> Any:
    """Return a schema that refuses what it does not name, as a cluster drops it without a word."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _closed(value) for name, value in schema.items()}
    if isinstance(made.get("properties"), dict) and "type" in made:
        made.setdefault("additionalProperties", False)
    return made


@pytest.mark.system
def test_manifests_are_of_their_schemas(tmp_path: Path) -> None:
    """When this fails, Kubernetes refuses the manifests, or drops a field that has another name."""
    if not LINTERS.exists():
        pytest.skip("linters are missing; tests/system_packages.sh installs them")
    cluster, policy = yaml.safe_load_all((ROOT / "kubernetes" / "cluster.yaml").read_text())
    (file,) = LINTERS.rglob("dask_kubernetes/operator/deployment/helm/*/crds/daskcluster.yaml")
    (version,) = yaml.safe_load(file.read_text())["spec"]["versions"]
    spec = _closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    jsonschema.validate(cluster["spec"], spec)
    misspelt = {**cluster["spec"], "worker": {**cluster["spec"]["worker"], "replica": 2}}
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(misspelt, spec)
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    done = _lint(LINTERS / "bin" / "kubernetes-validate", "--strict", tmp_path / "policy.yaml")

    assert f"kubernetes.dask.org/{version['name']}" == cluster["apiVersion"]
    assert done.returncode == 0, done.stdout + done.stderr
