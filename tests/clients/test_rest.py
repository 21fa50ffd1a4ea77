"""REST by tritonclient, sync and asyncio: every call, every element type, in both encodings."""

import asyncio
import gzip
import json
import time
import zlib

import gevent
import numpy
import pytest
import requests
import tritonclient.http as rest
import tritonclient.http.aio as rest_aio
from tritonclient.utils import InferenceServerException

from server import HANG, Gate, Server, simulated
from tensors import VALUES, output_of

# tritonclient does not send these as JSON; see the test of bodies made by hand.
HALF = {"FP16", "BF16"}


@pytest.fixture(scope="module")
def http(server):
    with rest.InferenceServerClient(server.address) as client:
        yield client


def given(name, array, datatype=None, binary=True):
    datatype = datatype or rest.np_to_triton_dtype(array.dtype)
    tensor = rest.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def every_type(values=VALUES):
    return [given(f"in_{name.lower()}" if name != "BYTES" else "in_string", array, name)
            for name, array in values.items()]


def test_live_and_ready(http):
    assert http.is_server_live()
    assert http.is_server_ready()
    assert http.is_model_ready("identity_all")
    assert http.is_model_ready("identity_all", "1")
    assert not http.is_model_ready("identity_all", "2")
    assert not http.is_model_ready("nowhere")


def test_bodies_of_health_are_those_of_the_protocol(server):
    def get(path):
        answer = requests.get(f"http://{server.address}/v2/{path}", timeout=HANG)
        return answer.status_code, answer.json()

    assert get("health/live") == (200, {"live": True})
    assert get("health/ready") == (200, {"ready": True})
    assert get("models/add_sub/ready") == (200, {"name": "add_sub", "ready": True})
    code, said = get("models/nowhere/ready")
    assert code == 404 and "nowhere" in said["error"]


def test_metadata_and_config(http):
    metadata = http.get_server_metadata()
    assert metadata["name"] == "triton" and "binary_tensor_data" in metadata["extensions"]
    metadata = http.get_model_metadata("identity_all")
    assert (metadata["name"], metadata["versions"]) == ("identity_all", ["1"])
    types = [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata["outputs"]]
    assert types == [(output_of(name), name, [-1, 2]) for name in VALUES]
    config = http.get_model_config("add_sub", "1")
    assert (config["name"], config["max_batch_size"]) == ("add_sub", 32)
    assert [tensor["dims"] for tensor in config["input"]] == [[16], [16]]


def test_every_type_comes_back_as_it_was_sent(http):
    result = http.infer("identity_all", every_type(), model_version="1", request_id="seven")
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("seven", "identity_all", "1")
    for datatype, array in VALUES.items():
        numpy.testing.assert_array_equal(result.as_numpy(output_of(datatype)), array)


def test_every_type_as_json(repository):
    values = {name: array for name, array in VALUES.items() if name not in HALF}
    values["BYTES"] = numpy.array([["", "jitney \u00e9 \" \0"]], object)
    for datatype in values:
        simulated(repository, datatype, dtype=datatype)
    with Server(repository) as server, rest.InferenceServerClient(server.address) as http:
        for datatype, array in values.items():
            outputs = [rest.InferRequestedOutput("y", binary_data=False)]
            result = http.infer(
                datatype, [given("x", array, datatype, binary=False)], outputs=outputs)
            assert "data" in result.get_output("y")
            came = result.as_numpy("y")
            if datatype == "BYTES":
                came = came.astype(object)
            numpy.testing.assert_array_equal(came, array, datatype)


def test_half_precision_as_json_made_by_hand(repository):
    for datatype in HALF:
        simulated(repository, datatype, dtype=datatype)
    with Server(repository) as server:
        for datatype, written, read in [
            ("FP16", "[[1, -65504], [1e-7, NaN]]", [1, -65504, 1.1920929e-07, "NaN"]),
            ("BF16", "[1.0, -2.5, 1e38, -Infinity]", [1, -2.5, 9.9692e37, "-Infinity"]),
        ]:
            body = ('{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "%s", "data": %s}]}'
                    % (datatype, written))
            answer = requests.post(
                f"http://{server.address}/v2/models/{datatype}/infer", data=body, timeout=HANG)
            assert answer.headers["content-type"] == "application/json"
            [output] = answer.json()["outputs"]
            assert (output["datatype"], output["shape"]) == (datatype, [2, 2])
            for came, expected in zip(output["data"], read, strict=True):
                assert came == (expected if isinstance(expected, str) else pytest.approx(expected, 1e-4))


def test_numbers_that_are_not_finite(http):
    """tritonclient writes the bare words of Python, and reads what we write."""
    array = numpy.array([[numpy.nan, numpy.inf, -numpy.inf, 1]], numpy.float32)
    outputs = [rest.InferRequestedOutput("OUTPUT0", binary_data=False)]
    result = http.infer("identity_fp32", [given("INPUT0", array, binary=False)], outputs=outputs)
    assert result.get_output("OUTPUT0")["data"] == ["NaN", "Infinity", "-Infinity", 1.0]
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_only_the_outputs_asked_for_each_as_it_was_asked_for(http):
    first = numpy.arange(16, dtype=numpy.int32).reshape(1, 16)
    inputs = [given("INPUT0", first), given("INPUT1", numpy.ones_like(first), binary=False)]
    outputs = [rest.InferRequestedOutput("OUTPUT1", binary_data=True),
               rest.InferRequestedOutput("OUTPUT0", binary_data=False)]
    result = http.infer("add_sub", inputs, outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["OUTPUT1", "OUTPUT0"]
    assert "data" in result.get_output("OUTPUT0") and "data" not in result.get_output("OUTPUT1")
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + 1)
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - 1)


@pytest.mark.parametrize("asked", [None, "gzip", "deflate"])
@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
def test_compression_both_ways(http, sent, asked):
    array = numpy.arange(20_000, dtype=numpy.float32).reshape(1, -1)
    result = http.infer(
        "identity_fp32", [given("INPUT0", array)], request_compression_algorithm=sent,
        response_compression_algorithm=asked)
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_answers_are_compressed_only_if_asked(server):
    body = {"inputs": [{"name": "INPUT0", "shape": [1, 1000], "datatype": "FP32", "data": [0] * 1000}]}
    url = f"http://{server.address}/v2/models/identity_fp32/infer"
    for asked, read in [("gzip", gzip.decompress), ("deflate", zlib.decompress), ("identity", bytes)]:
        answer = requests.post(
            url, json=body, headers={"accept-encoding": asked}, stream=True, timeout=HANG)
        assert answer.headers.get("content-encoding", "identity") == asked
        assert json.loads(read(answer.raw.read()))["outputs"][0]["data"] == [0.0] * 1000


def test_nothing_else_is_compressed(server):
    """tritonclient for asyncio asks for compression always, and reads it of tensors alone."""
    for path in ["v2", "v2/models/identity_all", "v2/models/identity_all/config", "v2/models/stats"]:
        answer = requests.get(
            f"http://{server.address}/{path}", headers={"accept-encoding": "gzip"}, timeout=HANG)
        assert "content-encoding" not in answer.headers
        assert answer.json()


def test_async_infer(http):
    arrays = [numpy.full([1, 3], number, numpy.float32) for number in range(20)]
    asked = [http.async_infer("identity_fp32", [given("INPUT0", array)]) for array in arrays]
    for answer, array in zip(asked, arrays, strict=True):
        numpy.testing.assert_array_equal(answer.get_result().as_numpy("OUTPUT0"), array)


def test_parameters_headers_and_queries_are_taken(http):
    array = numpy.ones([1, 2], numpy.float32)
    result = http.infer(
        "identity_fp32", [given("INPUT0", array)], priority=1, timeout=60_000_000,
        headers={"authorization": "none"}, query_params={"a": 1},
        parameters={"trace": "no", "flag": True, "weight": 2})
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_a_requests_timeout_ends_its_wait(repository):
    simulated(repository, "slow", behaviour="fixed_ms = 60000")
    array = numpy.ones([1, 2], numpy.float32)
    with Server(repository, "--drain-timeout-ms", "0") as server:
        with rest.InferenceServerClient(server.address) as http:
            with pytest.raises(InferenceServerException) as error:
                http.infer("slow", [given("x", array)], timeout=200_000)
            assert error.value.status() == "504"


def test_a_full_queue_says_when_to_try_again(repository, tmp_path):
    gate = Gate(tmp_path)
    simulated(repository, "slow", "max_batch_size = 1\nmax_queue_size = 1", gate.behaviour)
    array = numpy.ones([1, 2], numpy.float32)
    with Server(repository) as server:
        with rest.InferenceServerClient(server.address, concurrency=4) as http:
            asked = [http.async_infer("slow", [given("x", array)]) for _ in range(4)]
            # One runs and one waits, if it is not there before the first has left the queue.
            end = time.monotonic() + HANG
            while sum(answer._greenlet.ready() for answer in asked) < 2:
                assert time.monotonic() < end, "nobody is refused"
                gevent.sleep(0.01)
            gate.open()
            refused = []
            for answer in asked:
                try:
                    answer.get_result()
                except InferenceServerException as error:
                    refused.append(error)
            assert len(refused) in (2, 3)
            for error in refused:
                assert error.status() == "429"
                assert "max_queue_size" in error.message()


WRONG = {
    "model": (dict(model_name="nowhere"), "404", ["nowhere"]),
    "version": (dict(model_version="7"), "404", ["7", "it has 1"]),
    "version in words": (dict(model_version="newest"), "400", ["newest"]),
    "input": (dict(inputs=[("x", (1, 2), "FP32")]), "400", ["x", "INPUT0"]),
    "no input": (dict(inputs=[]), "400", ["INPUT0"]),
    "datatype": (dict(inputs=[("INPUT0", (1, 2), "FP64")]), "400", ["FP64", "FP32"]),
    "rank": (dict(inputs=[("INPUT0", (2,), "FP32")]), "400", ["[2]"]),
    "output": (dict(outputs=[rest.InferRequestedOutput("y")]), "400", ["y", "OUTPUT0"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_with_its_code(http, wrong):
    asked, code, words = WRONG[wrong]
    shapes = asked.get("inputs", [("INPUT0", (1, 2), "FP32")])
    inputs = [given(name, numpy.ones(shape, rest.triton_to_np_dtype(datatype)), datatype)
              for name, shape, datatype in shapes]
    with pytest.raises(InferenceServerException) as error:
        http.infer(**{"model_name": "identity_fp32", **asked, "inputs": inputs})
    assert error.value.status() == code, error.value.message()
    for word in words:
        assert word in error.value.message()


def test_statistics_count_requests_and_rows(add, repository):
    add("identity_fp32")
    with Server(repository) as server, rest.InferenceServerClient(server.address) as http:
        for rows in [1, 2, 3]:
            http.infer("identity_fp32", [given("INPUT0", numpy.ones([rows, 2], numpy.float32))])
        [statistics] = http.get_inference_statistics("identity_fp32", "1")["model_stats"]
        assert (statistics["inference_count"], statistics["execution_count"]) == (6, 3)
        assert statistics["inference_stats"]["success"]["count"] == 3
        assert [model["name"] for model in http.get_inference_statistics()["model_stats"]] == [
            "identity_fp32"]


def test_repository_is_loaded_and_unloaded_by_clients(add, repository):
    add("identity_fp32")
    with Server(repository, "--model-control", "explicit") as server:
        with rest.InferenceServerClient(server.address) as http:
            [entry] = http.get_model_repository_index()
            assert (entry["name"], entry["state"], entry["reason"]) == (
                "identity_fp32", "UNAVAILABLE", "not loaded")
            http.load_model("identity_fp32")
            assert http.is_model_ready("identity_fp32")
            [entry] = http.get_model_repository_index()
            assert (entry["version"], entry["state"]) == ("1", "READY")
            http.unload_model("identity_fp32")
            assert not http.is_model_ready("identity_fp32")
            url = f"http://{server.address}/v2/repository/index"
            assert requests.post(url, json={"ready": True}, timeout=HANG).json() == []
            with pytest.raises(InferenceServerException) as error:
                http.load_model("nowhere")
            assert error.value.status() == "404"


def test_asyncio(server):
    arrays = [numpy.full([1, 3], number, numpy.float32) for number in range(20)]

    async def ask():
        async with rest_aio.InferenceServerClient(server.address) as client:
            assert await client.is_server_live() and await client.is_server_ready()
            assert await client.is_model_ready("identity_fp32")
            assert (await client.get_model_metadata("identity_fp32"))["name"] == "identity_fp32"
            assert (await client.get_model_config("identity_fp32"))["max_batch_size"] == 32
            assert (await client.get_inference_statistics("identity_fp32"))["model_stats"]
            assert len(await client.get_model_repository_index()) > 5
            with pytest.raises(InferenceServerException) as error:
                await client.infer("nowhere", [given("INPUT0", arrays[0])])
            assert error.value.status() == "404"
            return await asyncio.gather(*(
                client.infer("identity_fp32", [given("INPUT0", array)],
                             request_compression_algorithm="gzip" if number % 2 else None,
                             response_compression_algorithm="deflate" if number % 3 else None)
                for number, array in enumerate(arrays)))

    results = asyncio.run(asyncio.wait_for(ask(), HANG))
    for result, array in zip(results, arrays, strict=True):
        numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)

