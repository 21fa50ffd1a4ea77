"""What the Helm chart makes of values, and which it refuses."""

import subprocess

import pytest

from chart import CHART, DEPLOY, NAMES, VALUES, helm, needs_helm, rendered
from server import HANG

pytestmark = needs_helm


@pytest.mark.parametrize("name", NAMES)
def test_plain_manifests_are_what_the_chart_says(name):
    made = (DEPLOY / "kubernetes" / f"{name}.yaml").read_text()
    assert rendered(name) == made, "make manifests"


def test_the_chart_passes_helms_own_linter():
    done = subprocess.run(
        ["helm", "lint", "--strict", CHART, "--values", VALUES / "cpu.yaml"],
        capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("flags, said", [
    ([], "at '/models': minProperties: got 0, want 1"),
    (["models.url=s3://b/c", "models.claim=a"], "at '/models': maxProperties: got 2, want 1"),
    (["models.url=ftp://b/c"], "at '/models/url'"),
    (["models.claim=a", "config.isolation=container"], "at '/config/isolation'"),
    (["models.claim=a", "config.max_worker_deaths=0"],
     "at '/config/max_worker_deaths': minimum: got 0, want 1"),
    (["models.claim=a", "config.executor_timeout_ms=3600001"], "at '/config/executor_timeout_ms': maximum"),
    (["models.claim=a", "config.device=cuda"], "at '/gpus/count': minimum: got 0, want 1"),
    (["models.claim=a", "config.device=cpu", "gpus.count=1"], "at '/config/device'"),
    (["models.claim=a", "gpus.count=2", "gpus.resource=nvidia.com/mig-1g.10gb"],
     "at '/gpus/count': maximum: got 2, want 1"),
    (["models.claim=a", "config.grpc_address=0.0.0.0:1"], "invalid propertyName 'grpc_address'"),
    (["models.claim=a", "config.tls_cert=/a"], "invalid propertyName 'tls_cert'"),
    (["models.claim=a", "tls.clientCa=true"], "at '/tls/secret'"),
    (["models.claim=a", "disruption.minAvailable=1"],
     "at '/disruption': maxProperties: got 2, want 1"),
    (["models.claim=a", "strategy.maxSurge=0"],
     "at '/strategy/maxUnavailable': minimum: got 0, want 1"),
    (["models.claim=a", "autoscaling.kind=both"], "at '/autoscaling/kind'"),
    (["models.claim=a", "autoscaling.kind=hpa", "autoscaling.minReplicas=9"],
     "autoscaling.minReplicas is 9, which is more than autoscaling.maxReplicas, 8"),
    (["models.claim=a", "ports.grpc=80"], "at '/ports/grpc': minimum: got 80, want 1,024"),
    (["models.claim=a", "gpu.count=1"], "additional properties 'gpu' not allowed"),
])
def test_values_that_contradict_each_other_are_refused(flags, said):
    done = helm(*(part for flag in flags for part in ["--set", flag]))
    assert done.returncode != 0, done.stdout
    assert said in done.stderr
    # The last of the values is what is wrong.
    if flags[1:]:
        assert helm(*(part for flag in flags[:-1] for part in ["--set", flag])).returncode == 0
