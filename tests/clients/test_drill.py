"""The slow-request drill: something is planted that makes requests slow, and scripts/diagnose.py, which sees nothing but
exported data, has to name it."""

import json
import re
import runpy
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy
import pytest
import tritonclient.grpc as triton

from prometheus import Prometheus, get, needs_prometheus
from receiver import Receiver
from server import BINARY, HANG, ROOT, Server, simulated

LOAD = BINARY.with_name("jitney-load")
SCRIPT = ROOT / "scripts" / "diagnose.py"
DIAGNOSE = runpy.run_path(str(SCRIPT))
# What machines that are busy with something else delay now and then is well within it.
OBJECTIVE = 500
SCENARIO = """
max_lag_ms = 60000
max_outstanding = 400
[[requests]]
model = "{model}"
[[steps]]
arrivals = "poisson"
rate = {rate}
warm_up_s = 0
duration_s = 3600
"""
# Of each drill.
ENOUGH = 60
# Batches of which the first three are slow, and many others not, even if the machine delays one.
AFTER_COLD = 60


def on(*devices):
    return "".join(f'[[instances]]\ndevice = "simulated:{device}"\n' for device in devices)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    models = tmp_path_factory.mktemp("drill") / "models"

    def add(name, behaviour, policy="", objective=OBJECTIVE):
        policy = f"latency_objective_ms = {objective}\n{policy}"
        simulated(models, name, policy=policy, behaviour=behaviour)

    # Of this one alone nothing has to be late.
    add("well", "fixed_ms = 10\n" + on(0, 1), objective=10_000)
    add("lopsided", "fixed_ms = 20\nslowdown = [1, 1, 1, 50]\n" + on(2, 3), "max_batch_size = 1")
    add("crowded", "fixed_ms = 60\n" + on(4), "max_batch_size = 1")
    add("shared", "fixed_ms = 10\nper_row_ms = 6\n" + on(5), "max_batch_size = 600", objective=3000)
    add("fresh", "fixed_ms = 10\ncold_runs = 3\ncold_ms = 900\n" + on(6))
    add("replaced", "fixed_ms = 10\n" + on(7))
    add("heavy", "fixed_ms = 700\n" + on(9, 10, 11))
    add("listening", "fixed_ms = 10\n" + on(8))
    return models


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def server(models, receiver):
    loaded = ["well", "heavy", "lopsided", "crowded", "shared", "replaced", "listening"]
    flags = [word for model in loaded for word in ("--load-model", model)]
    flags += ["--otlp-endpoint", receiver.endpoint, "--otlp-protocol", "http", "--trace-ratio", "0"]
    with Server(models, "--model-control", "explicit", *flags) as server:
        yield server


class Drill:
    """Looks at a server, what it remembers, and what the script makes of them."""

    def __init__(self, server, folder, receiver=None):
        self.server, self.folder, self.receiver, self.looks = server, folder, receiver, []
        self.look()

    def look(self):
        self.looks.append(self.put(f"look{len(self.looks)}", get(f"http://{self.server.address}/metrics")))

    def put(self, name, text):
        file = self.folder / name
        file.write_text(text)
        return file

    def so_far(self):
        self.look()
        first, last = (DIAGNOSE["parsed"](look.read_text()) for look in (self.looks[0], self.looks[-1]))
        return DIAGNOSE["Change"]([first, last])

    def await_requests(self, model, count, counted="jitney_request_duration_seconds_count"):
        """Until so many have ended one way or the other."""
        until = time.monotonic() + HANG
        while self.so_far().grew(counted, model=model) < count:
            assert time.monotonic() < until, f"{model}: too few requests"
            # The server tells nobody of them unasked.
            time.sleep(0.25)

    def diagnosis(self, model):
        self.look()
        exported = ["--looks", *self.looks]
        blind = said_of(model, *exported)
        for name, query in [("decisions", "?last=1000"), ("slow", "?last=1000"), ("breaches", "")]:
            told = get(f"http://{self.server.address}/console/{name}{query}")
            exported += [f"--{name}", self.put(name, told)]
        told = said_of(model, *exported)
        # What the console adds is evidence; the metrics alone are enough to know.
        assert blind["cause"] == told["cause"]
        assert told["cause"] == "healthy" or len(told["evidence"]) > len(blind["evidence"])
        if told["cause"] == "healthy":
            return told
        traced = said_of(model, *exported, "--traces", self.spans_of(model))
        assert traced["cause"] == told["cause"]
        assert len(traced["evidence"]) == len(told["evidence"]) + 2
        return traced

    def spans_of(self, model):
        """What has been sent, as soon as it tells of such a model."""
        until = time.monotonic() + HANG
        while not any(f'"infer {model}"' in line for line in self.receiver.lines):
            assert time.monotonic() < until, f"{model}: no traces"
            time.sleep(0.25)
        return self.put("spans", "\n".join(self.receiver.lines))


def said_of(model, *arguments):
    """What the script says of a model; in a process of its own, that knows nothing else."""
    run = subprocess.run([sys.executable, SCRIPT, "--json", *arguments],
                         capture_output=True, text=True, timeout=HANG, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    all_told = json.loads(run.stdout)
    assert (run.returncode == 0) == all(one["cause"] == "healthy" for one in all_told)
    [told] = [one for one in all_told if one["model"] == model]
    print(json.dumps(told, indent=2))
    return told


def has(told, pattern):
    """What the one line of evidence that is like this says."""
    [found] = filter(None, (re.search(pattern, line) for line in told["evidence"]))
    return found.groups() or [found[0]]


@pytest.fixture
def drill(server, receiver, tmp_path):
    return Drill(server, tmp_path, receiver)


@contextmanager
def load(server, folder, model, rate):
    scenario = folder / "scenario.toml"
    scenario.write_text(SCENARIO.format(model=model, rate=rate))
    process = subprocess.Popen([LOAD, "run", scenario, "--address", server.address],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def rows(count):
    x = triton.InferInput("x", [count, 1], "FP32")
    x.set_data_from_numpy(numpy.zeros([count, 1], numpy.float32))
    return [x]


def test_a_healthy_server_is_called_healthy(server, drill, tmp_path):
    with load(server, tmp_path, "well", 100):
        drill.await_requests("well", 2 * ENOUGH)
    told = drill.diagnosis("well")
    assert told["cause"] == "healthy", told


def test_a_slow_device_is_named(server, drill, tmp_path):
    with load(server, tmp_path, "lopsided", 15):
        drill.await_requests("lopsided", ENOUGH)
    told = drill.diagnosis("lopsided")
    assert told["cause"] == "slow device", told
    assert has(told, r"simulated:3 took .* and simulated:2 .* times as long is expected")
    # The machine may have delayed another now and then.
    [there, slow] = has(told, r"(\d+) of the (\d+) slow batches that are remembered ran there")
    assert 2 * int(there) > int(slow)
    [there, slow] = has(told, r"that are traced, \d+ spent most of their time in execute; (\d+) of (\d+) ran on simulated:3")
    assert 2 * int(there) > int(slow)
    assert has(told, r"execute \d(\.\d+)? s, .* in a batch of 1 rows on simulated:3\): trace [0-9a-f]{32}")


def test_too_much_load_is_named(server, drill, tmp_path):
    with load(server, tmp_path, "crowded", 50):
        drill.await_requests("crowded", ENOUGH // 2)
        told = drill.diagnosis("crowded")
    assert told["cause"] == "queue", told
    assert has(told, r"remembered spent \d+% of their time in queue")
    assert has(told, r"that are traced, \d+ spent most of their time in queue")


def test_few_requests_of_very_many_rows_are_named(server, drill, tmp_path):
    with load(server, tmp_path, "shared", 15), server.client() as client:
        for waited in (20, 40, 60):
            drill.await_requests("shared", waited)
            client.infer("shared", rows(500))
    told = drill.diagnosis("shared")
    assert told["cause"] == "big batch", told
    assert has(told, r"the largest that are remembered had (50\d|5[1-9]\d), ")
    assert has(told, r"the slowest that is traced .*, in a batch of 5\d\d rows|the slowest that is traced .*queue")


def test_a_version_that_was_just_loaded_is_named(server, drill, tmp_path):
    with server.client() as client:
        client.load_model("fresh")
    with load(server, tmp_path, "fresh", 15):
        drill.await_requests("fresh", AFTER_COLD, "jitney_batches_total")
    told = drill.diagnosis("fresh")
    assert told["cause"] == "cold version", told
    assert has(told, r"the slow ones were the version's batches number 1, 2, 3")


def test_a_version_that_replaced_another_is_named(server, models, drill, tmp_path):
    toml = models / "replaced" / "model.toml"
    toml.write_text(toml.read_text().replace("fixed_ms = 10", "fixed_ms = 10\ncold_runs = 3\ncold_ms = 900"))
    with load(server, tmp_path, "replaced", 15):
        drill.await_requests("replaced", 10)
        with server.client() as client:
            client.load_model("replaced")
        # Those of the version before are gone with it.
        drill.await_requests("replaced", AFTER_COLD, "jitney_batches_total")
    told = drill.diagnosis("replaced")
    assert told["cause"] == "cold version", told


def send_slowly(address, seconds):
    """A request whose last bytes are long in coming."""
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [0]}]})
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=HANG) as connection:
        head = f"POST /v2/models/listening/infer HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body[:10]}".encode())
        time.sleep(seconds)
        connection.sendall(body[10:].encode())
        assert b"200 OK" in connection.recv(1 << 16)


def test_clients_that_send_slowly_are_named(server, drill, tmp_path):
    slow = [threading.Thread(target=send_slowly, args=[server.address, 2]) for _ in range(24)]
    for one in slow:
        one.start()
    with load(server, tmp_path, "listening", 20):
        drill.await_requests("listening", ENOUGH)
    for one in slow:
        one.join()
    told = drill.diagnosis("listening")
    assert told["cause"] == "slow client", told
    assert has(told, r"remembered spent \d+% of their time in decode")
    assert has(told, r"that are traced, \d+ spent most of their time in decode")


def test_a_model_that_takes_long_itself_is_named(server, drill, tmp_path):
    with load(server, tmp_path, "heavy", 4):
        drill.await_requests("heavy", 24)
    told = drill.diagnosis("heavy")
    assert told["cause"] == "slow model", told


@needs_prometheus
def test_a_prometheus_is_as_good(server, tmp_path):
    with Prometheus(tmp_path, server.address) as prometheus:
        ended = "jitney_request_duration_seconds_count{model='crowded'}"
        [before] = prometheus.query(ended)
        drill = Drill(server, tmp_path)
        with load(server, tmp_path, "crowded", 50):
            drill.await_requests("crowded", ENOUGH // 2)
            prometheus.query(f"{ended} > {before['value'][1]} + 20")
            # It had not begun to scrape at the first of these moments: what came since is all that there was.
            told = said_of("crowded", "--prometheus", f"http://{prometheus.address}", "--seconds", "60")
    assert told["cause"] == "queue", told


def test_a_look_at_a_server_is_enough(server, tmp_path):
    drill = Drill(server, tmp_path)
    with load(server, tmp_path, "well", 40):
        drill.await_requests("well", 1)
        told = said_of("well", f"http://{server.address}", "--seconds", "5")
    assert told["cause"] == "healthy", told
