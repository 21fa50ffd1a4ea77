"""docs/compatibility.md says what the server does: a running one is asked about every line of it.

JITNEY_WRITE_COMPATIBILITY=1 writes the file anew.
"""

import os
import secrets

import grpc
import numpy
import pytest
import requests
import tritonclient.grpc.service_pb2 as pb
import tritonclient.grpc.service_pb2_grpc as stubs
import tritonclient.utils.shared_memory as shm

from server import HANG, ROOT, Server

TABLES = ROOT / "docs" / "compatibility.md"
KEY = "jitney-compatibility-"
ROW = numpy.arange(16, dtype=numpy.int32)

# Fields of answers that stay empty, and why.
NOT_APPLICABLE = {
    "RegionStatus.offset": "0 in these questions",
    "ModelInferResponse.parameters": "an ONNX model has none to give",
    "InferOutputTensor.contents": "outputs are raw, which every client reads",
    "ModelStatistics.response_stats": "of decoupled models, which ONNX models are not",
    "ModelStreamInferResponse.error_message": "only of a request that is refused",
}


class Asked:
    """A server that can be asked everything, and what its answers had in them."""

    def __init__(self, server, key):
        self.address, self.key = server.address, key
        self.stub = stubs.GRPCInferenceServiceStub(grpc.insecure_channel(server.address))
        self.fields = set()

    def call(self, method, request):
        """What a line says of a call."""
        try:
            if method == "ModelStreamInfer":
                [answer] = self.stub.ModelStreamInfer(iter([request]), timeout=HANG)
            else:
                answer = getattr(self.stub, method)(request, timeout=HANG)
        except grpc.RpcError as error:
            return refused(error.code().name, error.details())
        self.look(answer)
        if method == "ModelStreamInfer" and answer.error_message:
            return refused("error_message", answer.error_message)
        return "works"

    def look(self, message):
        """Remembers which fields there are."""
        for field, value in message.ListFields():
            self.fields.add(f"{field.containing_type.name}.{field.name}")
            if field.message_type is None:
                continue
            if field.message_type.GetOptions().map_entry:
                held = [one for one in value.values() if hasattr(one, "ListFields")]
            else:
                held = value if field.is_repeated else [value]
            for one in held:
                self.look(one)


def refused(code, words):
    return f"refused: `{code}`, “{words.replace('|', '/')}”"


def asked(model="add_sub", **parameters):
    request = pb.ModelInferRequest(model_name=model, id="one")
    for name in ["INPUT0", "INPUT1"]:
        request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        request.raw_input_contents.append(ROW.tobytes())
    give(request, parameters)
    return request


def give(message, parameters):
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in parameters.items():
        setattr(message.parameters[name], kinds[type(value)], value)


def with_output(**parameters):
    request = asked()
    give(request.outputs.add(name="OUTPUT0"), parameters)
    return request


def with_input(raw=True, **parameters):
    request = asked()
    give(request.inputs[0], parameters)
    if not raw:
        del request.raw_input_contents[0]
    return request


@pytest.fixture(scope="module")
def server():
    key = f"{KEY}{secrets.token_hex(4)}"
    region = shm.create_shared_memory_region("region", f"/{key}", 256)
    flags = ["--shared-memory-prefix", f"/dev/shm/{KEY}", "--model-control", "explicit",
             "--load-model", "add_sub", "--load-model", "identity_fp32"]
    try:
        with Server(ROOT / "tests" / "models", *flags) as server:
            yield Asked(server, key)
    finally:
        shm.destroy_shared_memory_region(region)


def calls(server):
    """Every call of the service, in an order in which each can succeed."""
    named = {"name": "add_sub"}
    region = pb.SystemSharedMemoryRegisterRequest(name="r", key=f"/{server.key}", byte_size=256)
    requests = {
        "ServerLive": pb.ServerLiveRequest(), "ServerReady": pb.ServerReadyRequest(),
        "ModelReady": pb.ModelReadyRequest(**named), "ServerMetadata": pb.ServerMetadataRequest(),
        "ModelMetadata": pb.ModelMetadataRequest(**named), "ModelInfer": asked(),
        "ModelStreamInfer": asked(triton_enable_empty_final_response=True),
        "ModelConfig": pb.ModelConfigRequest(**named),
        "ModelStatistics": pb.ModelStatisticsRequest(**named),
        "RepositoryIndex": pb.RepositoryIndexRequest(),
        "RepositoryModelLoad": pb.RepositoryModelLoadRequest(model_name="scalar_out"),
        "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="scalar_out"),
        "SystemSharedMemoryRegister": region,
        "SystemSharedMemoryStatus": pb.SystemSharedMemoryStatusRequest(),
        "SystemSharedMemoryUnregister": pb.SystemSharedMemoryUnregisterRequest(name="r"),
        "CudaSharedMemoryRegister": None,
        "CudaSharedMemoryStatus": pb.CudaSharedMemoryStatusRequest(),
        "CudaSharedMemoryUnregister": pb.CudaSharedMemoryUnregisterRequest(),
        "TraceSetting": pb.TraceSettingRequest(), "LogSettings": pb.LogSettingsRequest(),
    }
    there = [method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
    assert sorted(there) == sorted(requests)
    for method, request in requests.items():
        says = "not applicable: needs a GPU" if request is None else server.call(method, request)
        yield f"`{method}`", says


def routes(server):
    """Every route of the document, which is served."""
    document = requests.get(f"http://{server.address}/v2/openapi.json", timeout=HANG).json()
    inputs = [{"name": name, "datatype": "INT32", "shape": [1, 16], "data": ROW.tolist()}
              for name in ["INPUT0", "INPUT1"]]
    for path, item in sorted(document["paths"].items()):
        for method in sorted({"get", "post"} & set(item)):
            line = f"`{method.upper()} {path}`"
            if "cudasharedmemory/region" in path:
                yield line, "not applicable: needs a GPU"
                continue
            body = {}
            if path.endswith("/infer"):
                body = {"inputs": inputs}
            elif path.endswith("/register"):
                body = {"key": f"/{server.key}", "offset": 0, "byte_size": 256}
            elif path.endswith("/status") and "{region}" in path:
                register = f"http://{server.address}/v2/systemsharedmemory/region/r/register"
                requests.post(register, json={"key": f"/{server.key}", "offset": 0, "byte_size": 256},
                              timeout=HANG)
            model = "scalar_out" if "repository" in path else "add_sub"
            url = path.replace("{model}", model).replace("{version}", "1").replace("{region}", "r")
            if path.endswith("/register"):
                requests.post(f"http://{server.address}/v2/systemsharedmemory/unregister", timeout=HANG)
            answer = requests.request(method, f"http://{server.address}{url}", timeout=HANG,
                                      json=body if method == "post" else None)
            yield line, "works" if answer.ok else refused(answer.status_code, answer.json()["error"])


def parameters(server):
    """Parameters of requests, of inputs and of outputs."""
    for name, value in {
            "priority": 1, "timeout": 60_000_000, "triton_enable_empty_final_response": True,
            "sequence_id": 7, "sequence_start": True, "sequence_end": True,
            "binary_data_output": True, "binary_data_size": 64, "anything": "else"}.items():
        says = server.call("ModelInfer", asked(**{name: value}))
        # The model of this server is a stateless one.
        unheard = says == "works" and name.startswith(("sequence_", "anything"))
        yield f"request, `{name}`", "ignored by this model" if unheard else says
    region = pb.SystemSharedMemoryRegisterRequest(name="p", key=f"/{server.key}", byte_size=256)
    server.call("SystemSharedMemoryRegister", region)
    shared = {"shared_memory_region": "p", "shared_memory_byte_size": 64, "shared_memory_offset": 64}
    yield "input, `shared_memory_*`", server.call("ModelInfer", with_input(raw=False, **shared))
    yield "input, `binary_data_size`", server.call("ModelInfer", with_input(binary_data_size=64))
    yield "output, `shared_memory_*`", server.call("ModelInfer", with_output(**shared))
    yield "output, `classification`", server.call("ModelInfer", with_output(classification=2))
    yield "output, `binary_data`", server.call("ModelInfer", with_output(binary_data=True))
    yield "index, `ready`", server.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
    for name, value in {"config": "{}", "file:1/model.onnx": b"x"}.items():
        load = pb.RepositoryModelLoadRequest(model_name="scalar_out")
        kind = "bytes_param" if isinstance(value, bytes) else "string_param"
        setattr(load.parameters[name], kind, value)
        yield f"load, `{name}`", server.call("RepositoryModelLoad", load)
    unload = pb.RepositoryModelUnloadRequest(model_name="scalar_out")
    unload.parameters["unload_dependents"].bool_param = True
    yield "unload, `unload_dependents`", server.call("RepositoryModelUnload", unload)


def fields(server):
    """Fields of answers: which of them were in those to the questions above."""
    answers = [message for name, message in pb.DESCRIPTOR.message_types_by_name.items()
               if name.endswith("Response") or name in SAID]
    for message in sorted(answers, key=lambda message: message.name):
        for one in [message, *message.nested_types]:
            if one.GetOptions().map_entry or "Cuda" in message.name or one.name == "ModelConfigResponse":
                continue
            for field in one.fields:
                name = f"{one.name}.{field.name}"
                yield f"`{name}`", "given" if name in server.fields else "not applicable: " + \
                    NOT_APPLICABLE.get(name, "empty unless there is something to say")


SAID = ["InferStatistics", "InferBatchStatistics", "ModelStatistics", "StatisticDuration"]

PARTS = [("Calls of gRPC", "Call", calls), ("Routes of REST", "Route", routes),
         ("Parameters over gRPC", "Parameter", parameters), ("Fields of answers over gRPC", "Field", fields)]


def written(server):
    text = """# Compatibility

What a server without a GPU answers to each part of KServe V2 and of Triton's extensions, in its own words. Made
by `tests/clients/test_compatibility.py`, which asks a running server and fails where this file says something
else; `JITNEY_WRITE_COMPATIBILITY=1` writes it anew. Models and regions in it are the test's.
"""
    for title, what, rows in PARTS:
        text += f"\n## {title}\n\n| {what} | |\n|---|---|\n"
        text += "".join(f"| {name} | {says.replace(server.key, 'KEY')} |\n" for name, says in rows(server))
    return text


def test_the_tables_are_what_the_server_does(server):
    text = written(server)
    if os.environ.get("JITNEY_WRITE_COMPATIBILITY"):
        TABLES.write_text(text)
    assert TABLES.read_text() == text
