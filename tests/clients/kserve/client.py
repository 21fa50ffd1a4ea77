"""What KServe's own clients see of a server, as JSON: REST's port and gRPC's are arguments.

Run by test_kserve.py in an environment of its own, for the package pins what the tests need otherwise.
"""

import asyncio
import json
import sys

import numpy
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

LEFT = numpy.arange(16, dtype=numpy.int32).reshape(1, 16)
RIGHT = numpy.full([1, 16], 3, numpy.int32)


def asked(model, binary):
    inputs = []
    for name, array in [("INPUT0", LEFT), ("INPUT1", RIGHT)]:
        tensor = InferInput(name, list(array.shape), "INT32")
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return InferRequest(model_name=model, infer_inputs=inputs, request_id="one")


def seen(response):
    outputs = {output.name: output.as_numpy().tolist() for output in response.outputs}
    return {"model": response.model_name, "id": response.id, "outputs": outputs}


async def failure(call):
    """What a call says that has to fail."""
    try:
        await call
    except Exception as error:  # each client has its own kinds
        return f"{type(error).__name__}: {error}"
    return "no error"


async def over_rest(address):
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    try:
        return {
            "live": await client.is_server_live(address),
            "ready": await client.is_server_ready(address),
            "model": await client.is_model_ready(address, "add_sub"),
            "json": seen(await client.infer(address, asked("add_sub", False), model_name="add_sub")),
            "raw": seen(await client.infer(address, asked("add_sub", True), model_name="add_sub")),
            "nowhere": await failure(
                client.infer(address, asked("nowhere", False), model_name="nowhere")),
        }
    finally:
        await client.close()


async def over_grpc(address):
    client = InferenceGRPCClient(address, retries=0)
    try:
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model": await client.is_model_ready("add_sub"),
            "json": seen(await client.infer(asked("add_sub", False))),
            "raw": seen(await client.infer(asked("add_sub", True))),
            "nowhere": await failure(client.infer(asked("nowhere", False))),
        }
    finally:
        await client.close()


async def main(rest, grpc):
    print(json.dumps({"rest": await over_rest(rest), "grpc": await over_grpc(grpc)}))


asyncio.run(main(*sys.argv[1:]))
