"""The Helm chart, and what Helm makes of it."""

import shutil
import subprocess

import pytest
import yaml

from server import HANG, ROOT

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "jitney"
VALUES = DEPLOY / "helm" / "values"
NAMES = sorted(path.stem for path in VALUES.glob("*.yaml"))

needs_helm = pytest.mark.skipif(
    shutil.which("helm") is None,
    reason="no helm on PATH: `make test` builds one where there is Go, or install it")


def helm(*flags, kubernetes="1.33.0"):
    return subprocess.run(
        ["helm", "template", "jitney", CHART, "--namespace", "jitney", "--kube-version", kubernetes,
         *flags], capture_output=True, text=True, timeout=HANG)


def rendered(name, *flags):
    done = helm("--values", VALUES / f"{name}.yaml", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_kind(text):
    """The objects of a manifest, by kind; those of one kind in their order."""
    objects = {}
    for document in yaml.safe_load_all(text):
        objects.setdefault(document["kind"], []).append(document)
    return objects


def container(objects):
    [deployment] = objects["Deployment"]
    [one] = deployment["spec"]["template"]["spec"]["containers"]
    return one
