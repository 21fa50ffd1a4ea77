"""Photographs of digits through the sample ensemble are what its models say one after the other."""

import asyncio
import csv
import json
import subprocess
import urllib.request

import numpy
import onnxruntime
import pytest
import tritonclient.grpc.aio as triton_aio

from server import BINARY, HANG, ROOT, Server
from tensors import given

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def photos():
    """Images as a camera would take them, and what they show."""
    with open(ROOT / "examples" / "digits" / "heldout.csv") as file:
        rows = numpy.array(list(csv.reader(file))[1:], numpy.float32)
    light = (255 - rows[:, 1:] * 255 / 16).round().astype(numpy.uint8)
    return light.reshape(-1, 8, 8), rows[:, 0].astype(numpy.int64)


@pytest.fixture(scope="module")
def direct(photos):
    """Labels and probabilities by ONNX Runtime, model after model, one row at a time."""
    def session(model):
        path = ROOT / "examples" / "models" / model / "1" / "model.onnx"
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    scaling, digits = session("digits_scaling"), session("digits")
    answers = []
    for photo in photos[0]:
        [image] = scaling.run(["image"], {"photo": photo[None]})
        answers.append(digits.run(["label", "probabilities"], {"image": image}))
    return [numpy.concatenate(outputs) for outputs in zip(*answers)]


def test_equal_to_its_models_one_after_the_other(examples, photos, direct):
    images, digits = photos
    labels, probabilities = direct

    async def ask():
        places = asyncio.Semaphore(64)
        async with triton_aio.InferenceServerClient(examples.address) as client:

            async def one(photo):
                async with places:
                    return await client.infer("digits_photo", [given("photo", photo[None])])

            before = [await counts(client, model) for model in MODELS]
            results = await asyncio.gather(*(one(photo) for photo in images))
            after = [await counts(client, model) for model in MODELS]
            return results, numpy.array(after) - numpy.array(before)

    results, counted = asyncio.run(asyncio.wait_for(ask(), HANG))
    answered = numpy.concatenate([result.as_numpy("label") for result in results])
    numpy.testing.assert_array_equal(answered, labels)
    numpy.testing.assert_allclose(
        numpy.concatenate([result.as_numpy("probabilities") for result in results]),
        probabilities, rtol=0, atol=TOLERANCE)
    assert numpy.mean(answered == digits) > 0.95
    # Each row once through the ensemble and through each of its models.
    assert counted[:, 0].tolist() == [len(images)] * 3
    assert (counted[:, 1] <= len(images)).all()


def test_the_same_over_http(examples, photos, direct):
    photo = {"name": "photo", "datatype": "UINT8", "shape": [3, 8, 8],
             "data": photos[0][:3].flatten().tolist()}
    request = urllib.request.Request(
        f"http://{examples.address}/v2/models/digits_photo/infer",
        json.dumps({"inputs": [photo], "outputs": [{"name": "label"}]}).encode())
    with urllib.request.urlopen(request, timeout=HANG) as response:
        [label] = json.load(response)["outputs"]
    assert (label["datatype"], label["shape"]) == ("INT64", [3])
    assert label["data"] == direct[0][:3].tolist()


def test_it_says_that_it_is_an_ensemble(examples):
    with examples.client() as client:
        config = client.get_model_config("digits_photo").config
        assert config.platform == "ensemble"
        steps = config.ensemble_scheduling.step
        assert [step.model_name for step in steps] == ["digits_scaling", "digits"]
        assert dict(steps[1].input_map) == {"image": "image"}
        metadata = client.get_model_metadata("digits_photo")
        assert [list(tensor.shape) for tensor in metadata.inputs] == [[-1, 8, 8]]


MODELS = ["digits_photo", "digits_scaling", "digits"]


async def counts(client, model):
    [counted] = (await client.get_inference_statistics(model)).model_stats
    return counted.inference_count, counted.execution_count


def test_models_leave_with_their_ensemble(add, repository):
    add("variable_shape")
    add("tiny_mlp")
    write(repository, "both", "variable_shape")
    flags = ["--model-control", "explicit", "--load-model", "both", "--load-model", "tiny_mlp"]
    with Server(repository, *flags) as server, server.client() as client:
        assert client.is_model_ready("both")
        assert client.is_model_ready("variable_shape")
        body = json.dumps({"parameters": {"unload_dependents": True}}).encode()
        url = f"http://{server.address}/v2/repository/models/both/unload"
        urllib.request.urlopen(urllib.request.Request(url, body), timeout=HANG).close()
        assert not client.is_model_ready("variable_shape")
        client.load_model("both")
        assert client.is_model_ready("variable_shape")
        client.unload_model("both", unload_dependents=True)
        assert not client.is_model_ready("variable_shape")
        assert client.is_model_ready("tiny_mlp")


def test_check_tells_what_does_not_fit(add, repository):
    add("variable_shape")
    write(repository, "a_good_one", "variable_shape")
    write(repository, "wrong", "nobody")
    check = subprocess.run([BINARY, "check", repository], capture_output=True, text=True)
    assert check.returncode == 1
    said = check.stdout.splitlines()
    assert ("a_good_one version 1: x FP32 [-1,3] -> y FP32 [-1,3], sum FP32 [-1]; "
            "batches of up to 32 rows") in said
    [wrong] = [line for line in said if "WRONG" in line]
    assert wrong.startswith("wrong version 1: WRONG: step 1 (nobody): there is no sound model")


def write(repository, name, model):
    """An ensemble of one model, whose rows have three numbers."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "model.toml").write_text(f"""
[ensemble]
inputs = [{{ name = "x", dtype = "FP32", shape = [-1, 3] }}]
outputs = [{{ name = "y", dtype = "FP32", shape = [-1, 3] }}, {{ name = "sum", dtype = "FP32", shape = [-1] }}]
[[ensemble.steps]]
model = "{model}"
inputs = {{ x = "x" }}
outputs = {{ y = "y", sum = "sum" }}
""")
