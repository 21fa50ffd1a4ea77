"""Inputs that a request may leave out, through the real clients, while requests travel together."""

from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import shutil
import tritonclient.grpc as triton
import tritonclient.http as http

from server import ROOT, Server

MODELS = ROOT / "tests/models"

OPTIONAL = """
max_batch_size: 4
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 4 ] },
  { name: "scale" data_type: TYPE_FP32 dims: [ 4 ] optional: true },
  { name: "shift" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
dynamic_batching { max_queue_delay_microseconds: 60000000 }
"""
OWN_SCALE = numpy.array([[1, 2, 3, 4]], numpy.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name, text in {"optional": OPTIONAL}.items():
        shutil.copytree(MODELS / name / "1", folder / name / "1")
        (folder / name / "config.pbtxt").write_text(text)
    with Server(folder) as server:
        yield server


def tensors(kind, arrays):
    made = []
    for name, array in arrays.items():
        tensor = kind.InferInput(name, array.shape, "FP32")
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def at_once(server, model, requests):
    """Every request's answer, sent together: half of them over gRPC, half over REST."""
    grpc, rest = server.client(), http.InferenceServerClient(server.address, concurrency=len(requests))
    with ThreadPoolExecutor(len(requests)) as pool:
        asked = [pool.submit(client.infer, model, tensors(kind, arrays)) for (client, kind), arrays in
                 zip([(grpc, triton), (rest, http)] * len(requests), requests)]
        return [one.result() for one in asked]


def batches(server, model):
    """How many batches of each size ran."""
    [statistics] = server.client().get_inference_statistics(model).model_stats
    return {batch.batch_size: batch.compute_infer.count for batch in statistics.batch_stats}


def test_what_is_left_out_has_the_graphs_value(server):
    requests = []
    for seed in range(16):
        arrays = {"x": numpy.arange(4, dtype=numpy.float32)[None] + seed}
        if seed % 8 < 4:
            arrays["scale"] = numpy.full((1, 4), seed, numpy.float32)
        if seed < 8:
            arrays["shift"] = numpy.full((1, 1), -seed, numpy.float32)
        requests.append(arrays)
    for arrays, answer in zip(requests, at_once(server, "optional", requests)):
        expected = arrays["x"] * arrays.get("scale", OWN_SCALE) + arrays.get("shift", numpy.float32(0.5))
        numpy.testing.assert_array_equal(answer.as_numpy("y"), expected)
    # A batch leaves when it is full, and so nobody was in one with those who brought something else.
    assert batches(server, "optional") == {4: 4}


def test_clients_are_told_what_they_may_leave_out(server):
    grpc, rest = server.client(), http.InferenceServerClient(server.address)
    assert [one.name for one in grpc.get_model_metadata("optional").inputs] == ["x", "scale", "shift"]
    told = [one.optional for one in grpc.get_model_config("optional").config.input]
    assert told == [one["optional"] for one in rest.get_model_config("optional")["input"]] == [False, True, True]
