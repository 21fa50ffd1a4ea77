"""What the Helm chart makes of values, and which it refuses."""

import re
import subprocess

import kubernetes_validate
import pytest

from chart import CHART, DEPLOY, NAMES, VALUES, by_kind, container, helm, needs_helm, rendered
from server import HANG

pytestmark = needs_helm


def made(*values):
    """The objects that values make, those of Kubernetes as it takes them."""
    done = helm(*(part for value in values for part in ["--set", value]))
    assert done.returncode == 0, done.stderr
    objects = by_kind(done.stdout)
    for document in (document for documents in objects.values() for document in documents):
        group = document["apiVersion"].rpartition("/")[0]
        if "." not in group or group.endswith(".k8s.io"):
            kubernetes_validate.validate(document, "1.33", strict=True)
    return objects


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
    (["models.claim=a", "disruption.minAvailable=1", "disruption.maxUnavailable=1"],
     "disruption.minAvailable and disruption.maxUnavailable are both given"),
    (["models.claim=a", "strategy.maxSurge=0"],
     "at '/strategy/maxUnavailable': minimum: got 0, want 1"),
    (["models.claim=a", "autoscaling.kind=both"], "at '/autoscaling/kind'"),
    (["models.claim=a", "autoscaling.kind=hpa", "autoscaling.minReplicas=9"],
     "autoscaling.minReplicas is 9, which is more than autoscaling.maxReplicas, 8"),
    (["models.claim=a", "ports.grpc=80"], "at '/ports/grpc': minimum: got 80, want 1,024"),
    (["models.claim=a", "gpu.count=1"], "additional properties 'gpu' not allowed"),
    (["models.claim=a", "cache.size=10Pi"], "at '/cache/size': '10Pi' does not match pattern"),
    (["models.url=s3://b/c", "config.cache_bytes=10737418241"], "cache.size is 10Gi, which is less than"),
    (["models.claim=a", "config.graph_cache_bytes=10737418241"], "cache.size is 10Gi, which is less than"),
    (["models.url=s3://b/c", "config.graph_cache_bytes=9663676416"],
     "cache.size is 10Gi, of which config.graph_cache_bytes leaves nothing for models"),
    (["models.claim=a", "config.max_uploaded_bytes=1073741825"],
     "tmpSize is 1Gi, which is less than config.max_uploaded_bytes"),
])
def test_values_that_contradict_each_other_are_refused(flags, said):
    done = helm(*(part for flag in flags for part in ["--set", flag]))
    assert done.returncode != 0, done.stdout
    assert said in done.stderr
    # The last of the values is what is wrong.
    if flags[1:]:
        assert helm(*(part for flag in flags[:-1] for part in ["--set", flag])).returncode == 0


@pytest.mark.parametrize("kubernetes, taken", [
    ("1.27.0", False), ("1.32.9", False), ("1.33.0", True), ("v1.33.0-eks-1", True), ("1.36.2", True)])
def test_models_come_from_an_image_where_kubernetes_can(kubernetes, taken):
    done = helm("--set", "models.image=registry.example/models:1", kubernetes=kubernetes)
    assert (done.returncode == 0) == taken, done.stderr
    assert taken or f"ImageVolume; this is v{kubernetes}" in done.stderr
    assert helm("--set", "models.claim=a", kubernetes=kubernetes).returncode == 0


@pytest.mark.parametrize("values, budget", [
    ([], {"maxUnavailable": 1}),
    (["disruption.minAvailable=3"], {"minAvailable": 3}),
    (["disruption.minAvailable=0"], {"minAvailable": 0}),
    (["disruption.maxUnavailable=0"], {"maxUnavailable": 0}),
    (["disruption.maxUnavailable=25%"], {"maxUnavailable": "25%"}),
    (["disruption.enabled=false"], None),
])
def test_a_disruption_budget_is_the_one_that_is_told(values, budget):
    budgets = made("models.claim=a", *values).get("PodDisruptionBudget", [])
    found = [{key: value for key, value in one["spec"].items() if key.startswith(("min", "max"))} for one in budgets]
    assert found == ([budget] if budget else [])


# Volumes.

GIB = 2 ** 30


@pytest.mark.parametrize("values, cache_bytes", [
    (["models.url=s3://b/c"], 9 * GIB),
    (["models.url=s3://b/c", "cache.size=5Gi"], 9 * GIB // 2),
    (["models.url=s3://b/c", "cache.size=512Mi"], 512 * 2 ** 20 * 9 // 10),
    (["models.url=s3://b/c", "cache.size=1.5G"], 1_350_000_000),
    (["models.url=s3://b/c", "cache.size=1500M"], 1_350_000_000),
    (["models.url=s3://b/c", "cache.size=2Ti"], 2 ** 41 * 9 // 10),
    # What is compiled is kept there, too.
    (["models.url=s3://b/c", "config.graph_cache_bytes=1073741824"], 8 * GIB),
    # Somebody else's word, or nobody's.
    (["models.url=s3://b/c", "config.cache_bytes=5"], 5),
    (["models.url=s3://b/c", "cache.claim=kept"], None),
    (["models.claim=a"], None),
])
def test_the_server_keeps_less_than_its_cache_holds(values, cache_bytes):
    assert settings(made(*values)).get("cache_bytes") == cache_bytes


@pytest.mark.parametrize("values, most", [
    ([], GIB * 9 // 10),
    (["tmpSize=20Gi"], 18 * GIB),
    # The most that the server takes.
    (["tmpSize=4Ti"], 1024 * GIB),
    (["config.max_uploaded_bytes=0"], 0),
])
def test_the_server_takes_less_than_tmp_holds(values, most):
    assert settings(made("models.claim=a", *values))["max_uploaded_bytes"] == most


def settings(objects):
    """The numbers of the server's file, which says nothing twice."""
    [told] = objects["ConfigMap"]
    found = re.findall(r"^(\w+) = (\d+)$", told["data"]["jitney.toml"], re.MULTILINE)
    assert len(dict(found)) == len(found)
    return {key: int(value) for key, value in found}


# The network.


def test_metrics_are_published_by_a_service_of_their_own():
    objects = made("models.claim=a", "service.type=LoadBalancer", "serviceMonitor.enabled=true")
    services = {service["metadata"]["name"]: service for service in objects["Service"]}
    ports = {name: [port["name"] for port in service["spec"]["ports"]] for name, service in services.items()}
    assert ports == {"jitney": ["grpc", "http"], "jitney-headless": ["grpc"], "jitney-metrics": ["metrics"]}
    assert {name: service["spec"].get("type") for name, service in services.items()} == {
        "jitney": "LoadBalancer", "jitney-headless": None, "jitney-metrics": "ClusterIP"}
    [monitor] = objects["ServiceMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    labels = {name: service["metadata"]["labels"] for name, service in services.items()}
    assert [name for name in labels if wanted <= labels[name].items()] == ["jitney-metrics"]
    # Another Service's name is not to be another job's.
    assert labels["jitney-metrics"][monitor["spec"]["jobLabel"]] == "jitney"


@pytest.mark.parametrize("ports, names, served", [
    ({}, ["grpc", "http", "metrics"], {"jitney": [8001, 8000], "jitney-metrics": [8002]}),
    ({"http": 8001}, ["grpc", "metrics"], {"jitney": [8001], "jitney-metrics": [8002]}),
    ({"metrics": 8000}, ["grpc", "http"], {"jitney": [8001, 8000], "jitney-metrics": [8000]}),
    ({"metrics": 8001}, ["grpc", "http"], {"jitney": [8001, 8000], "jitney-metrics": [8001]}),
    ({"grpc": 9000, "http": 9000, "metrics": 9000}, ["grpc"], {"jitney": [9000], "jitney-metrics": [9000]}),
])
def test_ports_of_one_number_are_one(ports, names, served):
    objects = made("models.claim=a", *(f"ports.{name}={number}" for name, number in ports.items()))
    found = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    numbers = {"grpc": 8001, "http": 8000, "metrics": 8002, **ports}
    assert list(found) == names and set(found.values()) == set(numbers.values())
    services = {service["metadata"]["name"]: service["spec"]["ports"] for service in objects["Service"]}
    assert {name: [port["port"] for port in services[name]] for name in served} == served
    # What a Service says of a port is there, under its number.
    for port in (port for ports in services.values() for port in ports):
        assert found[port["targetPort"]] == port["port"]
    [policy] = objects["NetworkPolicy"]
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == set(names)


CLIENT, SCRAPER = {"podSelector": {"matchLabels": {"a": "client"}}}, {"podSelector": {"matchLabels": {"a": "scraper"}}}


@pytest.mark.parametrize("metrics, scrapers, let_in", [
    (8002, [], {"grpc": [CLIENT], "http": [CLIENT], "metrics": "everybody"}),
    (8002, [SCRAPER], {"grpc": [CLIENT], "http": [CLIENT], "metrics": [SCRAPER]}),
    # The port of clients is not everybody's for that.
    (8000, [], {"grpc": [CLIENT], "http": [CLIENT]}),
    (8000, [SCRAPER], {"grpc": [CLIENT], "http": [CLIENT, SCRAPER]}),
])
def test_who_is_let_in(metrics, scrapers, let_in):
    [policy] = made("models.claim=a", f"ports.metrics={metrics}",
                    "networkPolicy.clients[0].podSelector.matchLabels.a=client",
                    *(["networkPolicy.scrapers[0].podSelector.matchLabels.a=scraper"] if scrapers else []),
                    )["NetworkPolicy"]
    found = {}
    for rule in policy["spec"]["ingress"]:
        for port in (port["port"] for port in rule["ports"]):
            found[port] = found.get(port, []) + rule["from"] if "from" in rule else "everybody"
    assert found == let_in


DNS = {(None, "UDP", 53), (None, "TCP", 53)}
INSTANCE = ("169.254.169.254/32", "TCP", 80)
AWS = {INSTANCE, ("169.254.170.2/32", "TCP", 80), ("169.254.170.23/32", "TCP", 80)}
GOOGLE = {INSTANCE, ("169.254.169.252/32", "TCP", 988)}


def anywhere(*ports):
    return {(None, "TCP", port) for port in ports}


@pytest.mark.parametrize("values, reached", [
    (["models.claim=a"], set()),
    (["models.url=s3://b/c"], anywhere(443) | AWS),
    (["models.url=https://b.s3.eu-central-1.amazonaws.com/c"], anywhere(443) | AWS),
    (["models.url=gs://b/c"], anywhere(443) | GOOGLE),
    (["models.url=az://b/c"], anywhere(443) | {INSTANCE}),
    (["models.url=abfss://b@a.dfs.core.windows.net/c"], anywhere(443) | {INSTANCE}),
    (["models.url=https://a.blob.core.windows.net/b/c"], anywhere(443) | {INSTANCE}),
    (["models.url=gs://b/c", "networkPolicy.cloudCredentials=false"], anywhere(443)),
    # Nobody's cloud.
    (["models.url=https://store.example/amazonaws.com"], anywhere(443)),
    (["models.url=https://store.example:8443/c"], anywhere(8443)),
    (["models.url=http://store.example/c"], anywhere(80)),
    (["models.url=http://store.example:8080/c:9"], anywhere(8080)),
    (["models.url=http://[fd00::1]:8080/c"], anywhere(8080)),
    # As the server does: a URL without a port is one of its scheme's.
    (["models.claim=a", "config.otlp_endpoint=http://collector.example:4317"], anywhere(4317)),
    (["models.claim=a", "config.otlp_endpoint=http://collector.example"], anywhere(80)),
    (["models.claim=a", "config.otlp_endpoint=https://collector.example/x"], anywhere(443)),
    (["models.url=http://store.example:8080/c", "config.otlp_endpoint=http://collector.example:4318",
      "networkPolicy.egress[0].ports[0].port=9000"], anywhere(8080, 4318, 9000)),
])
def test_pods_reach_what_their_settings_name_and_nothing_else(values, reached):
    [policy] = made(*values)["NetworkPolicy"]
    found = [(place, port.get("protocol", "TCP"), port["port"])
             for rule in policy["spec"]["egress"]
             for place in [peer["ipBlock"]["cidr"] for peer in rule.get("to", [])] or [None]
             for port in rule["ports"]]
    assert set(found) == DNS | reached and len(found) == len(set(found))
