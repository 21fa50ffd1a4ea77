"""Servers that go and come back one after the other, and connections that get old, under load."""

import json
import subprocess
import threading
import time
import urllib.request
from contextlib import ExitStack

import grpc
import numpy
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from generated import go, run
from server import HANG, Server, simulated
from tensors import given

SERVERS = 3
# One row at a time, 10 ms each: what one server can do in a second.
BEHAVIOUR = "fixed_ms = 10"
CAPACITY = 100
# What both clients ask together is 70 % of what all servers can do, and more than two of them: what then waits
# is not refused.
POLICY = "max_batch_size = 1\nmax_queue_size = 100000"
RATE = SERVERS * CAPACITY * 7 // 10 // 2

BALANCED = {"loadBalancingConfig": [{"round_robin": {}}]}
# What clients do that are told of a server that is about to leave.
WATCHED = {**BALANCED, "healthCheckConfig": {"serviceName": ""}}
CONFIGS = pytest.mark.parametrize("config", [BALANCED, WATCHED], ids=["balanced", "watched"])


class PythonLoad:
    """Asks the servers in turn, so many times a second, until it is ended."""

    def __init__(self, addresses, config):
        # Else it would be the list of addresses, which is nobody's name.
        options = [("grpc.service_config", json.dumps(config)),
                   ("grpc.default_authority", "jitney")]
        self.channel = grpc.insecure_channel("ipv4:" + ",".join(addresses), options)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.over, self.lock = threading.Event(), threading.Lock()
        self.calls, self.slowest = [], 0
        self.thread = threading.Thread(target=self._send)
        self.thread.start()

    def _send(self):
        begun = time.monotonic()
        while not self.over.wait(max(0, begun + len(self.calls) / RATE - time.monotonic())):
            row = numpy.array([len(self.calls), 1], numpy.float32).tobytes()
            request = service_pb2.ModelInferRequest(model_name="slow", id=str(len(self.calls)))
            request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
            request.raw_input_contents.append(row)
            asked = time.monotonic()
            call = self.stub.ModelInfer.future(request, timeout=HANG)
            call.add_done_callback(lambda _, asked=asked: self._took(time.monotonic() - asked))
            self.calls.append((request, call))

    def _took(self, seconds):
        with self.lock:
            self.slowest = max(self.slowest, seconds)

    def end(self):
        self.over.set()
        self.thread.join()
        right, failures = 0, []
        for request, call in self.calls:
            error = call.exception(timeout=HANG)
            if error is not None:
                failures.append(f"{error.code()}: {error.details()}")
                continue
            answer = call.result()
            assert answer.id == request.id
            assert answer.raw_output_contents[0] == request.raw_input_contents[0]
            right += 1
        self.channel.close()
        return {"sent": len(self.calls), "right": right, "failures": failures, "slowest": self.slowest}


class GoLoad:
    """The same by a program in Go."""

    def __init__(self, program, addresses, config):
        command = [program, ",".join(addresses), str(RATE), json.dumps(config)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def end(self):
        return json.loads(self.process.communicate(timeout=HANG)[0])


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rolling")
    work = go(folder)
    run(["go", "build", "-mod=readonly", "-o", folder / "rolling", "./rolling"], work)
    return folder / "rolling"


def answered(server):
    """Requests that a server has answered."""
    metrics = urllib.request.urlopen(f"http://{server.address}/metrics", timeout=HANG)
    lines = metrics.read().decode().splitlines()
    counts = [line for line in lines if line.startswith("jitney_requests_total{") and '"OK"' in line]
    return sum(float(line.split()[-1]) for line in counts)


def until_busy(server):
    """Waits until a server has its part of the load."""
    end, before = time.monotonic() + HANG, answered(server)
    while answered(server) < before + CAPACITY / 2:
        assert time.monotonic() < end, "nobody asks it"
        time.sleep(0.05)


@CONFIGS
def test_a_rolling_restart_loses_nothing(repository, program, config):
    simulated(repository, "slow", POLICY, BEHAVIOUR)
    flags = ["--lame-duck-ms", "500", "--max-connection-age-ms", "700", "--drain-timeout-ms", "170000"]
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(repository, *flags)) for _ in range(SERVERS)]
        addresses = [server.address for server in servers]
        begun = time.monotonic()
        loads = [PythonLoad(addresses, config), GoLoad(program, addresses, config)]
        for server in servers:
            until_busy(server)
        for server in servers:
            assert server.stop() == 0, server.logged()
            again = Server(repository, *flags, address=server.address)
            until_busy(stack.enter_context(again))
        results = [load.end() for load in loads]
        for ended in results:
            assert ended["failures"] == []
            assert ended["right"] == ended["sent"] > CAPACITY
        sent, slowest = sum(one["sent"] for one in results), max(one["slowest"] for one in results)
        print(f"rollout: {sent} requests by two clients over {time.monotonic() - begun:.0f} s, "
              f"{SERVERS} restarts, the slowest answer {slowest:.2f} s, none lost")


def test_tritonclient_loses_nothing_when_connections_get_old(repository):
    simulated(repository, "quick")
    # One that is too old when its client has not yet spoken would be ended without a word.
    with Server(repository, "--max-connection-age-ms", "2000") as server, \
            server.client() as client, triton.InferenceServerClient(server.address) as other:
        asked, end = 0, time.monotonic() + 10
        while time.monotonic() < end:
            asked += 1
            row = numpy.array([[asked, 1]], numpy.float32)
            for one in (client, other):
                answer = one.infer("quick", [given("x", row)])
                numpy.testing.assert_array_equal(answer.as_numpy("y"), row)
        assert answered(server) == 2 * asked
