"""examples/cluster: the demo loses nothing, and its manifests say what the command line understands."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cli.processes import environment, fotahook

ROOT: Final = Path(__file__).parents[2]
CLUSTER: Final = ROOT / "examples" / "cluster"
MANIFESTS: Final = sorted((CLUSTER / "kubernetes").glob("*.yaml"))


def documents() -> list[dict[str, Any]]:
    return [one for manifest in MANIFESTS for one in yaml.safe_load_all(manifest.read_text())]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in documents() if one["kind"] == kind}


def commands() -> Iterator[list[str]]:
    """What each container of fotahook gets after `fotahook serve`."""
    services = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["services"]
    yield from (one["command"] for one in services.values() if one["image"] == "fotahook")
    for spec in of_kind("Deployment").values():
        yield from (one["args"] for one in spec["template"]["spec"]["containers"])


def test_the_demo_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.cluster.demo", "--messages", "300"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accepted: lost 0, altered 0, out of order 0" in done.stdout


def test_every_container_is_given_flags_that_serve_knows() -> None:
    found = list(commands())
    assert len(found) == 4
    for arguments in found:
        explained = fotahook("serve", "--store", "postgresql://u@h/d", *arguments, "--explain")
        assert explained.returncode == 0, explained.stderr


def test_every_variable_of_the_containers_is_one_of_ours() -> None:
    services = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["services"]
    help_text = fotahook("serve", "--help").stdout
    for service in services.values():
        if service["image"] == "fotahook":
            assert set(service["environment"]) <= {"FOTAHOOK_SECRET_KEY", "FOTAHOOK_STORE"}
    assert "FOTAHOOK_STORE" in help_text


@pytest.mark.parametrize("name", ["fotahook-api", "fotahook-dispatcher"])
def test_every_deployment_has_probes_a_budget_and_a_scaler(name: str) -> None:
    spec = of_kind("Deployment")[name]["template"]
    (container,) = spec["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"]["path"] == path
        assert container[probe]["httpGet"]["port"] in ports
    assert of_kind("PodDisruptionBudget")[name]["selector"]["matchLabels"] == spec["metadata"]["labels"]
    assert of_kind("HorizontalPodAutoscaler")[name]["scaleTargetRef"]["name"] == name


def test_the_metric_that_scales_dispatchers_is_one_that_they_export() -> None:
    (metric,) = of_kind("HorizontalPodAutoscaler")["fotahook-dispatcher"]["metrics"]
    (rule,) = yaml.safe_load((CLUSTER / "prometheus-adapter.yaml").read_text())["rules"]["external"]
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    exported = (ROOT / "docs" / "service.md").read_text()
    assert rule["seriesQuery"].removesuffix("_bucket").removeprefix("fotahook_") in exported
    assert rule["seriesQuery"] in rule["metricsQuery"]
