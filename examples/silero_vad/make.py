#!/usr/bin/env python3
"""Makes a stateful model that people really serve: Silero's speech detector, as one ONNX file.

For every 32 ms of sound it says how likely somebody speaks, and it has to remember what it heard
before. The package's model leaves that to its caller: the state of a recurrent network, whose batch
is the second dimension, and the last 64 samples of the piece before. Here the graph is wrapped so
that both are states whose rows come first; then the server keeps them, and many streams of sound
share a batch.

    make.py            writes examples/models/silero_vad/1/model.onnx
    make.py --check    also compares it with the package's model, step by step

The model is Silero VAD (https://github.com/snakers4/silero-vad), MIT, as packaged by silero-vad.
"""

import argparse
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
# At the end, for scripts/ also has a file called onnxruntime.py.
sys.path.append(str(ROOT / "scripts"))
from pinned_wheel import WheelError, fetch  # noqa: E402

FOLDER = ROOT / "examples" / "models" / "silero_vad"
MODEL = FOLDER / "1" / "model.onnx"
# The package's own, for tests to compare with. Not a version's folder, so it is not served.
ORIGINAL = FOLDER / "original" / "silero_vad_half.onnx"
PACKAGE = "silero-vad==6.2.3"
SHA256 = "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8"
FILE = "silero_vad/data/silero_vad_half.onnx"

# From the package's silero_vad/utils_vad.py, for 16 kHz: samples in a piece, and of the one before.
PIECE = 512
CONTEXT = 64
# Layers of state, and their width.
LAYERS = 2
WIDTH = 128

# How the server is to serve it.
POLICY = """\
# A sequence is one stream of sound at 16 kHz, in pieces of 512 samples. What the network remembers and
# the end of the piece before are kept by the server; clients see neither.
[sequence]
strategy = "oldest"
max_idle_ms = 5000

[[sequence.states]]
input = "state"
output = "state_out"

[[sequence.states]]
input = "context"
output = "context_out"
"""

TOLERANCE = 1e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true",
                        help="compare the model with the package's, step by step")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = fetch(PACKAGE, SHA256, scratch)
            with zipfile.ZipFile(wheel) as archive:
                original = archive.read(FILE)
        write(ORIGINAL, original)
        write(MODEL, wrapped(onnx.load_from_string(original)).SerializeToString(deterministic=True))
        (FOLDER / "model.toml").write_text(POLICY)
        print(f"Silero VAD is in {MODEL.relative_to(ROOT)}")
        if options.check:
            check()
    except (WheelError, OSError) as error:
        sys.exit(f"{Path(__file__).relative_to(ROOT)}: {error}")


def write(path, content):
    """Writes a file in one step, so that an interrupted run leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def wrapped(original):
    """The package's graph between nodes that put rows first and remember the end of a piece."""
    inner = original.graph
    rename(inner)
    before = [
        helper.make_node("Concat", ["context", "input"], ["heard"], axis=1),
        helper.make_node("Transpose", ["state"], ["layers_first"], perm=[1, 0, 2]),
    ]
    after = [
        helper.make_node("Transpose", ["layers_first_out"], ["state_out"], perm=[1, 0, 2]),
        helper.make_node("Slice", ["heard", "context_from", "context_to", "along"], ["context_out"]),
    ]
    graph = helper.make_graph(
        [*before, *inner.node, *after],
        "silero_vad",
        [value("input", PIECE), value("state", LAYERS, WIDTH), value("context", CONTEXT)],
        [value("output", 1), value("state_out", LAYERS, WIDTH), value("context_out", CONTEXT)],
        [*inner.initializer, constant("context_from", PIECE),
         constant("context_to", PIECE + CONTEXT), constant("along", 1)],
    )
    model = helper.make_model(graph, producer_name="jitney-examples",
                              ir_version=original.ir_version, opset_imports=original.opset_import)
    checker.check_model(model, full_check=True)
    return model


def rename(graph):
    """Puts other names in the place of the graph's own, also where branches use them."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = INNER.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                rename(attribute.g)


# What the package's graph calls its inputs and outputs, and what is put in their place.
INNER = {"input": "heard", "state": "layers_first", "stateN": "layers_first_out"}


def value(name, *inner):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *inner])


def constant(name, number):
    return numpy_helper.from_array(numpy.array([number], numpy.int64), name)


def check():
    """Compares three streams at once with each of them through the package's model."""
    random = numpy.random.default_rng(7)
    pieces = random.normal(0, 0.2, [20, 3, PIECE]).astype(numpy.float32)
    served, original = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in [MODEL, ORIGINAL])
    state = numpy.zeros([3, LAYERS, WIDTH], numpy.float32)
    context = numpy.zeros([3, CONTEXT], numpy.float32)
    own_state = numpy.zeros([3, LAYERS, 1, WIDTH], numpy.float32)
    own_context = numpy.zeros([3, CONTEXT], numpy.float32)
    difference = 0.0
    for piece in pieces:
        found, state, context = served.run(
            None, {"input": piece, "state": state, "context": context})
        for row in range(3):
            heard = numpy.concatenate([own_context[row], piece[row]])
            expected, own_state[row] = original.run(
                None, {"input": heard[None], "state": own_state[row]})
            own_context[row] = heard[-CONTEXT:]
            difference = max(difference, float(numpy.abs(found[row] - expected[0]).max()))
    print(f"largest difference from the package's model: {difference:.1e}")
    if not difference <= TOLERANCE:
        sys.exit(f"the model differs from the package's by {difference:.1e}, more than {TOLERANCE}")


if __name__ == "__main__":
    main()
