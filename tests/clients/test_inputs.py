"""Inputs that a request may leave out, and inputs of different lengths laid end to end, as Triton's
configuration says it and its clients send it, while requests travel together."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import tritonclient.grpc as triton
import tritonclient.http as http

from server import BINARY, ROOT, Server

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
RAGGED = """
max_batch_size: 4
input [ { name: "values" data_type: TYPE_FP32 dims: [ -1, 2 ] allow_ragged_batch: true } ]
output [
  { name: "doubled" data_type: TYPE_FP32 dims: [ -1, 2 ] },
  { name: "sum" data_type: TYPE_FP32 dims: [ ] },
  { name: "same_sum" data_type: TYPE_FP32 dims: [ ] },
  { name: "count" data_type: TYPE_INT64 dims: [ ] },
  { name: "shape" data_type: TYPE_INT32 dims: [ 2 ] },
  { name: "same_shape" data_type: TYPE_INT32 dims: [ 2 ] }
]
batch_input [
  { kind: BATCH_ELEMENT_COUNT target_name: "counts" data_type: TYPE_INT32 source_input: "values" },
  { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "ends" data_type: TYPE_FP32 source_input: "values" },
  { kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: "bounds" data_type: TYPE_INT32 source_input: "values" },
  { kind: BATCH_MAX_ELEMENT_COUNT_AS_SHAPE target_name: "longest" data_type: TYPE_FP32 source_input: "values" },
  { kind: BATCH_ITEM_SHAPE target_name: "shapes" data_type: TYPE_INT32 source_input: "values" },
  { kind: BATCH_ITEM_SHAPE_FLATTEN target_name: "flat" data_type: TYPE_INT32 source_input: "values" }
]
batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "doubled" source_input: "values" } ]
dynamic_batching { max_queue_delay_microseconds: 60000000 }
"""
# The model keeps its batch dimension. Who pads for whom is the server's choice, so nobody waits long.
PADDED = """
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "sum" data_type: TYPE_FP32 dims: [ ] } ]
dynamic_batching { max_queue_delay_microseconds: 300000 }
"""
CONFIGS = {"optional": OPTIONAL, "ragged": RAGGED, "variable_shape": PADDED}
OWN_SCALE = numpy.array([[1, 2, 3, 4]], numpy.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name, text in CONFIGS.items():
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
    def ask(kind, arrays):
        # REST has the same port. Its client belongs to one thread.
        with kind.InferenceServerClient(server.address) as client:
            return client.infer(model, tensors(kind, arrays))

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, [triton, http] * len(requests), requests))


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


def test_requests_of_any_length_share_a_batch(server):
    lengths = [3, 4, 5, 0, 1, 7, 2, 6] * 2
    requests = [{"values": numpy.arange(2 * length, dtype=numpy.float32).reshape(1, length, 2) + 10 * seed}
                for seed, length in enumerate(lengths)]
    for arrays, length, answer in zip(requests, lengths, at_once(server, "ragged", requests)):
        own = arrays["values"]
        numpy.testing.assert_array_equal(answer.as_numpy("doubled"), own * 2)
        for name in ["sum", "same_sum"]:
            numpy.testing.assert_array_equal(answer.as_numpy(name), [own.sum()])
        numpy.testing.assert_array_equal(answer.as_numpy("count"), [own.size])
        for name in ["shape", "same_shape"]:
            numpy.testing.assert_array_equal(answer.as_numpy(name), [[length, 2]])
    assert batches(server, "ragged") == {4: 4}


def test_what_keeps_its_batch_dimension_is_padded(server):
    requests = [{"x": numpy.arange(1, length + 1, dtype=numpy.float32)[None]} for length in [1, 5, 2, 9] * 4]
    for arrays, answer in zip(requests, at_once(server, "variable_shape", requests)):
        numpy.testing.assert_array_equal(answer.as_numpy("y"), arrays["x"] * 2)
        numpy.testing.assert_array_equal(answer.as_numpy("sum"), arrays["x"].sum(axis=1))
    assert sum(batches(server, "variable_shape").values()) < 16


def test_clients_are_told_what_is_laid_end_to_end(server):
    grpc, rest = server.client(), http.InferenceServerClient(server.address)
    metadata = grpc.get_model_metadata("ragged")
    assert [(one.name, list(one.shape)) for one in metadata.inputs] == [("values", [-1, -1, 2])]
    config = rest.get_model_config("ragged")
    assert config["input"][0]["allow_ragged_batch"] is True
    assert [one["kind"] for one in config["batch_input"]] == [
        "BATCH_ELEMENT_COUNT", "BATCH_ACCUMULATED_ELEMENT_COUNT", "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
        "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", "BATCH_ITEM_SHAPE", "BATCH_ITEM_SHAPE_FLATTEN"]
    assert config["batch_input"][1] | {"kind": ""} == {
        "kind": "", "target_name": ["ends"], "data_type": "TYPE_FP32", "source_input": ["values"]}
    told = grpc.get_model_config("ragged").config.batch_output
    assert [(list(one.target_name), list(one.source_input)) for one in told] == [(["doubled"], ["values"])]
    assert grpc.get_model_config("variable_shape").config.input[0].allow_ragged_batch


def test_check_explains_and_convert_writes_the_same(server, tmp_path):
    def say(*command):
        return subprocess.run([BINARY, *command], check=True, capture_output=True, text=True).stdout

    said = say("check", server.repository)
    assert "batches of up to 4 rows, requests laid end to end" in said
    assert "batches of up to 4 rows, the shorter padded" in said
    again = tmp_path / "again"
    for model in CONFIGS:
        shutil.copytree(server.repository / model / "1", again / model / "1")
        (again / model / "model.toml").write_text(say("convert", server.repository / model))
    assert say("check", again) == said
