"""Inference by tritonclient: every element type, in both encodings, sync, with callbacks, asyncio."""

import asyncio
import queue

import grpc
import numpy
import onnxruntime
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server import HANG, ROOT, Server, simulated
from tensors import VALUES, every_type, given, output_of

TYPED = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "INT8": "int_contents",
    "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}


def test_every_type_comes_back_as_it_was_sent(client):
    result = client.infer("identity_all", every_type(), request_id="seven")
    assert result.get_response().id == "seven"
    assert result.get_response().model_name == "identity_all"
    assert result.get_response().model_version == "1"
    for datatype, array in VALUES.items():
        numpy.testing.assert_array_equal(result.as_numpy(output_of(datatype)), array)


def test_typed_contents_mean_the_same_as_raw_ones(repository):
    """Half precision is left out: the protocol has no typed contents for it."""
    for datatype in TYPED:
        simulated(repository, datatype, dtype=datatype)
    with Server(repository) as server, grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for datatype, field in TYPED.items():
            array = VALUES[datatype]
            request = service_pb2.ModelInferRequest(model_name=datatype)
            tensor = request.inputs.add(name="x", datatype=datatype, shape=array.shape)
            getattr(tensor.contents, field).extend(array.flatten().tolist())
            result = triton.InferResult(stub.ModelInfer(request, timeout=HANG))
            numpy.testing.assert_array_equal(result.as_numpy("y"), array, datatype)


def test_only_the_outputs_asked_for_come_back_in_that_order(client):
    first = numpy.arange(16, dtype=numpy.int32).reshape(1, 16)
    inputs = [given("INPUT0", first), given("INPUT1", numpy.ones_like(first))]
    wanted = [triton.InferRequestedOutput("OUTPUT1")]
    result = client.infer("add_sub", inputs, outputs=wanted)
    assert [output.name for output in result.get_response().outputs] == ["OUTPUT1"]
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - 1)
    wanted.append(triton.InferRequestedOutput("OUTPUT0"))
    result = client.infer("add_sub", inputs, outputs=wanted)
    assert [output.name for output in result.get_response().outputs] == ["OUTPUT1", "OUTPUT0"]
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)


def test_inputs_may_come_in_any_order(client):
    first = numpy.full([2, 16], 5, numpy.int32)
    second = numpy.full([2, 16], 3, numpy.int32)
    result = client.infer("add_sub", [given("INPUT1", second), given("INPUT0", first)])
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - second)


def test_strings_of_any_length(client):
    strings = numpy.array([[b"a" * length] for length in [0, 1, 100, 100_000]], object)
    result = client.infer("string_identity", [given("INPUT0", strings)])
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), strings)


@pytest.mark.parametrize("model, shape", [
    ("unbatched_softmax", [7]), ("fixed_shape", [2, 3]), ("scalar_out", [3])])
def test_models_without_rows_answer_as_onnxruntime_does(client, model, shape):
    array = numpy.linspace(-1, 2, numpy.prod(shape), dtype=numpy.float32).reshape(shape)
    result = client.infer(model, [given("x", array)])
    numpy.testing.assert_array_equal(result.as_numpy("y"), direct(model).run(["y"], {"x": array})[0])


def test_callbacks(client):
    answers = queue.Queue()
    arrays = [numpy.full([1, 3], number, numpy.float32) for number in range(50)]
    for number, array in enumerate(arrays):
        client.async_infer(
            "identity_fp32", [given("INPUT0", array)], request_id=str(number),
            callback=lambda result, error: answers.put((result, error)))
    for _ in arrays:
        result, error = answers.get(timeout=HANG)
        assert error is None
        number = int(result.get_response().id)
        numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), arrays[number])


def test_asyncio_with_batches_that_mix_requests(server):
    """Rows of different requests are computed together and go back to whom they belong."""
    rows = numpy.random.default_rng(1).normal(size=[20 * 20, 16]).astype(numpy.float32)
    sizes = [1, 3, 2, 5, 1, 8]
    parts = numpy.split(rows, numpy.cumsum(sizes * 20)[:-1])

    async def ask():
        async with triton_aio.InferenceServerClient(server.address) as client:
            return await asyncio.gather(
                *(client.infer("tiny_mlp", [given("x", part)]) for part in parts))

    results = asyncio.run(asyncio.wait_for(ask(), HANG))
    answers = numpy.concatenate([result.as_numpy("y") for result in results])
    expected = direct("tiny_mlp").run(["y"], {"x": rows})[0]
    numpy.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-6)


def test_parameters_of_other_servers_clients_are_taken(client):
    array = numpy.ones([1, 2], numpy.float32)
    result = client.infer(
        "identity_fp32", [given("INPUT0", array)], priority=1, timeout=60_000_000,
        parameters={"trace": "no", "flag": True, "weight": 2})
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_metadata_headers_are_taken(client):
    array = numpy.ones([1, 2], numpy.float32)
    result = client.infer(
        "identity_fp32", [given("INPUT0", array)], headers={"authorization": "none"})
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def direct(model):
    """ONNX Runtime without a server, on one of the small models."""
    path = ROOT / "tests" / "models" / model / "1" / "model.onnx"
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
