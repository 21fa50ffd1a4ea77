"""Triton's configuration as its clients see it and send it: config.pbtxt, load_model, get_model_config."""

import json
import shutil
from pathlib import Path

import numpy
import pytest
import tritonclient.grpc as triton
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from server import ROOT, Server

MODEL = ROOT / "tests/models/identity_fp32/1/model.onnx"
NAME = "echo"

CONFIG = """
name: "echo"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  {
    name: "INPUT0"
    data_type: TYPE_FP32
    dims: [ 2, 2 ]
    reshape: { shape: [ 4 ] }
  }
]
output [
  {
    name: "OUTPUT0"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
dynamic_batching { preferred_batch_size: [ 4, 8 ] }
instance_group [ { kind: KIND_CPU } ]
"""


def clients(server):
    # REST has the same port.
    return server.client(), http.InferenceServerClient(server.address)


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configured")
    (folder / NAME / "1").mkdir(parents=True)
    shutil.copy(MODEL, folder / NAME / "1")
    (folder / NAME / "config.pbtxt").write_text(CONFIG)
    with Server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def explicit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explicit")
    with Server(folder, "--model-control", "explicit") as server:
        yield server


def test_what_the_file_says_is_told_by_both_protocols(configured):
    grpc, rest = clients(configured)
    said = grpc.get_model_config(NAME).config
    assert said.max_batch_size == 8
    assert list(said.input[0].dims) == [2, 2]
    assert list(said.input[0].reshape.shape) == [4]
    assert list(said.dynamic_batching.preferred_batch_size) == [4, 8]
    as_json = rest.get_model_config(NAME)
    assert as_json["max_batch_size"] == 8
    assert as_json["input"][0]["dims"] == [2, 2]
    assert as_json["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert as_json["instance_group"][0]["kind"] == "KIND_CPU"
    assert as_json["optimization"]["input_pinned_memory"] == {"enable": True}


def test_a_reshaped_input_is_sent_as_the_file_says(configured):
    grpc, _ = clients(configured)
    sent = numpy.arange(12, dtype=numpy.float32).reshape(3, 2, 2)
    tensor = triton.InferInput("INPUT0", [3, 2, 2], "FP32")
    tensor.set_data_from_numpy(sent)
    answer = grpc.infer(NAME, [tensor]).as_numpy("OUTPUT0")
    numpy.testing.assert_array_equal(answer, sent.reshape(3, 4))


@pytest.mark.parametrize("protocol", [0, 1], ids=["grpc", "http"])
def test_a_model_comes_with_its_load(explicit, protocol):
    client = clients(explicit)[protocol]
    config = json.dumps({"backend": "onnxruntime", "max_batch_size": 3})
    files = {"file:1/model.onnx": MODEL.read_bytes()}
    client.load_model("uploaded", config=config, files=files)
    assert client.is_model_ready("uploaded")
    grpc, _ = clients(explicit)
    assert grpc.get_model_config("uploaded").config.max_batch_size == 3
    client.unload_model("uploaded", unload_dependents=True)
    assert not client.is_model_ready("uploaded")


@pytest.mark.parametrize("protocol", [0, 1], ids=["grpc", "http"])
def test_what_cannot_be_loaded_is_refused_by_name(explicit, protocol):
    client = clients(explicit)[protocol]
    files = {"file:1/model.onnx": MODEL.read_bytes()}
    config = json.dumps({"model_transaction_policy": {"decoupled": True}})
    with pytest.raises(InferenceServerException, match="decoupled: is refused"):
        client.load_model("uploaded", config=config, files=files)
    with pytest.raises(InferenceServerException, match="allowed: a path in the model's folder"):
        client.load_model("uploaded", config="{}", files={"file:../x": b"1"})
    with pytest.raises(InferenceServerException, match="without a configuration|must be specified"):
        client.load_model("uploaded", files=files)
