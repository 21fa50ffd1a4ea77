"""Overload, deadlines and SIGTERM, as the process shows them to its clients."""

import queue
import subprocess
import threading
import time
import urllib.request

import grpc
import numpy
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from server import HANG, Gate, Server, simulated
from tensors import given

ROW = numpy.ones([1, 2], numpy.float32)


def row(model="slow"):
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(ROW.tobytes())
    return request


def test_a_full_queue_refuses_at_once_and_says_when_to_try_again(repository, tmp_path):
    gate = Gate(tmp_path)
    simulated(repository, "slow", "max_batch_size = 1\nmax_queue_size = 2", gate.behaviour)
    with Server(repository) as server, grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        # Two wait, and the rest are refused, but for one if it is taken before the last of them.
        calls = [stub.ModelInfer.future(row(), timeout=HANG) for _ in range(6)]
        told = queue.Queue()
        for call in calls:
            call.add_done_callback(told.put)
        for _ in range(3):
            told.get(timeout=HANG)
        gate.open()
        refused = [call for call in calls if call.exception(timeout=HANG)]
        assert len(refused) in (3, 4)
        for call in refused:
            assert call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "max_queue_size" in call.details()
            assert int(dict(call.trailing_metadata())["grpc-retry-pushback-ms"]) > 0


def test_a_clients_timeout_ends_its_wait(repository):
    simulated(repository, "slow", behaviour="fixed_ms = 60000")
    with Server(repository, "--drain-timeout-ms", "0") as server, server.client() as client:
        with pytest.raises(InferenceServerException) as error:
            client.infer("slow", [given("x", ROW)], client_timeout=0.2)
        assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        with pytest.raises(InferenceServerException) as error:
            client.infer("slow", [given("x", ROW)], timeout=200_000)
        assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_sigterm_loses_nothing_that_was_accepted(repository, tmp_path):
    gate = Gate(tmp_path)
    simulated(repository, "slow", "max_batch_size = 1", gate.behaviour)
    with Server(repository, "--metrics-address", "127.0.0.1:0") as server, \
            grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(row(), timeout=HANG) for _ in range(10)]
        # One runs, and the others wait.
        until_told(server, 'jitney_queued_requests{model="slow",version="1"} 9')
        server.terminate()
        gate.open()
        for call in calls:
            assert call.result(timeout=HANG).raw_output_contents[0] == ROW.tobytes()
        assert server.wait() == 0


def test_a_lame_duck_serves_and_tells_who_watches(repository):
    simulated(repository, "quick")
    flags = ["--lame-duck-ms", "3600000"]
    with Server(repository, *flags) as server, server.client() as client:
        watch = subprocess.Popen(
            ["grpcurl", "-plaintext", "-d", '{"service": "quick"}', server.address,
             "grpc.health.v1.Health/Watch"], stdout=subprocess.PIPE, text=True)
        until(watch, "SERVING")
        assert client.is_server_ready()
        server.terminate()
        until(watch, "NOT_SERVING")
        assert not client.is_server_ready()
        result = client.infer("quick", [given("x", ROW)])
        numpy.testing.assert_array_equal(result.as_numpy("y"), ROW)
        # The second signal ends the lame-duck time.
        assert server.stop() == 0
        watch.wait(timeout=HANG)


def test_open_streams_do_not_keep_the_server(repository):
    simulated(repository, "quick")
    with Server(repository) as server, server.client() as client:
        answered = threading.Event()
        client.start_stream(lambda result, error: answered.set())
        client.async_stream_infer("quick", [given("x", ROW)])
        assert answered.wait(HANG)
        assert server.stop() == 0
        client.stop_stream(cancel_requests=True)


def test_what_does_not_finish_in_time_is_an_exit_code(repository):
    simulated(repository, "slow", "max_batch_size = 1\nmax_queue_size = 1", "fixed_ms = 60000")
    with Server(repository, "--drain-timeout-ms", "50") as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            calls = [stub.ModelInfer.future(row(), timeout=HANG) for _ in range(3)]
            # One of them is refused; from then on the others are known to be in.
            refused = threading.Event()
            for call in calls:
                call.add_done_callback(lambda _: refused.set())
            assert refused.wait(HANG)
            assert server.stop() == 1
            assert "still in progress" in server.logged()


def until(process, word):
    """Reads what a process prints until a line names this status."""
    killer = threading.Timer(HANG, process.kill)
    killer.start()
    try:
        for line in process.stdout:
            if f'"{word}"' in line:
                return
        raise AssertionError(f"{word} never came")
    finally:
        killer.cancel()


def until_told(server, line):
    """Reads metrics until they have this line."""
    end = time.monotonic() + HANG
    url = f"http://{server.address}/metrics"
    while line not in urllib.request.urlopen(url, timeout=HANG).read().decode():
        assert time.monotonic() < end, f"waited in vain: {line}"
        time.sleep(0.01)


def test_sigterm_does_not_wait_for_loads_to_end(repository):
    simulated(repository, "slow", behaviour="load_ms = 3600000")
    with Server(repository, "--model-control", "explicit") as server, \
            grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        asked = service_pb2.RepositoryModelLoadRequest(model_name="slow")
        load = stub.RepositoryModelLoad.future(asked, timeout=HANG)
        while True:
            index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=HANG)
            if any(model.state == "LOADING" for model in index.models):
                break
        load.cancel()
        assert server.stop() == 0
