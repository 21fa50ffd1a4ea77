"""Every other call of the service, by tritonclient."""

import numpy
import pytest
from tritonclient.utils import InferenceServerException

from server import Server
from tensors import VALUES, given, output_of


def test_live_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("identity_all")
    assert client.is_model_ready("identity_all", "1")
    assert not client.is_model_ready("identity_all", "2")
    assert not client.is_model_ready("nowhere")


def test_server_metadata(client):
    metadata = client.get_server_metadata()
    assert metadata.name == "triton"
    assert metadata.version
    assert "model_repository" in metadata.extensions
    assert "statistics" in metadata.extensions


def test_model_metadata_names_every_type(client):
    metadata = client.get_model_metadata("identity_all")
    assert (metadata.name, list(metadata.versions)) == ("identity_all", ["1"])
    types = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.outputs]
    assert types == [(output_of(name), name, [-1, 2]) for name in VALUES]
    assert [tensor.datatype for tensor in metadata.inputs] == list(VALUES)


def test_model_config(client):
    config = client.get_model_config("add_sub").config
    assert (config.name, config.max_batch_size) == ("add_sub", 32)
    # Where there is a batch dimension the configuration leaves it out.
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [
        ("INPUT0", [16]), ("INPUT1", [16])]
    assert client.get_model_config("unbatched_softmax").config.max_batch_size == 0


def test_statistics_count_requests_and_rows(add, repository):
    add("identity_fp32")
    with Server(repository) as server, server.client() as client:
        for rows in [1, 2, 3]:
            client.infer("identity_fp32", [given("INPUT0", numpy.ones([rows, 2], numpy.float32))])
        with pytest.raises(InferenceServerException):
            client.infer("identity_fp32", [given("INPUT0", numpy.ones([2], numpy.float32))])
        [statistics] = client.get_inference_statistics("identity_fp32").model_stats
        assert statistics.inference_count == 6
        assert statistics.execution_count == 3
        assert statistics.inference_stats.success.count == 3
        assert statistics.inference_stats.compute_infer.ns > 0
        assert {batch.batch_size for batch in statistics.batch_stats} == {1, 2, 3}
        everything = client.get_inference_statistics().model_stats
        assert [model.name for model in everything] == ["identity_fp32"]


def test_repository_is_loaded_and_unloaded_by_clients(add, repository):
    add("identity_fp32")
    add("add_sub")
    array = numpy.ones([1, 2], numpy.float32)

    def index(client):
        models = client.get_model_repository_index().models
        return {model.name: (model.version, model.state, model.reason) for model in models}

    flags = ["--model-control", "explicit", "--load-model", "add_sub"]
    with Server(repository, *flags) as server, server.client() as client:
        assert index(client) == {
            "add_sub": ("1", "READY", ""), "identity_fp32": ("", "UNAVAILABLE", "not loaded")}
        client.load_model("identity_fp32")
        assert client.is_model_ready("identity_fp32")
        result = client.infer("identity_fp32", [given("INPUT0", array)])
        numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)
        client.unload_model("identity_fp32")
        assert not client.is_model_ready("identity_fp32")
        assert index(client)["identity_fp32"] == ("1", "UNAVAILABLE", "unloaded")
        add("identity_fp32", version=2)
        client.load_model("identity_fp32")
        assert client.infer(
            "identity_fp32", [given("INPUT0", array)]).get_response().model_version == "2"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(client, algorithm):
    array = numpy.ones([1, 2], numpy.float32)
    answer = client.infer(
        "identity_fp32", [given("INPUT0", array)], compression_algorithm=algorithm)
    assert (answer.as_numpy("OUTPUT0") == array).all()
