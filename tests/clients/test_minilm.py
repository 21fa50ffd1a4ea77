"""The sentence encoder: batches of requests agree with each request alone, and with ONNX Runtime."""

import asyncio
import shutil

import numpy
import onnxruntime
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from server import HANG, ROOT, Server
from tensors import given

MODEL = ROOT / "examples" / "models" / "minilm" / "1" / "model.onnx"
TOLERANCE = 1e-4
LENGTHS = [8, 32, 17, 9, 40, 25]


@pytest.fixture(scope="module")
def sentences():
    """Word pieces of made-up sentences of several lengths, some of them padded by the client."""
    random = numpy.random.default_rng(4)

    def sentence(length):
        mask = numpy.ones([1, length], numpy.int64)
        mask[0, random.integers(length // 2, length + 1):] = 0
        return {
            "input_ids": random.integers(1000, 30_000, [1, length]) * mask,
            "attention_mask": mask,
            "token_type_ids": numpy.zeros_like(mask),
        }

    return [sentence(LENGTHS[number % len(LENGTHS)]) for number in range(48)]


def test_batched_and_alone_agree_with_onnxruntime(examples, sentences):
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    expected = numpy.concatenate([session.run(None, sentence)[0] for sentence in sentences])

    async def ask():
        async with triton_aio.InferenceServerClient(examples.address) as client:

            async def one(sentence):
                inputs = [given(name, array) for name, array in sentence.items()]
                result = await client.infer("minilm", inputs)
                return result.as_numpy("sentence_embedding")

            alone = [await one(sentence) for sentence in sentences]
            batched = await asyncio.gather(*(one(sentence) for sentence in sentences))
            [model] = (await client.get_inference_statistics("minilm")).model_stats
            return alone, batched, max(batch.batch_size for batch in model.batch_stats)

    alone, batched, largest = asyncio.run(asyncio.wait_for(ask(), HANG))
    assert largest > 1
    numpy.testing.assert_allclose(numpy.concatenate(alone), expected, rtol=0, atol=TOLERANCE)
    numpy.testing.assert_allclose(numpy.concatenate(batched), expected, rtol=0, atol=TOLERANCE)


def test_the_mask_is_made_where_none_comes(examples, sentences):
    """What a request brings is all its own if no mask says otherwise."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    sentence = dict(sentences[1], attention_mask=numpy.ones_like(sentences[1]["attention_mask"]))
    [expected] = session.run(None, sentence)
    with triton.InferenceServerClient(examples.address) as client:
        inputs = [given(name, array) for name, array in sentence.items() if name != "attention_mask"]
        found = client.infer("minilm", inputs).as_numpy("sentence_embedding")
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_padded_and_unpadded_agree(repository, sentences):
    """Every sentence is padded to the longest that is taken, each by another share."""
    shutil.copytree(MODEL.parent, repository / "minilm" / "1", copy_function=shutil.copy)
    (repository / "minilm" / "model.toml").write_text(
        'padding = { dimension = "sequence", mask = "attention_mask", lengths = [64] }\n')
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    with Server(repository) as server, server.client() as client:
        for sentence in sentences[:len(LENGTHS)]:
            [expected] = session.run(None, sentence)
            inputs = [given(name, array) for name, array in sentence.items()]
            found = client.infer("minilm", inputs).as_numpy("sentence_embedding")
            numpy.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
