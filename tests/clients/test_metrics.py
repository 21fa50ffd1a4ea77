"""Metrics, read by a real Prometheus and checked by its promtool."""

import subprocess

import numpy
import pytest
import tritonclient.grpc as triton

from prometheus import Prometheus, get, needs_prometheus
from server import HANG, Server, simulated

REQUESTS = 7


@pytest.fixture
def server(tmp_path):
    repository = tmp_path / "models"
    simulated(repository, "m", policy="latency_objective_ms = 60000")
    # The same port as gRPC's and REST's.
    with Server(repository, "--triton-metrics", "true", "--metrics-address", "127.0.0.1:0") as server:
        client = server.client()
        for number in range(REQUESTS):
            x = triton.InferInput("x", [1, 1], "FP32")
            x.set_data_from_numpy(numpy.full([1, 1], number, numpy.float32))
            client.infer("m", [x])
        yield server


@pytest.fixture
def prometheus(server, tmp_path):
    with Prometheus(tmp_path, server.address) as prometheus:
        yield prometheus


@needs_prometheus
def test_prometheus_counts_the_requests(prometheus):
    [success] = prometheus.query("nv_inference_request_success")
    assert success["metric"]["__name__"] == "nv_inference_request_success"
    assert (success["metric"]["model"], success["metric"]["version"]) == ("m", "1")
    assert success["value"][1] == str(REQUESTS)
    [own] = prometheus.query('jitney_requests_total{code="OK"}')
    assert own["value"][1] == str(REQUESTS)
    [in_time] = prometheus.query("jitney_requests_in_time_total")
    assert in_time["value"][1] == str(REQUESTS)
    assert prometheus.query("up == 1")


@needs_prometheus
def test_promtool_finds_nothing_but_tritons_names(server):
    text = get(f"http://{server.address}/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                             capture_output=True, timeout=HANG)
    said = [line for line in (checked.stdout + checked.stderr).splitlines() if line]
    assert all(line.startswith("nv_") for line in said), said


def test_a_reader_of_lines_finds_tritons_names(server):
    """perf_analyzer and scripts take the text format line by line."""
    lines = get(f"http://{server.address}/metrics").splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("nv_"))
    labels = '{model="m",version="1"}'
    assert values["nv_inference_request_success" + labels] == str(REQUESTS)
    assert values["nv_inference_count" + labels] == str(REQUESTS)
    assert int(values["nv_inference_exec_count" + labels]) == REQUESTS
    for stage in ["request", "queue", "compute_input", "compute_infer", "compute_output"]:
        assert int(values[f"nv_inference_{stage}_duration_us" + labels]) >= 0
    assert int(values["nv_cpu_memory_total_bytes"]) > int(values["nv_cpu_memory_used_bytes"]) > 0
