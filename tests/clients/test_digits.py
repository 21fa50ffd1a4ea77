"""The digits through the server are the digits by ONNX Runtime, row for row."""

import asyncio
import csv

import numpy
import onnxruntime
import pytest
import tritonclient.grpc.aio as triton_aio

from server import HANG, ROOT
from tensors import given

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def heldout():
    """Images that the model never saw, and what they show."""
    with open(ROOT / "examples" / "digits" / "heldout.csv") as file:
        rows = numpy.array(list(csv.reader(file))[1:], numpy.float32)
    return rows[:, 1:], rows[:, 0].astype(numpy.int64)


@pytest.fixture(scope="module")
def direct(heldout):
    """Labels and probabilities by ONNX Runtime, one row at a time."""
    path = ROOT / "examples" / "models" / "digits" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = [session.run(["label", "probabilities"], {"image": row[None]}) for row in heldout[0]]
    return [numpy.concatenate(outputs) for outputs in zip(*answers)]


@pytest.mark.parametrize("in_flight", [1, 64], ids=["alone", "batched"])
def test_equal_to_onnxruntime_row_for_row(examples, heldout, direct, in_flight):
    images, digits = heldout
    labels, probabilities = direct

    async def ask():
        places = asyncio.Semaphore(in_flight)
        async with triton_aio.InferenceServerClient(examples.address) as client:

            async def one(row):
                async with places:
                    return await client.infer("digits", [given("image", row[None])])

            before = await rows_and_runs(client)
            results = await asyncio.gather(*(one(row) for row in images))
            after = await rows_and_runs(client)
            return results, after - before

    results, (rows, runs) = asyncio.run(asyncio.wait_for(ask(), HANG))
    assert rows == len(images)
    if in_flight == 1:
        assert runs == rows
    answered = numpy.concatenate([result.as_numpy("label") for result in results])
    numpy.testing.assert_array_equal(answered, labels)
    numpy.testing.assert_allclose(
        numpy.concatenate([result.as_numpy("probabilities") for result in results]),
        probabilities, rtol=0, atol=TOLERANCE)
    right = numpy.mean(answered == digits)
    assert right == numpy.mean(labels == digits)
    assert right > 0.95


def test_rows_sent_together_and_alone_agree(examples, heldout, direct):
    images = heldout[0][:320].reshape(10, 32, 64)
    with examples.client() as client:
        together = [client.infer("digits", [given("image", rows)]) for rows in images]
    numpy.testing.assert_allclose(
        numpy.concatenate([result.as_numpy("probabilities") for result in together]),
        direct[1][:320], rtol=0, atol=TOLERANCE)


async def rows_and_runs(client):
    [model] = (await client.get_inference_statistics("digits")).model_stats
    return numpy.array([model.inference_count, model.execution_count])
