"""Memory of a GPU that a client has allocated, registered by tritonclient over gRPC and over HTTP.

The GPU is that of tests/driver, a driver that is not one: this process allocates by it and makes the
handle, the server opens that, each for itself. With a real GPU, `make test-gpu` does the same.
"""

import base64
import ctypes
import os

import numpy
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from server import BINARY, ROOT, Server

DRIVER = BINARY.parent / "deps" / "libjitney_driver.so"
ARRAY = numpy.arange(8, dtype=numpy.float32).reshape(2, 4)


class Gpu:
    """The first GPU of the driver in a folder, as a client has it."""

    def __init__(self, folder):
        os.environ["JITNEY_DRIVER"] = str(folder)
        self.cuda = ctypes.CDLL(str(folder / "libcuda.so.1"))
        context = ctypes.c_size_t()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *arguments):
        assert getattr(self.cuda, name)(*arguments) == 0, name

    def allocate(self, size):
        start = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(start), ctypes.c_size_t(size))
        return start

    def free(self, start):
        self.call("cuMemFree_v2", start)

    def write(self, start, array):
        data = array.tobytes()
        self.call("cuMemcpyHtoD_v2", start, data, ctypes.c_size_t(len(data)))
        self.call("cuStreamSynchronize", None)

    def read(self, start, size):
        data = ctypes.create_string_buffer(size)
        self.call("cuMemcpyDtoH_v2", data, start, ctypes.c_size_t(size))
        return data.raw

    def handle(self, start):
        """As tritonclient's get_raw_handle gives it."""
        handle = (ctypes.c_char * 64)()
        self.call("cuIpcGetMemHandle", handle, start)
        return base64.b64encode(handle.raw)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    (folder / "libcuda.so.1").symlink_to(DRIVER)
    (folder / "control").write_text("devices = 2\nmemory_bytes = 1073741824\n")
    return folder


@pytest.fixture(scope="module")
def gpu(folder):
    before = os.environ.get("JITNEY_DRIVER")
    yield Gpu(folder)
    if before is None:
        del os.environ["JITNEY_DRIVER"]


def start(folder):
    return Server(ROOT / "tests" / "models", "--cuda-shared-memory", "true", "--device", "cpu",
                  environment={"LD_LIBRARY_PATH": str(folder), "JITNEY_DRIVER": str(folder)})


@pytest.fixture(scope="module")
def server(folder):
    with start(folder) as server:
        yield server


@pytest.fixture(params=["grpc", "http"])
def client(request, server):
    client = connect(request.param, server)
    yield client
    client.unregister_cuda_shared_memory()
    client.close()


def connect(protocol, server):
    if protocol == "grpc":
        client = triton_grpc.InferenceServerClient(server.address)
    else:
        [address] = [line.split("//")[1].split("/")[0]
                     for line in server.said if line.startswith("REST on ")]
        client = triton_http.InferenceServerClient(address)
    client.triton = {"grpc": triton_grpc, "http": triton_http}[protocol]
    return client


def register(client, gpu, start, size, name="gpu", device=0):
    client.register_cuda_shared_memory(name, gpu.handle(start), device, size)


def echo(client, name="gpu"):
    """Takes the region's first 32 bytes and puts them behind themselves."""
    given = client.triton.InferInput("INPUT0", [2, 4], "FP32")
    given.set_shared_memory(name, 32)
    wanted = client.triton.InferRequestedOutput("OUTPUT0")
    wanted.set_shared_memory(name, 32, 32)
    client.infer("identity_fp32", [given], outputs=[wanted])


def test_tensors_go_both_ways(client, gpu):
    memory = gpu.allocate(64)
    gpu.write(memory, ARRAY)
    register(client, gpu, memory, 64)
    echo(client)
    assert gpu.read(memory, 64) == ARRAY.tobytes() * 2
    # What the client writes later is seen.
    gpu.write(memory, -ARRAY)
    echo(client)
    assert gpu.read(memory, 64) == (-ARRAY).tobytes() * 2
    gpu.free(memory)


def test_two_regions_may_be_one_memory(client, gpu):
    memory = gpu.allocate(64)
    gpu.write(memory, ARRAY)
    register(client, gpu, memory, 64)
    register(client, gpu, memory, 64, name="again")
    client.unregister_cuda_shared_memory("gpu")
    echo(client, "again")
    assert gpu.read(memory, 64) == ARRAY.tobytes() * 2
    gpu.free(memory)


def test_wrong_registrations_are_refused(client, gpu):
    memory = gpu.allocate(64)
    for size, device, why in [(65, 0, "what was shared has 64"), (64, 1, "INVALID_CONTEXT"),
                              (64, 2, "INVALID_DEVICE")]:
        with pytest.raises(InferenceServerException, match=why):
            register(client, gpu, memory, size, device=device)
    gone = gpu.handle(memory)
    gpu.free(memory)
    with pytest.raises(InferenceServerException, match="INVALID_HANDLE"):
        client.register_cuda_shared_memory("gpu", gone, 0, 64)


def test_gpus_are_told_in_metrics_with_their_identities(server, gpu):
    memory = gpu.allocate(1 << 20)
    client = connect("http", server)
    said = client._get("metrics", headers=None, query_params=None).read().decode()
    lines = dict(line.rsplit(" ", 1) for line in said.splitlines() if not line.startswith("#"))
    # This process's allocation, and the server has none.
    assert float(lines['jitney_device_memory_bytes{device="cuda:0",state="used"}']) == 1 << 20
    assert float(lines['jitney_device_memory_bytes{device="cuda:1",state="used"}']) == 0
    client.close()
    gpu.free(memory)


def test_a_gpu_that_comes_back_is_there_for_a_server_that_starts_anew(folder, gpu):
    """A process cannot get over the loss of its GPU, as CUDA says; the next one can."""
    memory = gpu.allocate(64)
    gpu.write(memory, ARRAY)
    control = folder / "control"
    well = control.read_text()
    with start(folder) as server:
        client = connect("grpc", server)
        register(client, gpu, memory, 64)
        handle = gpu.handle(memory)
        control.write_text(well + "lost.0 = 700\n")
        with pytest.raises(InferenceServerException, match="ILLEGAL_ADDRESS"):
            echo(client)
        control.write_text(well)
        with pytest.raises(InferenceServerException, match="ILLEGAL_ADDRESS"):
            echo(client)
        client.close()
        assert server.stop() == 0
    with start(folder) as server:
        client = connect("grpc", server)
        client.register_cuda_shared_memory("gpu", handle, 0, 64)
        echo(client)
        client.close()
    assert gpu.read(memory, 64) == ARRAY.tobytes() * 2
