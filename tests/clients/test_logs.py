"""Log lines for programs: an object each, that knows its trace."""

import json

import grpc
import numpy
import tritonclient.grpc.service_pb2 as pb
import tritonclient.grpc.service_pb2_grpc as stubs

from server import HANG, Server, simulated


def ask(server, model):
    """One request, and what its answer says of its trace."""
    row = numpy.zeros([1, 4], numpy.float32)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=row.shape)
    request = pb.ModelInferRequest(
        model_name=model, id="mine", inputs=[tensor], raw_input_contents=[row.tobytes()])
    with grpc.insecure_channel(server.address) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        _, call = stub.ModelInfer.with_call(request, timeout=HANG)
        return dict(call.initial_metadata()).get("traceresponse")


def test_every_line_is_an_object(repository):
    simulated(repository, "quick", policy="latency_objective_ms = 60000")
    simulated(repository, "slow", policy="latency_objective_ms = 0.001")
    with Server(repository, "--log-format", "json", "--log", "info,jitney=debug", "--trace-ratio", "0",
                "--otlp-endpoint", "http://127.0.0.1:9") as server:
        assert ask(server, "quick") is None
        response = ask(server, "slow")
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.logged().splitlines()]
    assert all({"timestamp", "level", "target", "message"} <= line.keys() for line in lines)
    ready = {line["model"]: line for line in lines if line["message"] == "ready"}
    assert ready.keys() == {"quick", "slow"}
    for line in ready.values():
        assert line["level"] == "INFO" and line["version"] == 1 and line["took_ms"] >= 0
    [slow] = [line for line in lines if line["message"] == "slow or failed"]
    assert slow["model"] == "slow" and slow["id"] == "mine" and slow["code"] == "OK"
    assert slow["trace_id"] == response.split("-")[1]


def test_no_line_is_about_a_request_unless_asked(repository):
    simulated(repository, "quick", policy="latency_objective_ms = 60000")
    with Server(repository, "--log-format", "json") as server:
        before = server.logged()
        ask(server, "quick")
        assert server.logged() == before
