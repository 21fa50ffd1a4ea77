"""The manifests that are made from the Helm chart, and what KServe is told.

Everything is held against the published schemas of Kubernetes and of the objects of others. That a
cluster does with it what we mean is not tested: there is none here.
"""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import grpc
import kubernetes_validate
import pytest
import trustme
import yaml

from chart import CHART, DEPLOY, NAMES, by_kind, container, needs_helm, rendered
from kserve_models import FOLDERS, Types
from server import BINARY, HANG, ROOT, Server

NODE = ROOT / "tests" / "clients" / "node"
# The oldest with everything that is used, and the newest that is known.
VERSIONS = ["1.33", "1.37"]
# Who publishes the types of objects that are not Kubernetes' own.
OTHERS = {
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
    "PrometheusRule": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
}

RULES = sorted((DEPLOY / "prometheus").glob("*.yml"))
DASHBOARD = DEPLOY / "grafana" / "jitney.json"
# What docs/operations.md tells to pass.
MONITORING = [part for key, file in [
    *((f"prometheusRule.files.{file.stem}", file) for file in RULES), ("dashboard.json", DASHBOARD)]
    for part in ["--set-file", f"{key}={file}"]]

# TLS with clients' certificates, and callers who are known.
SECURED = ["--set", "tls.secret=jitney-tls,tls.clientCa=true,identity.secret=jitney-identity",
           "--set", "serviceMonitor.authorization.credentials.name=prometheus",
           "--set", "serviceMonitor.authorization.credentials.key=token"]

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node on PATH")


def read(name):
    """The objects of a plain manifest."""
    return by_kind((DEPLOY / "kubernetes" / f"{name}.yaml").read_text())


def parents():
    """Of every process here, who started it."""
    parents = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # A name in parentheses comes before it, and may have any sign in it.
            parents.add(int(status.read_text().rpartition(")")[2].split()[1]))
        except OSError:
            continue
    return parents


# Manifests.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_manifests_are_valid(name, version):
    for kind, objects in read(name).items():
        for document in objects:
            if kind not in OTHERS:
                kubernetes_validate.validate(document, version, strict=True)


@needs_node
@needs_helm
def test_objects_of_others_are_what_these_publish(tmp_path):
    documents = list(yaml.safe_load_all(rendered("eight-gpus", *MONITORING, *SECURED)))
    found = [document for document in documents if document["kind"] in OTHERS]
    assert sorted(document["kind"] for document in found) == sorted(OTHERS)
    assert typed(found, tmp_path) == ""
    # Keys that do not exist, and values of another type, are seen.
    spoilt = {document["kind"]: document for document in found}
    spoilt["ServiceMonitor"]["spec"]["endpoints"][0]["prot"] = "metrics"
    spoilt["ScaledObject"]["spec"]["triggers"][0]["metadata"]["threshold"] = 0.7
    said = typed(found, tmp_path)
    assert '\'"prot"\' does not exist' in said and "'number' is not assignable to type 'string'" in said


def typed(documents, folder):
    """What the TypeScript compiler says of documents as literals of their published types."""
    lines = [f'import type {{ I{kind} }} from "{module}";' for kind, module in OTHERS.items()]
    lines += [f"export const one{index}: I{document['kind']} = {json.dumps(document)};"
              for index, document in enumerate(documents)]
    (folder / "documents.ts").write_text("\n".join(lines))
    (folder / "package.json").write_text('{"type": "module"}')
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(NODE / "node_modules")
    done = subprocess.run(
        ["node", folder / "node_modules" / "typescript" / "bin" / "tsc", "--noEmit", "--strict",
         "--skipLibCheck", "--module", "nodenext", "documents.ts"],
        cwd=folder, capture_output=True, text=True, timeout=HANG)
    return done.stdout + done.stderr


@needs_helm
def test_rules_and_the_dashboard_arrive_whole():
    documents = list(yaml.safe_load_all(rendered("cpu", *MONITORING)))
    [rule] = [document for document in documents if document["kind"] == "PrometheusRule"]
    assert len(RULES) >= 2
    assert rule["spec"]["groups"] == [
        group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    [board] = [document for document in documents if document["metadata"]["name"] == "jitney-dashboard"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["jitney.json"]) == json.loads(DASHBOARD.read_text())
    # Nothing else is in it that is too large for an object.
    assert len(json.dumps(board)) < 1_000_000
    kubernetes_validate.validate(board, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_pod_is_confined(name):
    objects = read(name)
    [deployment] = objects["Deployment"]
    pod, one = deployment["spec"]["template"]["spec"], container(objects)
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]}}
    # What is written goes to volumes that have a bound.
    written = {mount["mountPath"]: mount["name"] for mount in one["volumeMounts"] if not mount.get("readOnly")}
    assert set(written) == {"/tmp", "/cache"} and "--cache-dir=/cache" in one["args"]
    for volume in pod["volumes"]:
        if volume["name"] in written.values() and "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]
    mounted = {mount["name"] for mount in one["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", NAMES)
def test_ports_and_selectors_name_what_is_there(name):
    objects = read(name)
    [deployment] = objects["Deployment"]
    one = container(objects)
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    assert len(set(ports.values())) == 3
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
        assert one[probe]["grpc"]["port"] == ports["grpc"]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    # Pods are counted that are this Deployment's and no others.
    assert all(one["labelSelector"] == deployment["spec"]["selector"] for one in spread)
    for service in objects["Service"]:
        assert service["spec"]["selector"].items() <= labels
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    [budget], [policy] = objects["PodDisruptionBudget"], objects["NetworkPolicy"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
    for rule in policy["spec"]["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= set(ports)
    for monitor in objects.get("ServiceMonitor", []):
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= {
            port["name"] for service in objects["Service"] for port in service["spec"]["ports"]}
    for scaler in objects.get("HorizontalPodAutoscaler", []) + objects.get("ScaledObject", []):
        assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        # Two would write the number of Pods.
        assert "replicas" not in deployment["spec"]


@pytest.mark.parametrize("name", NAMES)
def test_the_grace_period_covers_how_a_server_leaves(name):
    objects = read(name)
    [settings] = objects["ConfigMap"]
    told = dict(re.findall(r"^(\w+_ms) = (\d+)$", settings["data"]["jitney.toml"], re.MULTILINE))
    leaves = (int(told["lame_duck_ms"]) + int(told["drain_timeout_ms"])) / 1000
    [deployment] = objects["Deployment"]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert leaves < grace <= leaves + 10


@needs_helm
def test_isolation_and_its_bounds_reach_the_server(add, repository, tmp_path):
    add("tiny_mlp")
    bounds = {"executor_timeout_ms": 1234, "max_worker_deaths": 3, "worker_rest_ms": 0}
    told = ",".join(f"config.{key}={value}" for key, value in bounds.items())
    text = rendered("cpu", "--set", f"config.isolation=process,{told},cache.claim=kept")
    documents = {document["kind"]: document for document in yaml.safe_load_all(text)}
    settings = documents["ConfigMap"]["data"]["jitney.toml"]
    assert {f"{key} = {value}" for key, value in bounds.items()} <= set(settings.splitlines())
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "kept"}} in pod["volumes"]
    [one] = pod["containers"]
    [_, path, *flags] = as_told(one["args"], repository, tmp_path, settings)
    flags = [flag for flag in flags if "-address=" not in flag]
    with Server(path, *flags) as server:
        assert server.process.pid in parents()
    # What the load took is kept where the Pod has its volume.
    assert json.loads((tmp_path / "loads.json").read_text())


@needs_helm
def test_the_grace_period_rounds_up():
    text = rendered("cpu", "--set", "leaving.lameDuckMs=1", "--set", "leaving.drainTimeoutMs=2000",
                    "--set", "leaving.marginSeconds=1")
    assert "terminationGracePeriodSeconds: 4\n" in text


@pytest.mark.parametrize("name, resource, count", [
    ("cpu", None, 0), ("one-gpu", "nvidia.com/gpu", 1), ("eight-gpus", "nvidia.com/gpu", 8),
    ("mig", "nvidia.com/mig-1g.10gb", 1)])
def test_gpus_are_asked_for(name, resource, count):
    one = container(read(name))
    for kind in ["requests", "limits"]:
        asked = {key: value for key, value in one["resources"][kind].items() if "/" in key}
        assert asked == ({resource: count} if resource else {})
    assert one["image"].endswith("-cuda") == (count > 0)


def test_models_come_from_where_they_are_said_to_be():
    volumes = {}
    for name in NAMES:
        [deployment] = read(name)["Deployment"]
        pod = deployment["spec"]["template"]["spec"]
        volumes[name] = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["cpu"]["models"]["persistentVolumeClaim"]["readOnly"]
    assert volumes["one-gpu"]["models"]["image"]["reference"] == "registry.example/models:1"
    assert volumes["eight-gpus"]["cache"]["persistentVolumeClaim"]["claimName"] == "jitney-cache"
    for name in ["mig", "cpu", "one-gpu"]:
        assert volumes[name]["cache"]["emptyDir"]["sizeLimit"] == "10Gi"
    assert container(read("mig"))["args"][:2] == ["serve", "gs://models/prod"]


def test_scaling_follows_a_metric_that_there_is():
    documented = (ROOT / "docs" / "metrics.md").read_text()
    [hpa], [keda] = read("one-gpu")["HorizontalPodAutoscaler"], read("eight-gpus")["ScaledObject"]
    [metric] = hpa["spec"]["metrics"]
    [trigger] = keda["spec"]["triggers"]
    name = metric["pods"]["metric"]["name"]
    assert f"| `{name}` | gauge |" in documented
    assert re.fullmatch(rf'sum\({name}\{{namespace="jitney",pod=~"jitney-.*"\}}\) / 0\.7',
                        trigger["metadata"]["query"])
    assert metric["pods"]["target"]["averageValue"] == "700m"
    # In KEDA 2.17 a threshold below 1 is 0 without Prometheus, by which all but the fewest Pods would go.
    assert trigger["metadata"]["threshold"] == "1"
    assert keda["spec"]["fallback"]["behavior"] == "currentReplicas"


def test_the_handbook_names_what_there_is():
    text = (ROOT / "docs" / "operations.md").read_text()
    sections = json.loads((CHART / "values.schema.json").read_text())["properties"]
    values = set(re.findall(rf"`(?:--set )?({'|'.join(sections)})\.(\w+)", text))
    assert len(values) > 15
    settings = (ROOT / "docs" / "configuration.md").read_text()
    for section, key in values:
        known = sections[section].get("properties")
        if section == "config":
            assert f"| `{key}` |" in settings
        elif known:
            assert key in known, f"{section}.{key}"
    metrics = (ROOT / "docs" / "metrics.md").read_text()
    for metric in re.findall(r"`((?:jitney|process)_\w+)", text):
        assert f"| `{metric}` |" in metrics, metric
    for path in re.findall(r"`(deploy/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


def test_commands_find_what_was_installed():
    pages = "".join((ROOT / "docs" / f"{page}.md").read_text() for page in ["operations", "security"])
    commands = re.findall(r"(?:helm (?:install|upgrade|rollback)|kubectl (?:create|exec)) (?:[^`\n\\]|\\\n)+", pages)
    assert len(commands) >= 5
    for command in commands:
        assert "--namespace jitney" in command


def test_images_are_everywhere_as_large_as_they_were_measured():
    handbook = (ROOT / "docs" / "operations.md").read_text()
    [(own, whole)] = re.findall(r"^\| CPU \|.* Jitney ([\d.]+) \| ([\d.]+) \|$", handbook, re.MULTILINE)
    readme, changes = (ROOT / "README.md").read_text(), (ROOT / "CHANGELOG.md").read_text()
    assert f"an image of {float(whole):.0f} MB for CPUs" in readme
    assert f"{float(own):.0f} MB are Jitney" in readme
    assert f"Images for CPUs ({float(whole):.0f} MB)" in changes


# The real server.


def as_told(arguments, repository, folder, settings=None):
    """A container's arguments, for a server of the tests' own."""
    if settings is not None:
        (folder / "jitney.toml").write_text(settings)
    told = {"/models": str(repository), "/mnt/models": str(repository),
            "--config=/etc/jitney/jitney.toml": f"--config={folder / 'jitney.toml'}",
            "--cache-dir=/cache": f"--cache-dir={folder}"}
    given = [told.get(argument, argument) for argument in arguments]
    return [re.sub(r"^(--\w+-address=)0\.0\.0\.0:\d+$", r"\g<1>127.0.0.1:0",
                   re.sub(r"^\w+://models/prod$", str(repository), argument)) for argument in given]


def check(arguments, environment=None):
    assert arguments[0] == "serve"
    return subprocess.run(
        [BINARY, "check", *arguments[1:]], capture_output=True, text=True, timeout=HANG,
        env={**os.environ, **(environment or {})})


@pytest.mark.parametrize("name", NAMES)
def test_the_server_takes_what_a_pod_passes(name, add, repository, tmp_path):
    add("tiny_mlp")
    objects = read(name)
    [settings] = objects["ConfigMap"]
    arguments = as_told(
        container(objects)["args"], repository, tmp_path, settings["data"]["jitney.toml"])
    # There is no GPU here; a variable goes before the file, which is read all the same.
    done = check(arguments, {"JITNEY_DEVICE": "cpu"})
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "jitney.toml").write_text("lame_duck = 1\n")
    assert "lame_duck" in check(arguments).stderr


def test_probes_ask_what_the_server_answers(add, repository, tmp_path):
    add("tiny_mlp")
    objects = read("cpu")
    [settings] = objects["ConfigMap"]
    one = container(objects)
    [_, path, *flags] = as_told(one["args"], repository, tmp_path, settings["data"]["jitney.toml"])
    # Where it listens is up to the test.
    flags = [flag for flag in flags if "-address=" not in flag]
    with Server(path, *flags, "--lame-duck-ms", "3600000") as server:
        services = {name: one[name]["grpc"].get("service", "")
                    for name in ["startupProbe", "livenessProbe", "readinessProbe"]}
        assert {name: serves(server, asked) for name, asked in services.items()} == dict.fromkeys(
            services, True)
        # On its way out it takes no new clients, and is not killed for it.
        server.terminate()
        until = time.monotonic() + HANG
        while serves(server, services["readinessProbe"]):
            assert time.monotonic() < until
        assert serves(server, services["livenessProbe"])
        server.terminate()
        assert server.wait() == 0


@needs_helm
def test_a_secured_pod_serves_what_the_secrets_say(add, repository, tmp_path):
    """Its certificate is an authority's, is good for clients too, and a Secret's files are where they are meant."""
    add("tiny_mlp")
    documents = list(yaml.safe_load_all(rendered("cpu", *SECURED, "--set", "serviceMonitor.enabled=true")))
    for document in documents:
        if document["kind"] not in OTHERS:
            kubernetes_validate.validate(document, VERSIONS[0], strict=True)
    [deployment] = [document for document in documents if document["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    [one] = pod["containers"]
    folders = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
    secrets = {volume["name"]: volume["secret"]["secretName"]
               for volume in pod["volumes"] if "secret" in volume}
    assert secrets == {"tls": "jitney-tls", "identity": "jitney-identity"}
    assert {mount["name"] for mount in one["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    authority = trustme.CA()
    issued = authority.issue_cert("jitney.jitney.svc")
    files = {
        "tls/tls.crt": issued.cert_chain_pems[0].bytes(), "tls/tls.key": issued.private_key_pem.bytes(),
        "tls/ca.crt": authority.cert_pem.bytes(), "identity/identity.toml": b""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    def here(text):
        for name in secrets:
            text = text.replace(folders[name], str(tmp_path / name))
        return text

    [settings] = [document for document in documents if document["kind"] == "ConfigMap"]
    arguments = as_told(one["args"], repository, tmp_path, settings["data"]["jitney.toml"])
    [_, path, *flags] = [here(argument) for argument in arguments]
    flags = [flag for flag in flags if "-address=" not in flag]
    variables = {variable["name"]: here(variable["value"]) for variable in one["env"]}
    with Server(path, *flags, environment=variables) as server:
        for name in ["startupProbe", "livenessProbe", "readinessProbe"]:
            [program, *asked] = one[name]["exec"]["command"]
            assert program == "/usr/local/bin/jitney"
            # Busy machines take longer than a kubelet grants.
            own = {"--grpc-address": server.address, "--timeout-ms": str(HANG * 1000)}
            asked = [f"{flag}={own.get(flag, value)}" if value else flag
                     for flag, _, value in (part.partition("=") for part in asked)]
            done = subprocess.run([BINARY, *asked], env={**os.environ, **variables},
                                  capture_output=True, text=True, timeout=HANG)
            assert done.stdout == "serving\n", done.stderr


def serves(server, service):
    """Asks as Kubernetes does: grpc.health.v1, one field each way."""
    request = b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
    with grpc.insecure_channel(server.address) as channel:
        answer = channel.unary_unary("/grpc.health.v1.Health/Check")(request, timeout=HANG)
    # The field `status` with SERVING.
    return answer == b"\x08\x01"


# KServe.


@pytest.fixture(scope="module")
def kserve():
    if not FOLDERS:
        pytest.skip("KServe's client is not installed: make venv-kserve, by a Python before 3.14")
    return Types(FOLDERS[0])


def kserve_object(name):
    return yaml.safe_load((DEPLOY / "kserve" / f"{name}.yaml").read_text())


# What KServe calls the port of each protocol, by the file that asks for it.
SERVICES = {"inferenceservice": ("grpc-v2", "h2c"), "inferenceservice-rest": ("v2", "http1")}


def test_kserves_objects_are_what_it_publishes(kserve):
    runtime = kserve_object("clusterservingruntime")
    assert kserve.mistakes(runtime, "V1alpha1ClusterServingRuntime") == []
    for name in SERVICES:
        assert kserve.mistakes(kserve_object(name), "V1beta1InferenceService") == []
    runtime["spec"]["protocolVersion"] = ["v2"]
    runtime["spec"]["multiModel"] = "no"
    assert kserve.mistakes(runtime, "V1alpha1ClusterServingRuntime") == [
        ".spec.protocolVersion is unknown", ".spec.multiModel is no bool"]
    # Containers and volumes are Kubernetes' own.
    spec = kserve_object("clusterservingruntime")["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"},
           "spec": {"containers": spec["containers"], "volumes": spec["volumes"]}}
    kubernetes_validate.validate(pod, VERSIONS[0], strict=True)


def test_kserves_server_takes_both_protocols_on_one_port(add, repository, tmp_path):
    add("tiny_mlp")
    runtime = kserve_object("clusterservingruntime")
    [one] = runtime["spec"]["containers"]
    assert {f"--cache-dir={mount['mountPath']}" for mount in one["volumeMounts"]} & set(one["args"])
    assert {"--grpc-address=0.0.0.0:8080", "--http-address=0.0.0.0:8080"} <= set(one["args"])
    # Files that come with loads lie in /tmp: by default up to 1 GiB, and a Pod with more in it than this is evicted.
    [tmp] = [volume for volume in runtime["spec"]["volumes"] if volume["name"] == "tmp"]
    assert tmp["emptyDir"]["sizeLimit"] == "2Gi"
    assert {one["readinessProbe"]["httpGet"]["port"],
            int(runtime["spec"]["annotations"]["prometheus.kserve.io/port"])} == {8080}
    services = [kserve_object(name) for name in SERVICES]
    assert len({service["metadata"]["name"] for service in services}) == len(SERVICES)
    asked = [service["spec"]["predictor"]["model"] for service in services]
    for model, (protocol, name) in zip(asked, SERVICES.values()):
        assert model["protocolVersion"] == protocol
        assert model["ports"] == [{"name": name, "containerPort": 8080, "protocol": "TCP"}]
        [known] = runtime["spec"]["supportedModelFormats"]
        assert model["modelFormat"] == {"name": known["name"], "version": known["version"]}
    assert {model["protocolVersion"] for model in asked} == set(runtime["spec"]["protocolVersions"])
    arguments = as_told(one["args"], repository, tmp_path)
    done = check(arguments)
    assert done.returncode == 0, done.stdout + done.stderr
