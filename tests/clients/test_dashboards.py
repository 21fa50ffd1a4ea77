"""The dashboard, the rules and the alerts: read by promtool and Grafana's own model, and asked of a real Prometheus
while a server is healthy, and while everything goes wrong that there is an alert for."""

import datetime
import json
import math
import re
import resource
import runpy
import shutil
import subprocess
import threading
from pathlib import Path

import numpy
import pytest
import tritonclient.grpc as triton
import trustme
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from prometheus import Prometheus, free_address, needs_prometheus
from server import BINARY, HANG, ROOT, Server, simulated

LOAD = BINARY.with_name("jitney-load")
GRAFANA, PROMETHEUS = ROOT / "deploy" / "grafana", ROOT / "deploy" / "prometheus"
RULES = [PROMETHEUS / "rules.yml", PROMETHEUS / "alerts.yml"]
DASHBOARD = json.loads((GRAFANA / "jitney.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# What says nothing, or zero, of a healthy server, and why.
RIGHTLY_QUIET = {
    "Models that failed to load": "all were loaded",
    "Refused or failed": "nothing is",
    "Not in time": "all are",
    "Not in time, by model": "all are",
    "Refusals and errors, by model and code": "there are none",
}
# What the model of annotations leaves to their data source.
OF_PROMETHEUS = {f"dashboard.annotations.list[0].{key}"
                 for key in ["step", "titleFormat", "textFormat", "useValueForTime"]}
# The host's memory and speed are not the test's to promise.
NOT_OURS = {"JitneyMemoryNearLimit", "JitneyDeviceSlow"}
# These need a server of another kind.
OF_PROCESSES = {"JitneyWorkersDie", "JitneyVersionTakenOut"}
OF_THREADS = {"JitneyExecutorsHang"}
OF_TLS = {"JitneyCertificateEnds", "JitneyCertificateEndsSoon"}

HEALTHY = """
max_lag_ms = 60000
[[requests]]
model = "digits"
[[requests]]
model = "pair"
[[requests]]
model = "padded"
dimensions.x = { low = 1, high = 9 }
[[requests]]
model = "cached"
variants = 2
weight = 4
[[requests]]
model = "cached"
[[steps]]
arrivals = "poisson"
rate = 120
warm_up_s = 0
duration_s = 3600
"""
BROKEN = """
max_lag_ms = 60000
[[requests]]
model = "digits"
[[requests]]
model = "failing"
[[requests]]
model = "full"
[[requests]]
model = "late"
deadline_ms = 1
[[requests]]
model = "slow"
weight = 9
[[requests]]
model = "lopsided"
[[requests]]
model = "one_lost"
[[steps]]
arrivals = "poisson"
rate = 150
warm_up_s = 0
duration_s = 3600
"""
# So much patience that a busy machine spends none of the budget for what is late.
UNHURRIED = "latency_objective_ms = 60000"
ON_TWO = '[[instances]]\ndevice = "simulated:0"\n[[instances]]\ndevice = "simulated:1"\n'


def rules(kind):
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


ALERTS = rules("alert")


def filled_in(expression):
    """As Grafana asks it when everything is chosen."""
    variables = {"__rate_interval": "5s", "instance": ".*", "model": ".*", "version": ".*", "device": ".*"}
    for name, value in variables.items():
        expression = re.sub(rf"\${name}\b", value, expression)
    assert "$" not in expression, expression
    return expression


def hurried(alert):
    """An alert's question, of seconds where it asks of minutes; nobody fills the host's memory for it."""
    # Workers need some seconds to die often enough.
    time = "60s" if alert == "JitneyWorkersDie" else r"\g<2>s"
    expression = re.sub(r"(\[|offset )(\d+)m\b", r"\g<1>" + time, ALERTS[alert]["expr"])
    return expression.replace("> 0.95", "> 0") if alert == "JitneyMemoryNearLimit" else expression


def is_told(found):
    return any(math.isfinite(float(one["value"][1])) for one in found)


def is_more_than_nothing(found):
    values = [float(one["value"][1]) for one in found]
    return any(math.isfinite(value) and value > 0 for value in values)


def asked(panels):
    """Every question of these panels, by title."""
    return [(panel["title"], filled_in(target["expr"])) for panel in panels for target in panel["targets"]]


class Loaded:
    """jitney-load beside what happens here; it is ended with it."""

    def __init__(self, folder, address, scenario):
        file = folder / "scenario.toml"
        file.write_text(scenario)
        self.log = folder / "load.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [LOAD, "run", file, "--address", address], stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        ended = self.process.poll()
        self.process.kill()
        self.process.wait()
        # It was to go on for longer than anybody waited for.
        assert failed or ended is None, self.log.read_text()


def test_panels_are_told_apart_described_and_beside_each_other():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    taken = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"], (x, y)
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references), panel["title"]


def test_variables_are_those_that_are_used():
    named = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert named == {"datasource", "instance", "model", "version", "device"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} == named


def test_the_dashboard_is_what_its_source_says():
    made = runpy.run_path(str(GRAFANA / "make.py"))["dashboard"]()
    assert made == DASHBOARD, "deploy/grafana/make.py writes it anew"


def kept(written, read, where="dashboard"):
    """Checks that everything written is there when Grafana's model has read it."""
    if isinstance(written, dict):
        for key, value in written.items():
            place = f"{where}.{key}"
            if value is not None and place not in OF_PROMETHEUS:
                assert key in read, f"{place} is unknown"
                kept(value, read[key], place)
    elif isinstance(written, list):
        assert len(written) == len(read), where
        for index, value in enumerate(written):
            kept(value, read[index], f"{where}[{index}]")
    else:
        assert written == read, where


def test_grafanas_model_has_a_place_for_everything():
    register_default_plugins()
    read = Dashboard.from_json(DASHBOARD)
    kept(DASHBOARD, json.loads(JSONEncoder().encode(read)))


def test_alerts_say_whom_they_wake_and_where_to_read_on():
    page = (ROOT / "docs" / "alerts.md").read_text()
    anchors = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
               for line in page.splitlines() if line.startswith("#")}
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"]), name
        file, anchor = rule["annotations"]["runbook_url"].split("#")
        assert file == "docs/alerts.md" and anchor in anchors, name


@needs_prometheus
def test_promtool_finds_nothing_wrong():
    for arguments in [["check", "rules", *RULES], ["test", "rules", *PROMETHEUS.glob("tests/*.yml")]]:
        checked = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=HANG)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture(scope="module")
def place():
    """Where metrics are told, whichever server does."""
    return free_address()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dashboards")
    models = folder / "models"
    simulated(models, "pair", UNHURRIED, "fixed_ms = 10\n" + ON_TWO)
    simulated(models, "padded", UNHURRIED, "fixed_ms = 20\n[padding]\naxes = { x = 1, y = 1 }\n")
    simulated(models, "cached", f"{UNHURRIED}\nresponse_cache = true")
    shutil.copytree(ROOT / "examples" / "models" / "digits", models / "digits")
    (models / "digits" / "model.toml").write_text(UNHURRIED)
    # And those that go wrong.
    simulated(models, "failing", behaviour="fail_every = 2")
    simulated(models, "full", policy="max_queue_size = 1", behaviour="fixed_ms = 500")
    simulated(models, "late", behaviour="fixed_ms = 5")
    simulated(models, "slow", policy="max_batch_size = 1", behaviour="fixed_ms = 300")
    simulated(models, "lopsided", behaviour="fixed_ms = 10\nslowdown = [1, 3]\n" + ON_TWO)
    simulated(models, "lost", behaviour=f"lost_while_exists = '{folder / 'all'}'\n"
              '[[instances]]\ndevice = "simulated:2"\n')
    simulated(models, "one_lost", behaviour=f"lost_while_exists = '{folder / 'one'}'\n" + ON_TWO)
    simulated(models, "loading", behaviour="load_ms = 20000")
    broken = models / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_text("no model")
    return folder


def serve(folder, place):
    flags = ["--model-control", "explicit", "--device-price-per-hour", "2", "--response-cache-bytes", "4096",
             "--device-memory-bytes", str(1 << 40), "--device", "simulated:0", "--metrics-address", place]
    for model in ["digits", "pair", "padded", "cached"]:
        flags += ["--load-model", model]
    return Server(folder / "models", *flags)


@pytest.fixture(scope="module")
def server(folder, place):
    with serve(folder, place) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(server, folder, place):
    with Prometheus(folder, place, RULES) as prometheus:
        yield prometheus


@needs_prometheus
def test_every_panel_and_rule_says_something_of_a_healthy_server(server, prometheus, folder):
    loud = [panel for panel in PANELS if panel["title"] not in RIGHTLY_QUIET]
    recorded = rules("record")
    with Loaded(folder, server.address, HEALTHY):
        prometheus.await_each([expression for _, expression in asked(loud)], is_more_than_nothing)
        # The shares of what went wrong are known, and nothing.
        prometheus.await_each([name for name in recorded if "not_in_time" in name], is_told)
        prometheus.await_each([name for name in recorded if "not_in_time" not in name], is_more_than_nothing)
        prometheus.query(filled_in(DASHBOARD["annotations"]["list"][0]["expr"]))
        # At a moment at which Prometheus knew of the server: a scrape that took too long has it forgotten.
        [up] = prometheus.query("up == 1")
        for name, rule in ALERTS.items():
            assert name in NOT_OURS or not prometheus.now(rule["expr"], time=up["value"][0]), name


@needs_prometheus
def test_variables_have_something_to_choose_from(prometheus):
    expected = {"model": {"digits", "pair", "padded", "cached"}, "version": {"1"}}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            found = {one["metric"].get(label) for one in prometheus.query(filled_in(metric))}
            assert found >= expected.get(variable["name"], {next(iter(found))}), variable["name"]


def load(client, model, fails=False):
    try:
        client.load_model(model)
    except triton.InferenceServerException:
        assert fails, model
    else:
        assert not fails, model


def ask(client, model):
    x = triton.InferInput("x", [1, 1], "FP32")
    x.set_data_from_numpy(numpy.zeros([1, 1], numpy.float32))
    try:
        client.infer(model, [x])
    except triton.InferenceServerException:
        pass


@needs_prometheus
def test_every_alert_and_panel_tells_of_what_goes_wrong(server, prometheus, folder, place):
    quiet = [panel for panel in PANELS if panel["title"] in RIGHTLY_QUIET]
    without_server = {"JitneyGone", "JitneyNoScrape"}
    with server.client() as client:
        for model in ["failing", "full", "late", "slow", "lopsided", "lost", "one_lost"]:
            load(client, model)
        ask(client, "lost")
        load(client, "broken", fails=True)
        # A configuration that is wrong, for a model that serves.
        toml = folder / "models" / "pair" / "model.toml"
        good = toml.read_text()
        toml.write_text("nonsense = 1\n")
        load(client, "pair", fails=True)
        toml.write_text(good)
        threading.Thread(target=load_and_forget, args=[server.address], daemon=True).start()
        (folder / "all").touch()
        (folder / "one.1").touch()
        ask(client, "lost")
        # As if it might open hardly more than it has.
        opened = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (opened + max(4, opened // 8), limits[1]))
        with Loaded(folder, server.address, BROKEN):
            others = set(ALERTS) - without_server - OF_PROCESSES - OF_THREADS - OF_TLS - {"JitneyRestarted"}
            prometheus.await_each([hurried(name) for name in sorted(others)])
            prometheus.await_each([expression for _, expression in asked(quiet)], is_more_than_nothing)
    server.process.kill()
    server.process.wait()
    prometheus.await_each([hurried(name) for name in sorted(without_server)])
    with serve(folder, place):
        prometheus.query(ALERTS["JitneyRestarted"]["expr"])


def load_and_forget(address):
    """Begins a load that takes longer than the server lives."""
    with triton.InferenceServerClient(address) as client:
        try:
            client.load_model("loading")
        except triton.InferenceServerException:
            pass


@needs_prometheus
@pytest.mark.parametrize("isolation, flags, told", [
    ("process", ["--max-worker-deaths", "4"], OF_PROCESSES),
    ("thread", ["--executor-timeout-ms", "300"], OF_THREADS)])
def test_alerts_tell_of_processes_that_die_and_threads_that_hang(tmp_path, isolation, flags, told):
    simulated(tmp_path / "models", "m", behaviour=f"{'abort' if isolation == 'process' else 'hang'}_on = 0")
    place = free_address()
    with Server(tmp_path / "models", "--isolation", isolation, *flags, "--metrics-address", place) as server, \
            Prometheus(tmp_path, place, RULES) as prometheus, server.client() as client:
        prometheus.await_each(["jitney_build_info"])
        assert not any(prometheus.now(ALERTS[name]["expr"]) for name in told)
        # The first and the second time that a request is run it is the end of whoever runs it.
        for _ in range(2):
            ask(client, "m")
        prometheus.await_each([hurried(name) for name in sorted(told)])


@needs_prometheus
@pytest.mark.parametrize("days, told", [(2, "JitneyCertificateEndsSoon"), (10, "JitneyCertificateEnds"), (20, None)])
def test_alerts_tell_of_a_certificate_that_ends(tmp_path, days, told):
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    issued = trustme.CA().issue_cert("localhost", not_after=until)
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    simulated(tmp_path / "models", "m")
    place = free_address()
    flags = ["--tls-cert", tmp_path / "tls.crt", "--tls-key", tmp_path / "tls.key", "--metrics-address", place]
    with Server(tmp_path / "models", *flags), Prometheus(tmp_path, place, RULES, "https") as prometheus:
        prometheus.await_each(["jitney_tls_certificate_not_after_seconds"])
        assert {name for name in OF_TLS if prometheus.now(ALERTS[name]["expr"])} == {told} - {None}
