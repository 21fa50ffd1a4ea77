"""`ModelStreamInfer` by tritonclient, with callbacks and with asyncio."""

import asyncio
import queue

import numpy
import tritonclient.grpc.aio as triton_aio

from server import HANG
from tensors import given

COUNT = 100


def array(number):
    return numpy.full([1, 2], number, numpy.float32)


def model(number):
    """Every tenth request goes to a model that does not exist."""
    return "nowhere" if number % 10 == 9 else "identity_fp32"


def check(number, result, error):
    if number % 10 == 9:
        assert "nowhere" in str(error)
    else:
        assert error is None
        assert result.get_response().id == str(number)
        numpy.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array(number))


def test_answers_come_in_order_and_an_error_ends_nothing(server):
    answers = queue.Queue()
    with server.client() as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(COUNT):
            client.async_stream_infer(
                model(number), [given("INPUT0", array(number))], request_id=str(number))
        for number in range(COUNT):
            check(number, *answers.get(timeout=HANG))
        client.stop_stream()
    assert answers.empty()


def test_asyncio(server):
    async def requests():
        for number in range(COUNT):
            yield {
                "model_name": model(number), "request_id": str(number),
                "inputs": [given("INPUT0", array(number))],
            }

    async def exchange():
        async with triton_aio.InferenceServerClient(server.address) as client:
            return [answer async for answer in client.stream_infer(requests())]

    answers = asyncio.run(asyncio.wait_for(exchange(), HANG))
    assert len(answers) == COUNT
    for number, (result, error) in enumerate(answers):
        check(number, result, error)


def test_the_last_response_of_a_request_says_so_if_asked(server):
    answers = queue.Queue()
    with server.client() as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for final in [True, False]:
            client.async_stream_infer(
                "identity_fp32", [given("INPUT0", array(1))],
                enable_empty_final_response=final)
        said, unsaid = (answers.get(timeout=HANG)[0].get_response() for _ in range(2))
        client.stop_stream()
    assert said.parameters["triton_final_response"].bool_param
    assert "triton_final_response" not in unsaid.parameters
