"""Models made to do harm: each is refused or served, and the server goes on.

What ends or holds up a process from inside a native library is tried with processes of their own alone:
docs/security.md says what holds that.
"""

import os
import random
import shutil
import struct
from contextlib import contextmanager

import numpy
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from server import BINARY, ROOT, Server

FLOAT = TensorProto.FLOAT
DIGITS = ROOT / "examples" / "models" / "digits" / "1" / "model.onnx"


def value(name, shape=("N", 4), kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, initializers=(), inputs=None, outputs=None, opset=17, **more):
    graph = helper.make_graph(nodes, "g", inputs or [value("x")], outputs or [value("y")],
                              list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset),
                                                   helper.make_opsetid("own", 1)],
                             ir_version=9, **more)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, **attributes)


def weight(dims, kind=FLOAT, **fields):
    """An initializer that claims these dimensions."""
    return TensorProto(name="w", data_type=kind, dims=dims, **fields)


def adding(*arguments, **fields):
    return model([node("Add", ["x", "w"], ["y"])], [weight(*arguments, **fields)])


def external(**entries):
    tensor = weight([4], data_location=TensorProto.EXTERNAL)
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    return model([node("Add", ["x", "w"], ["y"])], [tensor])


def constant(kind, shape, **attributes):
    """Something that could be computed when the model is loaded."""
    numbers = helper.make_tensor("s", TensorProto.INT64, [len(shape)], shape)
    return model([node(kind, ["s"], ["big"], **attributes),
                  node("ReduceSum", ["big"], ["sum"], keepdims=0),
                  node("Add", ["x", "sum"], ["y"])], [numbers])


def nested(depth):
    """Branches in branches."""
    inner = helper.make_graph([node("Identity", ["x"], ["out"])], "b", [], [value("out")])
    for _ in range(depth):
        branch = node("If", ["c"], ["out"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([branch], "b", [], [value("out")])
        # One branch is enough to be deep.
        del inner.node[0].attribute[1].g.node[:]
        inner.node[0].attribute[1].g.node.append(node("Identity", ["x"], ["out"]))
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    return model([node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], [condition])


def beyond_reading():
    """Deeper than protobuf's own library would write."""
    def field(number, content):
        length, said = len(content), b""
        while length > 127:
            said, length = said + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + said + bytes([length]) + content

    deep = b""
    for _ in range(2000):
        # A graph's node's attribute's graph.
        deep = field(1, field(5, field(6, deep)))
    return b"\x08\x09" + field(7, deep)


def function(name, other):
    """A function that calls another."""
    return helper.make_function("own", name, ["a"], ["b"], [node(other, ["a"], ["b"], domain="own")],
                                [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])


def without_branches():
    return model([node("If", ["c"], ["y"])],
                 [helper.make_tensor("c", TensorProto.BOOL, [], [True])])


ADD = node("Add", ["x", "x"], ["y"])
CALL = node("f", ["x"], ["y"], domain="own")

HOSTILE = {
    "nothing": b"",
    "noise": random.Random(7).randbytes(4096),
    "half": DIGITS.read_bytes()[:len(DIGITS.read_bytes()) // 2],
    "text": b"<html>not found</html>",
    "no_graph": onnx.ModelProto(ir_version=9),
    "no_nodes": model([]),
    "future": model([ADD], opset=9999),
    "future_format": onnx.ModelProto(ir_version=2**62, graph=model([ADD]).graph),
    "huge_claim": adding([2**40], raw_data=b"1234"),
    "huge_claim_without_data": adding([2**34]),
    "overflowing_claim": adding([2**32, 2**32, 2**32], raw_data=b"1234"),
    "negative_claim": adding([-1], raw_data=b"1234"),
    "most_negative_claim": adding([-2**63, -1], raw_data=b"1234"),
    "unknown_type": adding([1], 9999, raw_data=b"1234"),
    "text_as_bytes": adding([1], TensorProto.STRING, raw_data=b"1234"),
    "other_type": adding([1], TensorProto.INT64, raw_data=struct.pack("<q", 1)),
    "data_of_other_type": adding([1], FLOAT, int32_data=[1]),
    "circle": model([node("Add", ["x", "b"], ["a"]), node("Add", ["x", "a"], ["b"]),
                     node("Add", ["a", "b"], ["y"])]),
    "self": model([node("Add", ["x", "y"], ["y"])]),
    "twice": model([ADD, ADD]),
    "from_nowhere": model([node("Add", ["x", "z"], ["y"])]),
    "unknown_operator": model([node("Nonsense", ["x"], ["y"])]),
    "unknown_domain": model([node("Add", ["x", "x"], ["y"], domain="nobody")]),
    "too_few_inputs": model([node("Conv", ["x"], ["y"])]),
    "unknown_attribute": model([node("Add", ["x", "x"], ["y"], strange=1)]),
    "branches": nested(20),
    "branches_beyond_reading": beyond_reading(),
    "without_branches": without_branches(),
    "recursive": model([CALL], functions=[function("f", "f")]),
    "recursive_by_another": model([CALL], functions=[function("f", "g"), function("g", "f")]),
    "huge_constant": constant("ConstantOfShape", [2**60]),
    "overflowing_constant": constant("ConstantOfShape", [2**40, 2**40]),
    "negative_constant": constant("ConstantOfShape", [-5]),
    "huge_input": model([ADD], inputs=[value("x", ("N", 2**40))]),
    "most_huge_input": model([ADD], inputs=[value("x", ("N", 2**63 - 1, 2**63 - 1))]),
    "negative_input": model([ADD], inputs=[value("x", ("N", -7))]),
    "empty_input": model([ADD], inputs=[value("x", ("N", 0))]),
    "no_output": onnx.ModelProto(
        ir_version=9, opset_import=model([ADD]).opset_import,
        graph=onnx.GraphProto(name="g", node=[ADD], input=[value("x")])),
    "long_name": model([ADD], inputs=[value("x"), value("z" * 100_000)]),
    "absolute": external(location="/etc/hostname"),
    "above": external(location="../../../secret"),
    "by_link": external(location="link"),
    "by_linked_folder": external(location="up/secret"),
    "in_memory": external(location="*/_ORT_MEM_ADDR_/*", offset="4096", length="16"),
    "behind_the_end": external(location="short", offset="0", length="16"),
    "far_behind_the_end": external(location="short", offset=str(2**62), length="16"),
    "negative_offset": external(location="short", offset="-16", length="16"),
    "endless": external(location="pipe"),
}


def endless_loop(count):
    """A loop that runs as often as a number says, which is a weight or an input."""
    scalar = [("i", TensorProto.INT64), ("before", TensorProto.BOOL)]
    body = helper.make_graph(
        [node("Identity", ["before"], ["after"]), node("Add", ["a", "a"], ["b"])], "body",
        [*(value(name, [], kind) for name, kind in scalar), value("a")],
        [value("after", [], TensorProto.BOOL), value("b")])
    start = helper.make_tensor("start", TensorProto.BOOL, [], [True])
    loop = node("Loop", ["n", "start", "x"], ["y"], body=body)
    if count is not None:
        return model([loop], [helper.make_tensor("n", TensorProto.INT64, [], [count]), start])
    # One row each of x and of the count.
    zero = helper.make_tensor("zero", TensorProto.INT64, [], [0])
    chosen = node("Gather", ["counts", "zero"], ["n"])
    return model([chosen, loop], [start, zero], [value("x"), value("counts", ["N"], TensorProto.INT64)])


def doubling(depth):
    """Functions each of which calls the one below it twice."""
    functions = [helper.make_function("own", "f0", ["a"], ["b"], [node("Identity", ["a"], ["b"])],
                                      [helper.make_opsetid("", 17)])]
    for index in range(1, depth + 1):
        twice = [node(f"f{index - 1}", [given], [made], domain="own")
                 for given, made in [("a", "between"), ("between", "b")]]
        functions.append(helper.make_function("own", f"f{index}", ["a"], ["b"], twice,
                                              [helper.make_opsetid("own", 1)]))
    return model([node(f"f{depth}", ["x"], ["y"], domain="own")], functions=functions)


def chain(length):
    """One node after the other."""
    names = ["x", *(f"t{index}" for index in range(length - 1)), "y"]
    return model([node("Identity", [given], [made]) for given, made in zip(names, names[1:])])


def allocating(size):
    """Makes a tensor of so many bytes when it runs."""
    # The shape depends on the input, so that nothing of it is computed when it is loaded.
    shape = helper.make_tensor("size", TensorProto.INT64, [1], [size // 4])
    first = helper.make_tensor("first", TensorProto.INT64, [1], [0])
    return model([node("Shape", ["x"], ["s"]), node("Gather", ["s", "first"], ["rows"]),
                  node("Mul", ["rows", "size"], ["long"]), node("ConstantOfShape", ["long"], ["big"]),
                  node("ReduceSum", ["big"], ["sum"], keepdims=0), node("Add", ["x", "sum"], ["y"])],
                 [shape, first])


# What a refusal says, where it is ours to say.
SAID = {
    "half": "no ONNX model", "noise": "no ONNX model", "text": "no ONNX model",
    "branches_beyond_reading": "nested more than 100 deep",
    "absolute": "named from the version's folder", "above": "named from the version's folder",
    "by_link": "not in the repository", "by_linked_folder": "not in the repository",
    "in_memory": "that is no file", "behind_the_end": "16 are to be read",
    "far_behind_the_end": "are to be read", "negative_offset": "no number of bytes",
    "endless": "neither a file nor a folder",
}


@pytest.fixture(scope="module", params=["thread", "process"])
def served(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    repository = folder / "models"
    (folder / "secret").write_bytes(bytes(16))
    for name, made in HOSTILE.items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        data = made if isinstance(made, bytes) else made.SerializeToString()
        (version / "model.onnx").write_bytes(data)
    (repository / "by_link/1/link").symlink_to(folder / "secret")
    (repository / "by_linked_folder/1/up").symlink_to(folder)
    for name in ["behind_the_end", "far_behind_the_end", "negative_offset"]:
        (repository / name / "1/short").write_bytes(bytes(8))
    memory = repository / "in_memory/1/*/_ORT_MEM_ADDR_"
    memory.mkdir(parents=True)
    (memory / "*").write_bytes(bytes(8192))
    os.mkfifo(repository / "endless/1/pipe")
    shutil.copytree(ROOT / "tests/models/identity_fp32", repository / "good")
    with Server(repository, "--model-control", "explicit", "--load-model", "good",
                "--isolation", request.param) as server:
        yield server


@pytest.fixture(scope="module")
def client(served):
    with served.client() as client:
        yield client


def still_serves(client):
    given = triton.InferInput("INPUT0", [1, 2], "FP32")
    given.set_data_from_numpy(numpy.array([[1, 2]], numpy.float32))
    answer = client.infer("good", [given]).as_numpy("OUTPUT0")
    numpy.testing.assert_array_equal(answer, [[1, 2]])


@pytest.mark.parametrize("name", HOSTILE)
def test_the_server_goes_on(client, served, name):
    try:
        client.load_model(name)
        refused = None
    except InferenceServerException as error:
        refused = str(error)
    assert served.process.poll() is None, served.logged()
    still_serves(client)
    if name in SAID:
        assert SAID[name] in (refused or "it was loaded")
    if refused:
        assert "panicked" not in refused
        assert not client.is_model_ready(name)


# How long a worker may take for what these models never get done, and for what `good` does.
PATIENCE_MS = "3000"


@pytest.fixture
def isolated(repository, add):
    """Serves `good`, and has a model that is not loaded yet; both get processes of their own."""
    add("identity_fp32", "good")

    @contextmanager
    def isolated(name, made, *flags):
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(made.SerializeToString())
        with Server(repository, "--model-control", "explicit", "--load-model", "good",
                    "--isolation", "process", "--worker-load-timeout-ms", PATIENCE_MS,
                    "--executor-timeout-ms", PATIENCE_MS, *flags) as server, server.client() as client:
            yield server, client
            assert server.process.poll() is None, server.logged()
            still_serves(client)

    return isolated


@pytest.mark.parametrize("make, size", [(endless_loop, 2**62), (doubling, 30), (chain, 200_000)])
def test_a_load_that_does_not_end_is_ended(isolated, make, size):
    with isolated("endless", make(size)) as (_, client):
        with pytest.raises(InferenceServerException, match="gave no answer within 3000 ms, and was killed"):
            client.load_model("endless")
        assert not client.is_model_ready("endless")


def ask(client, name, **tensors):
    given = []
    for key, tensor in tensors.items():
        kind = {"float32": "FP32", "int64": "INT64"}[str(tensor.dtype)]
        given.append(triton.InferInput(key, tensor.shape, kind))
        given[-1].set_data_from_numpy(tensor)
    return client.infer(name, given).as_numpy("y")


ROW = numpy.ones([1, 4], numpy.float32)


def test_a_request_without_an_end_is_ended(isolated):
    with isolated("loop", endless_loop(None)) as (_, client):
        client.load_model("loop")
        numpy.testing.assert_array_equal(ask(client, "loop", x=ROW, counts=numpy.array([2])), 4 * ROW)
        with pytest.raises(InferenceServerException, match="gave no answer within 3000 ms, and was killed"):
            ask(client, "loop", x=ROW, counts=numpy.array([2**62]))
        still_serves(client)
        # The next worker answers what ends.
        numpy.testing.assert_array_equal(ask(client, "loop", x=ROW, counts=numpy.array([1])), 2 * ROW)


def test_weights_that_are_cut_off_while_they_are_mapped_end_their_worker_alone(isolated, repository):
    # ONNX Runtime reads what it maps when a request asks for it.
    count = 2**22
    weights = weight([count], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="weights")
    made = model([node("Gather", ["w", "i"], ["chosen"]), node("Add", ["x", "chosen"], ["y"])], [weights],
                 [value("x"), value("i", kind=TensorProto.INT64)])
    with isolated("mapped", made) as (server, client):
        file = repository / "mapped/1/weights"
        file.write_bytes(bytes(4 * count))
        client.load_model("mapped")
        last = numpy.full([1, 4], count - 1)
        numpy.testing.assert_array_equal(ask(client, "mapped", x=ROW, i=last), ROW)
        os.truncate(file, 0)
        with pytest.raises(InferenceServerException, match="no executor is alive"):
            ask(client, "mapped", x=ROW, i=last - 2**20)
        assert "crashed (signal 7)" in server.logged()
        still_serves(client)
        assert not client.is_model_ready("mapped")
        file.write_bytes(bytes(4 * count))
        client.load_model("mapped")
        numpy.testing.assert_array_equal(ask(client, "mapped", x=ROW, i=last), ROW)


def test_memory_can_be_bounded_for_each_process(isolated, tmp_path):
    program = tmp_path / "worker"
    program.write_text(f'#!/bin/sh\nulimit -v 4000000\nexec {BINARY} "$@"\n')
    program.chmod(0o755)
    with isolated("allocating", allocating(2**33), "--worker-executable", program) as (_, client):
        client.load_model("allocating")
        with pytest.raises(InferenceServerException, match="out of memory"):
            ask(client, "allocating", x=ROW)


def test_what_is_too_large_is_not_read(tmp_path):
    repository = tmp_path / "models"
    shutil.copytree(ROOT / "tests/models/identity_fp32", repository / "large")
    size = (repository / "large/1/model.onnx").stat().st_size
    flags = ["--model-control", "explicit", "--max-model-bytes"]
    with Server(repository, *flags, str(size - 1)) as server, server.client() as client:
        with pytest.raises(InferenceServerException, match="--max-model-bytes"):
            client.load_model("large")
    with Server(repository, *flags, str(size)) as server, server.client() as client:
        client.load_model("large")


def test_links_lead_out_only_where_the_operator_says_so(tmp_path):
    repository = tmp_path / "models"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "tests/models/identity_fp32", elsewhere)
    repository.mkdir()
    (repository / "linked").symlink_to(elsewhere)
    flags = ["--model-control", "explicit"]
    with Server(repository, *flags) as server, server.client() as client:
        with pytest.raises(InferenceServerException, match="--follow-links"):
            client.load_model("linked")
    with Server(repository, *flags, "--follow-links", "true") as server, server.client() as client:
        client.load_model("linked")
