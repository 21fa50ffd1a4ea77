"""Parameters of requests, and headers that stand for them, over gRPC and over HTTP."""

import numpy
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from server import Server, simulated
from test_shared_memory import connect, refused

ARRAY = numpy.ones([1, 4], numpy.float32)


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


@pytest.fixture
def slow(repository):
    """A repository whose model takes a minute; no test waits for it."""
    simulated(repository, "slow", behaviour="fixed_ms = 60000")
    return repository


def infer(protocol, client, model="slow", **asked):
    triton = {"grpc": triton_grpc, "http": triton_http}[protocol]
    tensor = triton.InferInput("x" if model == "slow" else "INPUT0", [1, 4], "FP32")
    tensor.set_data_from_numpy(ARRAY)
    return client.infer(model, [tensor], **asked)


def test_what_nobody_knows_is_ignored(protocol, server):
    with connect(protocol, server) as client:
        result = infer(protocol, client, "identity_fp32", priority=1, timeout=60_000_000, parameters={
            "text": "a", "number": 7, "truth": True, "shared": "memory", "classes": 3})
        numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ARRAY)


def test_a_timeout_is_kept(protocol, slow):
    with Server(slow) as server, connect(protocol, server) as client:
        refused(lambda: infer(protocol, client, timeout=20_000), "deadline")
        refused(lambda: infer(protocol, client, timeout=-1), "whole number")


def test_a_header_stands_for_it_where_that_is_allowed(protocol, slow):
    with Server(slow, "--forward-headers", "priority,timeout") as server:
        with connect(protocol, server) as client:
            refused(lambda: infer(protocol, client, headers={"timeout": "20000"}), "deadline")
            refused(lambda: infer(protocol, client, headers={"timeout": "soon"}), "timeout")
            refused(lambda: infer(protocol, client, headers={"priority": "u=1, i"}), "priority")


def test_a_header_says_nothing_by_itself(protocol, server):
    with connect(protocol, server) as client:
        headers = {"timeout": "soon", "priority": "u=1, i"}
        result = infer(protocol, client, "identity_fp32", headers=headers)
        numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ARRAY)
