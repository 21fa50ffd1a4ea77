"""Stateful models by tritonclient: calls, streams and HTTP, sequences named by numbers and by texts."""

import asyncio
import queue
import shutil
import subprocess

import numpy
import onnxruntime
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from server import BINARY, HANG, ROOT, Server
from tensors import given

SILERO = ROOT / "examples" / "models" / "silero_vad"
PIECE = 512
CONTEXT = 64
TOLERANCE = 1e-5


def place(number, count):
    """What tritonclient is told of the request with this number, of so many."""
    return {"sequence_start": number == 0, "sequence_end": number == count - 1}


def amount(number):
    return given("x", numpy.array([[number]], numpy.int64))


def http_given(name, array, binary):
    tensor = triton_http.InferInput(name, list(array.shape), triton.np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_calls_of_two_sequences_take_turns(client):
    for number in range(5):
        for sequence in [7, 2**63 - 1]:
            own = number + sequence % 10
            result = client.infer("accumulator", [amount(own)], sequence_id=sequence, **place(number, 5))
            sum = number * (number + 1) // 2 + (number + 1) * (sequence % 10)
            assert result.as_numpy("sum") == [[sum]]
            assert result.as_numpy("corrid") == [[sequence]]
            first, last = number == 0, number == 4
            assert result.as_numpy("told") == [[first + 2 * last + 4]]


def test_sequences_named_by_texts(client):
    for number in range(3):
        for name in ["a", "b"]:
            x = given("x", numpy.array([[number]], numpy.float32))
            result = client.infer("history", [x], sequence_id=name, **place(number, 3))
            assert result.as_numpy("corrid") == [name.encode()]
            numpy.testing.assert_array_equal(result.as_numpy("kept_out"), [range(number + 1)])


def test_a_stream_carries_sequences_without_waiting(server):
    answers = queue.Queue()
    with server.client() as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(20):
            for sequence in range(1, 6):
                client.async_stream_infer(
                    "accumulator", [amount(number * sequence)], sequence_id=sequence, **place(number, 20))
        for number in range(20):
            for sequence in range(1, 6):
                result, error = answers.get(timeout=HANG)
                assert error is None
                assert result.as_numpy("sum") == [[sequence * number * (number + 1) // 2]]
                assert result.as_numpy("corrid") == [[sequence]]
        client.stop_stream()


@pytest.mark.parametrize("binary", [True, False])
def test_over_http(server, binary):
    with triton_http.InferenceServerClient(server.address) as client:
        for number in range(4):
            x = http_given("x", numpy.array([[number]], numpy.int64), binary)
            result = client.infer("accumulator", [x], sequence_id=11, **place(number, 4))
            assert result.as_numpy("sum") == [[number * (number + 1) // 2]]
            x = http_given("x", numpy.array([[number]], numpy.float32), binary)
            result = client.infer("history", [x], sequence_id="http", **place(number, 4))
            numpy.testing.assert_array_equal(result.as_numpy("kept_out"), [range(number + 1)])


def test_what_is_wrong_is_told(server, client):
    def refused(sequence, **flags):
        with pytest.raises(InferenceServerException) as error:
            client.infer("accumulator", [amount(1)], sequence_id=sequence, **flags)
        assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
        return error.value.message()

    assert "sequence_start" in refused(99)
    assert "sequence_id" in refused(0)
    assert "correlation id" in refused("text", sequence_start=True)
    with triton_http.InferenceServerClient(server.address) as http:
        with pytest.raises(InferenceServerException, match="sequence_start"):
            http.infer("accumulator", [http_given("x", numpy.array([[1]]), True)], sequence_id=98)


def test_the_extension_and_the_configuration_are_shown(client):
    assert "sequence" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata("accumulator")
    assert [tensor.name for tensor in metadata.inputs] == ["x"]
    batching = client.get_model_config("history").config.sequence_batching
    assert batching.oldest.max_candidate_sequences == 8
    assert batching.state[0].input_name == "kept"
    assert list(batching.state[0].dims) == [-1]
    assert list(batching.state[0].initial_state[0].dims) == [0]


@pytest.fixture(scope="module")
def sounds():
    """Made-up sounds: noise that swells and fades, each at its own pace."""
    random = numpy.random.default_rng(9)
    time = numpy.arange(12 * PIECE) / 16_000
    return [
        (random.normal(0, 0.3, time.size) * numpy.sin(2 * numpy.pi * (sound + 1) * time) ** 2)
        .astype(numpy.float32).reshape(-1, 1, PIECE)
        for sound in range(8)
    ]


@pytest.fixture(scope="module")
def expected(sounds):
    """What the package's own model says of each piece, with its state kept by hand."""
    session = onnxruntime.InferenceSession(
        SILERO / "original" / "silero_vad_half.onnx", providers=["CPUExecutionProvider"])

    def steps(sound):
        state = numpy.zeros([2, 1, 128], numpy.float32)
        context = numpy.zeros([1, CONTEXT], numpy.float32)
        for piece in sound:
            heard = numpy.concatenate([context, piece], axis=1)
            output, state = session.run(None, {"input": heard, "state": state})
            context = heard[:, -CONTEXT:]
            yield float(output[0, 0])

    return [list(steps(sound)) for sound in sounds]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Serves the speech detector alone."""
    repository = tmp_path_factory.mktemp("models")
    (repository / "silero_vad").mkdir()
    shutil.copytree(SILERO / "1", repository / "silero_vad" / "1", copy_function=shutil.copy)
    shutil.copy(SILERO / "model.toml", repository / "silero_vad")
    with Server(repository) as server:
        yield server


def test_check_and_serve_say_what_clients_see(speech):
    check = subprocess.run([BINARY, "check", speech.repository], capture_output=True, text=True)
    for said in (check.stdout, "\n".join(speech.said)):
        assert "silero_vad version 1: input FP32 [-1,512] -> output FP32 [-1,1];" in said


def close(found, expected):
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_speech_by_calls_side_by_side(speech, sounds, expected):
    async def ask():
        async with triton_aio.InferenceServerClient(speech.address) as client:

            async def one(sequence, sound):
                found = []
                for number, piece in enumerate(sound):
                    result = await client.infer(
                        "silero_vad", [given("input", piece)], sequence_id=sequence,
                        **place(number, len(sound)))
                    found.append(result.as_numpy("output").item())
                return found

            found = await asyncio.gather(
                *(one(number + 1, sound) for number, sound in enumerate(sounds)))
            [model] = (await client.get_inference_statistics("silero_vad")).model_stats
            return found, max(batch.batch_size for batch in model.batch_stats)

    found, largest = asyncio.run(asyncio.wait_for(ask(), HANG))
    close(found, expected)
    assert largest > 1


def test_speech_on_one_stream(speech, sounds, expected):
    answers = queue.Queue()
    with speech.client() as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number, pieces in enumerate(zip(*sounds)):
            for sequence, piece in enumerate(pieces):
                client.async_stream_infer(
                    "silero_vad", [given("input", piece)], sequence_id=f"sound {sequence}",
                    **place(number, len(sounds[0])))
        found = []
        for _ in range(len(sounds) * len(sounds[0])):
            result, error = answers.get(timeout=HANG)
            assert error is None
            found.append(result.as_numpy("output").item())
        client.stop_stream()
    close(numpy.reshape(found, [-1, len(sounds)]).T, expected)


def test_speech_over_http(speech, sounds, expected):
    with triton_http.InferenceServerClient(speech.address) as client:
        found = [
            client.infer("silero_vad", [http_given("input", piece, True)], sequence_id=5,
                         **place(number, len(sounds[0]))).as_numpy("output").item()
            for number, piece in enumerate(sounds[0])
        ]
    close(found, expected[0])
