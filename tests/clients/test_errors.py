"""Whatever a client can get wrong is told in words that name the model, the input, and both sides."""

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server import HANG, Server

I, N = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


def tensor(name="INPUT0", datatype="FP32", shape=(1, 2), **contents):
    made = service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(made.contents, field).extend(values)
    return made


def request(*inputs, model="identity_fp32", version="", raw=(b"\0" * 8,), outputs=()):
    made = service_pb2.ModelInferRequest(model_name=model, model_version=version, inputs=inputs)
    made.raw_input_contents.extend(raw)
    for name in outputs:
        made.outputs.add(name=name)
    return made


WRONG = {
    "model": (request(tensor(), model="nowhere"), N, ["nowhere", "identity_fp32"]),
    "no model": (request(tensor(), model=""), N, ["unknown model"]),
    "version": (request(tensor(), version="7"), N, ["7", "it has 1"]),
    "version in words": (request(tensor(), version="newest"), I, ["newest", "number"]),
    "input": (request(tensor(name="x")), I, ["x", "INPUT0"]),
    "no input": (request(raw=()), I, ["INPUT0"]),
    "input twice": (request(tensor(), tensor(), raw=[b"\0" * 8] * 2), I, ["INPUT0"]),
    "output": (request(tensor(), outputs=["y"]), I, ["y", "OUTPUT0"]),
    "datatype": (request(tensor(datatype="FP64"), raw=[b"\0" * 16]), I, ["FP64", "FP32"]),
    "datatype in words": (request(tensor(datatype="float")), I, ["float", "FP32"]),
    "rank": (request(tensor(shape=[2])), I, ["[2]", "[-1,-1]"]),
    "negative dimension": (request(tensor(shape=[-1, 2])), I, ["-1"]),
    "overflowing dimensions": (request(tensor(shape=[2**62, 2**62])), I, ["INPUT0"]),
    "too many rows": (request(tensor(shape=[33, 2]), raw=[b"\0" * 33 * 8]), I, ["33", "32"]),
    "raw length": (request(tensor(), raw=[b"\0" * 7]), I, ["INPUT0", "8", "7"]),
    "raw and typed": (request(tensor(fp32_contents=[1, 2])), I, ["INPUT0", "raw"]),
    "raw missing": (request(tensor(), raw=()), I, ["INPUT0"]),
    "raw too many": (request(tensor(), raw=[b"\0" * 8] * 2), I, ["2", "1"]),
    "typed count": (request(tensor(fp32_contents=[1]), raw=()), I, ["INPUT0", "1", "2"]),
    "typed field": (request(tensor(int_contents=[1, 2]), raw=()), I, ["INPUT0", "fp32_contents"]),
    "dimension": (
        request(tensor(datatype="INT32", shape=[1, 15]), tensor("INPUT1", "INT32", [1, 16]),
                model="add_sub", raw=[b"\0" * 60, b"\0" * 64]), I, ["INPUT0", "15", "16"]),
    "one input of two": (
        request(tensor(datatype="INT32", shape=[1, 16]), model="add_sub", raw=[b"\0" * 64]), I,
        ["INPUT1"]),
    "rows that differ": (
        request(tensor(datatype="INT32", shape=[1, 16]),
                tensor("INPUT1", "INT32", [2, 16]), model="add_sub", raw=[b"\0" * 64, b"\0" * 128]),
        I, ["INPUT1", "2", "1"]),
    "typed integer out of range": (
        request(tensor("x", "INT8", [1], int_contents=[128]), model="int8", raw=()), I, ["int8", "x", "128", "INT8"]),
    "string cut short": (
        request(tensor(datatype="BYTES", shape=[1, 1]), model="string_identity",
                raw=[b"\5\0\0\0four"]), I, ["INPUT0"]),
    "strings too many": (
        request(tensor(datatype="BYTES", shape=[1, 1]), model="string_identity",
                raw=[b"\1\0\0\0a\1\0\0\0b"]), I, ["INPUT0"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_told_with_what_was_expected_and_what_came(server, wrong):
    sent, code, words = WRONG[wrong]
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.ModelInfer(sent, timeout=HANG)
        assert error.value.code() == code, error.value.details()
        for word in words:
            assert word in error.value.details()
        # A sentence, not a dump.
        assert len(error.value.details()) < 400
        assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=HANG).ready


def test_a_message_that_is_too_large_names_the_bound(add, repository):
    add("identity_fp32")
    with Server(repository, "--max-message-bytes", "65536") as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.RpcError) as error:
                stub.ModelInfer(
                    request(tensor(shape=[1, 20_000]), raw=[b"\0" * 80_000]), timeout=HANG)
            assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "65536" in error.value.details()
            assert "max_message_bytes" in error.value.details()
