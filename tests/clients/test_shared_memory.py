"""System shared memory by tritonclient's utilities, over gRPC and over HTTP."""

import os
import secrets
from pathlib import Path

import numpy
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from server import ROOT, Server

ARRAY = numpy.arange(8, dtype=numpy.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def prefix():
    """How the keys of these tests begin, like nobody else's."""
    return f"jitney-test-{secrets.token_hex(4)}-"


@pytest.fixture(scope="module")
def shared(prefix):
    flags = ["--shared-memory-prefix", f"/dev/shm/{prefix}", "--max-shared-memory-bytes", "4096"]
    with Server(ROOT / "tests" / "models", *flags) as server:
        yield server


@pytest.fixture(params=["grpc", "http"])
def client(request, shared):
    """A client of either protocol, with nothing registered."""
    client = connect(request.param, shared)
    client.triton = {"grpc": triton_grpc, "http": triton_http}[request.param]
    client.unregister_system_shared_memory()
    yield client
    client.close()


@pytest.fixture
def region(prefix):
    """Makes a file of shared memory, and removes it."""
    made = []

    def region(name, size):
        made.append(shm.create_shared_memory_region(name, prefix + name, size))
        return made[-1]

    yield region
    for handle in made:
        try:
            shm.destroy_shared_memory_region(handle)
        except FileNotFoundError:
            pass


def connect(protocol, server):
    if protocol == "grpc":
        return triton_grpc.InferenceServerClient(server.address)
    [address] = [line.split("//")[1].split("/")[0]
                 for line in server.said if line.startswith("REST on ")]
    return triton_http.InferenceServerClient(address)


def given(client, name, array, datatype, region=None, size=None, offset=0):
    tensor = client.triton.InferInput(name, list(array.shape), datatype)
    if region is None:
        tensor.set_data_from_numpy(array)
    else:
        tensor.set_shared_memory(region, array.nbytes if size is None else size, offset)
    return tensor


def wanted(client, name, region, size, offset=0):
    output = client.triton.InferRequestedOutput(name)
    output.set_shared_memory(region, size, offset)
    return output


def status(client):
    """Each region's key, offset and size, by name."""
    said = client.get_system_shared_memory_status()
    if client.triton is triton_http:
        return {one["name"]: (one["key"], one["offset"], one["byte_size"]) for one in said}
    return {name: (one.key, one.offset, one.byte_size) for name, one in said.regions.items()}


def parameters(client, result, name):
    """What the answer says of an output."""
    output = result.get_output(name)
    if client.triton is triton_http:
        # Triton's C++ client would look behind the JSON for an output that has parameters.
        assert "data" not in output and "parameters" not in output
        return None
    return {key: value.string_param or value.int64_param
            for key, value in output.parameters.items()}


def refused(call, *words):
    with pytest.raises(InferenceServerException) as error:
        call()
    for word in words:
        assert word in str(error.value), error.value


def test_tensors_go_both_ways(client, region, prefix):
    handle = region("both", 256)
    shm.set_shared_memory_region(handle, [ARRAY], offset=64)
    client.register_system_shared_memory("both", "/" + prefix + "both", 256 - 32, offset=32)
    assert status(client) == {"both": ("/" + prefix + "both", 32, 224)}
    result = client.infer(
        "identity_fp32", [given(client, "INPUT0", ARRAY, "FP32", "both", offset=32)],
        outputs=[wanted(client, "OUTPUT0", "both", 64, offset=96)])
    echo = shm.get_contents_as_numpy(handle, numpy.float32, [2, 4], offset=128)
    numpy.testing.assert_array_equal(echo, ARRAY)
    assert parameters(client, result, "OUTPUT0") in [None, {
        "shared_memory_region": "both", "shared_memory_offset": 96, "shared_memory_byte_size": 32}]
    client.unregister_system_shared_memory("both")
    assert status(client) == {}


def test_a_request_may_mix_shared_tensors_with_others(client, region, prefix):
    first = numpy.arange(16, dtype=numpy.int32).reshape(1, 16)
    second = numpy.full([1, 16], 3, numpy.int32)
    handle = region("mixed", 128)
    shm.set_shared_memory_region(handle, [first])
    client.register_system_shared_memory("mixed", prefix + "mixed", 128)
    result = client.infer(
        "add_sub",
        [given(client, "INPUT0", first, "INT32", "mixed"), given(client, "INPUT1", second, "INT32")],
        outputs=[wanted(client, "OUTPUT0", "mixed", 64, offset=64),
                 client.triton.InferRequestedOutput("OUTPUT1")])
    numpy.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - second)
    total = shm.get_contents_as_numpy(handle, numpy.int32, [1, 16], offset=64)
    numpy.testing.assert_array_equal(total, first + second)


def test_strings(client, region, prefix):
    words = numpy.array([[b"jitney"], [b"\x00\xff"], [b""]], object)
    raw = serialize_byte_tensor(words)
    size = len(raw.item())
    handle = region("words", 64)
    shm.set_shared_memory_region(handle, [raw])
    client.register_system_shared_memory("words", prefix + "words", 64)
    client.infer(
        "string_identity", [given(client, "INPUT0", words, "BYTES", "words", size)],
        outputs=[wanted(client, "OUTPUT0", "words", 32, offset=32)])
    echo = shm.get_contents_as_numpy(handle, numpy.object_, [3, 1], offset=32)
    numpy.testing.assert_array_equal(echo, words)


def test_wrong_sizes_are_refused(client, region, prefix):
    handle = region("sizes", 64)
    shm.set_shared_memory_region(handle, [ARRAY])
    name, key = "sizes", prefix + "sizes"
    refused(lambda: client.register_system_shared_memory(name, key, 4096), "4096", "not inside")
    refused(lambda: client.register_system_shared_memory(name, key, 1, offset=2**63), "not inside")
    refused(lambda: client.register_system_shared_memory(name, key, 0), "byte_size is 0")
    client.register_system_shared_memory(name, key, 64)
    refused(lambda: client.register_system_shared_memory(name, key, 64), "registered already")

    def infer(size=32, offset=0, room=32, where=32, region=name):
        client.infer(
            "identity_fp32", [given(client, "INPUT0", ARRAY, "FP32", region, size, offset)],
            outputs=[wanted(client, "OUTPUT0", region, room, where)])

    infer()
    refused(lambda: infer(size=31), "INPUT0", "32 bytes", "31 came")
    refused(lambda: infer(size=65), "INPUT0", "not inside", "which has 64")
    refused(lambda: infer(offset=33), "INPUT0", "not inside")
    refused(lambda: infer(offset=2**63 - 1, size=2**63 - 1), "INPUT0", "not inside")
    refused(lambda: infer(room=33), "OUTPUT0", "not inside")
    refused(lambda: infer(room=31), "OUTPUT0", "it has 32 bytes", "room for 31")
    refused(lambda: infer(region="nobody"), "no shared memory region", "nobody")


def test_a_region_outlives_its_name_and_shrinks_without_harm(client, region, prefix):
    handle = region("fragile", 64)
    shm.set_shared_memory_region(handle, [ARRAY])
    client.register_system_shared_memory("fragile", prefix + "fragile", 64)
    path = Path("/dev/shm") / (prefix + "fragile")
    with path.open("r+b") as file:
        path.unlink()

        def infer(**tensors):
            inputs = [given(client, "INPUT0", ARRAY, "FP32", tensors.get("source"))]
            outputs = [wanted(client, "OUTPUT0", "fragile", 32, offset=32)]
            client.infer("identity_fp32", inputs, outputs=outputs)

        infer(source="fragile")
        assert os.pread(file.fileno(), 32, 32) == ARRAY.tobytes()
        file.truncate(16)
        refused(lambda: infer(source="fragile"), "INPUT0", "has become shorter", "16 bytes")
        refused(infer, "OUTPUT0", "has become shorter", "16 bytes")
        assert os.fstat(file.fileno()).st_size == 16
    assert client.is_server_ready()
    client.unregister_system_shared_memory("fragile")


def test_files_outside_the_prefix_are_out_of_reach(client, region, prefix, tmp_path):
    other = Path("/dev/shm") / f"other-{prefix}"
    link = Path("/dev/shm") / f"{prefix}link"
    other.write_bytes(b"secret")
    try:
        link.symlink_to(other)
        for key in [other.name, f"/{other.name}", f"/{prefix}/../{other.name}", f"..{other}",
                    str(other), ""]:
            refused(lambda: client.register_system_shared_memory("r", key, 6), "not allowed")
        refused(lambda: client.register_system_shared_memory("r", link.name, 6), "link")
        refused(lambda: client.register_system_shared_memory("r", prefix + "none", 6), "No such file")
    finally:
        link.unlink(missing_ok=True)
        other.unlink()
    assert status(client) == {}


def test_what_is_registered_is_bounded(client, region, prefix):
    region("large", 8192)
    refused(lambda: client.register_system_shared_memory("large", prefix + "large", 4097),
            "max_shared_memory_bytes")
    client.register_system_shared_memory("large", prefix + "large", 4096)
    refused(lambda: client.register_system_shared_memory("more", prefix + "large", 1),
            "4096 are taken")


def test_what_is_not_there_is_said(client):
    refused(lambda: client.get_system_shared_memory_status("nobody"), "nobody")
    client.unregister_system_shared_memory("nobody")
    client.unregister_cuda_shared_memory()
    said = client.get_cuda_shared_memory_status()
    assert not (said if client.triton is triton_http else said.regions)


def test_it_is_off_unless_asked_for(server, region, prefix):
    region("off", 64)
    for protocol in ["grpc", "http"]:
        client = connect(protocol, server)
        client.unregister_system_shared_memory()
        refused(lambda: client.register_system_shared_memory("off", prefix + "off", 64),
                "--shared-memory-prefix")
        client.close()


def test_cuda_shared_memory_needs_a_gpu_and_a_setting(client):
    """Where there is a GPU, because it is off; where there is none, because of that."""
    handle = b"AAAA" * 22 if client.triton is triton_http else b"\0" * 64
    handle = "A" * 86 + "==" if client.triton is triton_http else handle
    refused(lambda: client.register_cuda_shared_memory("gpu", handle, 0, 64), "CUDA")
