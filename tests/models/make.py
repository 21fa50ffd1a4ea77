#!/usr/bin/env python3
"""Makes the models that the tests serve, into tests/models/<name>/1/model.onnx.

Each is the smallest model that shows one thing a server can get wrong: an element type, a
dimension, rows that are not independent. They are kept in the repository, so that the tests need
no Python; the same pins always write the same bytes.
"""

from pathlib import Path

import numpy
from onnx import TensorProto, checker, helper, numpy_helper

HERE = Path(__file__).resolve().parent

# Old enough for every ONNX Runtime that Jitney can load.
OPSET = 17
IR_VERSION = 8

DTYPES = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE", "STRING",
]
# What the protocol calls them, where it differs from ONNX.
PROTOCOL_NAMES = {"FLOAT16": "fp16", "BFLOAT16": "bf16", "FLOAT": "fp32", "DOUBLE": "fp64"}


def main():
    for model in [
        identity_fp32(), identity_all(), string_identity(), add_sub(), variable_shape(),
        tiny_mlp(), unbatched_softmax(), fixed_shape(), fixed_rows(), scalar_out(), gather(),
        accumulator(), history(), optional(), optional_uneven(), optional_alone(), ragged(),
        misdeclared(), handed_through(), constant_out(), branches(),
        optional_sum(), optional_ragged(),
    ]:
        path = HERE / model.graph.name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        print(f"{path.relative_to(HERE)}: {path.stat().st_size} bytes")


def identity_fp32():
    """Answers what it was asked, so that a test knows which rows are whose."""
    return model(
        "identity_fp32",
        [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])],
        [value("INPUT0", "FLOAT", ["batch", "n"])],
        [value("OUTPUT0", "FLOAT", ["batch", "n"])],
    )


def identity_all():
    """Answers what it was asked in every element type, of which a request has to give all."""
    names = [PROTOCOL_NAMES.get(dtype, dtype.lower()) for dtype in DTYPES]
    return model(
        "identity_all",
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in names],
        [value(f"in_{name}", dtype, ["batch", 2]) for name, dtype in zip(names, DTYPES)],
        [value(f"out_{name}", dtype, ["batch", 2]) for name, dtype in zip(names, DTYPES)],
    )


def string_identity():
    """Strings alone: their elements have no fixed size, on the wire or in a batch."""
    return model(
        "string_identity",
        [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])],
        [value("INPUT0", "STRING", ["batch", 1])],
        [value("OUTPUT0", "STRING", ["batch", 1])],
    )


def add_sub():
    """Two inputs and two outputs, as the "simple" model in Triton's client examples."""
    return model(
        "add_sub",
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [value(name, "INT32", ["batch", 16]) for name in ["INPUT0", "INPUT1"]],
        [value(name, "INT32", ["batch", 16]) for name in ["OUTPUT0", "OUTPUT1"]],
    )


def variable_shape():
    """Rows of a length that varies: only those of one length can be in one batch."""
    return model(
        "variable_shape",
        [
            helper.make_node("Mul", ["x", "two"], ["y"]),
            helper.make_node("ReduceSum", ["x", "along_sequence"], ["sum"], keepdims=0),
        ],
        [value("x", "FLOAT", ["batch", "sequence"])],
        [value("y", "FLOAT", ["batch", "sequence"]), value("sum", "FLOAT", ["batch"])],
        {"two": numpy.float32(2), "along_sequence": numpy.array([1], numpy.int64)},
    )


def fixed_rows():
    """Four rows at a time, as an engine with one profile takes them."""
    return model(
        "fixed_rows",
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        [value("x", "FLOAT", [4, 3])],
        [value("y", "FLOAT", [4, 3])],
        {"two": numpy.float32(2)},
    )


def tiny_mlp():
    """Arithmetic that batching could upset: each row's answer depends on all of that row."""
    random = numpy.random.default_rng(20)

    def weights(*shape):
        return random.uniform(-0.5, 0.5, shape).astype(numpy.float32)

    return model(
        "tiny_mlp",
        [
            helper.make_node("Gemm", ["x", "weight0", "bias0"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "weight1", "bias1"], ["y"]),
        ],
        [value("x", "FLOAT", ["batch", 16])],
        [value("y", "FLOAT", ["batch", 4])],
        {
            "weight0": weights(16, 32), "bias0": weights(32),
            "weight1": weights(32, 4), "bias1": weights(4),
        },
    )


def unbatched_softmax():
    """A first dimension that varies but does not count rows: its elements depend on each other."""
    return model(
        "unbatched_softmax",
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
        [value("x", "FLOAT", ["n"])],
        [value("y", "FLOAT", ["n"])],
    )


def fixed_shape():
    """No dimension that varies, so nothing to batch along."""
    return model(
        "fixed_shape",
        [helper.make_node("Neg", ["x"], ["y"])],
        [value("x", "FLOAT", [2, 3])],
        [value("y", "FLOAT", [2, 3])],
    )


def scalar_out():
    """An output without dimensions, which still has one element."""
    return model(
        "scalar_out",
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        [value("x", "FLOAT", [3])],
        [value("y", "FLOAT", [])],
    )


def gather():
    """Rows looked up in a table of four: an index beyond it fails in the middle of a batch."""
    return model(
        "gather",
        [helper.make_node("Gather", ["table", "indices"], ["y"])],
        [value("indices", "INT64", ["batch", 1])],
        [value("y", "FLOAT", ["batch", 1, 2])],
        {"table": numpy.arange(8, dtype=numpy.float32).reshape(4, 2)},
    )


def accumulator():
    """Adds up a sequence of numbers below 100, and shows what it is told: 1 for the first, 2 for
    the last, 4 for a request that is there. A larger number fails in the middle of a batch."""
    return model(
        "accumulator",
        [
            helper.make_node("Gather", ["table", "x"], ["amount"]),
            helper.make_node("Cast", ["START"], ["first"], to=TensorProto.BOOL),
            helper.make_node("Where", ["first", "zero", "kept"], ["before"]),
            helper.make_node("Add", ["before", "amount"], ["kept_out"]),
            helper.make_node("Identity", ["kept_out"], ["sum"]),
            helper.make_node("Cast", ["END"], ["last"], to=TensorProto.INT32),
            helper.make_node("Cast", ["READY"], ["there"], to=TensorProto.INT32),
            helper.make_node("Mul", ["last", "two"], ["second"]),
            helper.make_node("Mul", ["there", "four"], ["third"]),
            helper.make_node("Add", ["START", "second"], ["both"]),
            helper.make_node("Add", ["both", "third"], ["told"]),
            helper.make_node("Identity", ["CORRID"], ["corrid"]),
        ],
        [
            value("x", "INT64", ["batch", 1]), value("START", "INT32", ["batch", 1]),
            value("END", "BOOL", ["batch", 1]), value("READY", "FLOAT", ["batch", 1]),
            value("CORRID", "UINT64", ["batch", 1]), value("kept", "FLOAT", ["batch", 1]),
        ],
        [
            value("sum", "FLOAT", ["batch", 1]), value("told", "INT32", ["batch", 1]),
            value("corrid", "UINT64", ["batch", 1]), value("kept_out", "FLOAT", ["batch", 1]),
        ],
        {
            "table": numpy.arange(100, dtype=numpy.float32), "zero": numpy.float32(0),
            "two": numpy.int32(2), "four": numpy.int32(4),
        },
    )


def history():
    """Keeps everything that a sequence has sent: a state that grows, from nothing."""
    return model(
        "history",
        [
            helper.make_node("Concat", ["kept", "x"], ["kept_out"], axis=1),
            helper.make_node("Identity", ["CORRID"], ["corrid"]),
        ],
        [
            value("x", "FLOAT", ["batch", 1]), value("CORRID", "STRING", ["batch"]),
            value("kept", "FLOAT", ["batch", "length"]),
        ],
        [value("kept_out", "FLOAT", ["batch", "longer"]), value("corrid", "STRING", ["batch"])],
    )


def optional():
    """Two inputs for which the graph has a value, the same for every row."""
    return model(
        "optional",
        [
            helper.make_node("Mul", ["x", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["y"]),
        ],
        [
            value("x", "FLOAT", ["batch", 4]), value("scale", "FLOAT", ["batch", 4]),
            value("shift", "FLOAT", ["batch", 1]),
        ],
        [value("y", "FLOAT", ["batch", 4])],
        {
            "scale": numpy.array([[1, 2, 3, 4]], numpy.float32),
            "shift": numpy.array([[0.5]], numpy.float32),
        },
    )


def optional_uneven():
    """What the graph has in place of an input has two rows, so that no number of rows is right for all."""
    return model(
        "optional_uneven",
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        [value("x", "FLOAT", ["batch", 4]), value("scale", "FLOAT", ["batch", 4])],
        [value("y", "FLOAT", ["batch", 4])],
        {"scale": numpy.array([[1, 2, 3, 4], [5, 6, 7, 8]], numpy.float32)},
    )


def optional_alone():
    """An input that has a value in the graph, and no rows: requests that bring it run alone."""
    return model(
        "optional_alone",
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        [value("x", "FLOAT", ["batch", 4]), value("scale", "FLOAT", [4])],
        [value("y", "FLOAT", ["batch", 4])],
        {"scale": numpy.array([1, 2, 3, 4], numpy.float32)},
    )


def optional_sum():
    """Adds up a sequence of numbers, each times a factor for which the graph has a value."""
    return model(
        "optional_sum",
        [
            helper.make_node("Mul", ["x", "factor"], ["amount"]),
            helper.make_node("Add", ["kept", "amount"], ["kept_out"]),
            helper.make_node("Identity", ["kept_out"], ["sum"]),
        ],
        [
            value("x", "FLOAT", ["batch", 1]), value("factor", "FLOAT", ["batch", 1]),
            value("kept", "FLOAT", ["batch", 1]),
        ],
        [value("sum", "FLOAT", ["batch", 1]), value("kept_out", "FLOAT", ["batch", 1])],
        {"factor": numpy.array([[10]], numpy.float32)},
    )


def optional_ragged():
    """The sum of each of the requests that are laid end to end, times a factor for which the graph has a value."""
    return model(
        "optional_ragged",
        [
            helper.make_node("CumSum", ["values", "axis0"], ["running"]),
            helper.make_node("Concat", ["zero", "running"], ["before"], axis=0),
            helper.make_node("Gather", ["before", "bounds"], ["at_bounds"]),
            helper.make_node("Slice", ["at_bounds", "one", "end"], ["upper"]),
            helper.make_node("Slice", ["at_bounds", "start", "last"], ["lower"]),
            helper.make_node("Sub", ["upper", "lower"], ["sums"]),
            helper.make_node("Unsqueeze", ["sums", "one"], ["tall"]),
            helper.make_node("Mul", ["tall", "factor"], ["sum"]),
        ],
        [
            value("values", "FLOAT", ["total"]), value("bounds", "INT32", ["bounds"]),
            value("factor", "FLOAT", ["batch", 1]),
        ],
        [value("sum", "FLOAT", ["batch", 1])],
        {
            "zero": numpy.array([0], numpy.float32), "axis0": numpy.int64(0),
            "start": numpy.array([0], numpy.int64), "one": numpy.array([1], numpy.int64),
            "last": numpy.array([-1], numpy.int64), "end": numpy.array([1 << 40], numpy.int64),
            "factor": numpy.array([[10]], numpy.float32),
        },
    )


def ragged():
    """Requests laid end to end, and told apart in each of the ways there are: what each output of a request
    is depends on that request alone."""
    return model(
        "ragged",
        [
            helper.make_node("Mul", ["values", "two"], ["doubled"]),
            helper.make_node("CumSum", ["values", "axis0"], ["running"]),
            helper.make_node("Concat", ["zero", "running"], ["before"], axis=0),
            helper.make_node("Gather", ["before", "bounds"], ["at_bounds"]),
            helper.make_node("Slice", ["at_bounds", "one", "end"], ["upper"]),
            helper.make_node("Slice", ["at_bounds", "start", "last"], ["lower"]),
            helper.make_node("Sub", ["upper", "lower"], ["sum"]),
            helper.make_node("Cast", ["ends"], ["whole_ends"], to=TensorProto.INT32),
            helper.make_node("Sub", ["whole_ends", "counts"], ["starts"]),
            helper.make_node("Gather", ["before", "whole_ends"], ["at_ends"]),
            helper.make_node("Gather", ["before", "starts"], ["at_starts"]),
            helper.make_node("Sub", ["at_ends", "at_starts"], ["same_sum"]),
            # As many columns as the longest has elements, of which each has its own.
            helper.make_node("Shape", ["longest"], ["columns"]),
            helper.make_node("Squeeze", ["columns", "start"], ["width"]),
            helper.make_node("Range", ["nought", "width", "step"], ["numbers"]),
            helper.make_node("Unsqueeze", ["counts", "one"], ["tall"]),
            helper.make_node("Cast", ["tall"], ["limits"], to=TensorProto.INT64),
            helper.make_node("Less", ["numbers", "limits"], ["own"]),
            helper.make_node("Cast", ["own"], ["ones"], to=TensorProto.INT64),
            helper.make_node("ReduceSum", ["ones", "one"], ["count"], keepdims=0),
            helper.make_node("Identity", ["shapes"], ["shape"]),
            helper.make_node("Reshape", ["flat", "pairs"], ["same_shape"]),
        ],
        [
            value("values", "FLOAT", ["total"]), value("counts", "INT32", ["batch"]),
            value("ends", "FLOAT", ["batch"]), value("bounds", "INT32", ["bounds"]),
            value("longest", "FLOAT", ["longest"]), value("shapes", "INT32", ["batch", 2]),
            value("flat", "INT32", ["flat"]),
        ],
        [
            value("doubled", "FLOAT", ["total"]), value("sum", "FLOAT", ["batch"]),
            value("same_sum", "FLOAT", ["batch"]), value("count", "INT64", ["batch"]),
            value("shape", "INT32", ["batch", 2]), value("same_shape", "INT32", ["batch", 2]),
        ],
        {
            "two": numpy.float32(2), "zero": numpy.array([0], numpy.float32), "axis0": numpy.int64(0),
            "start": numpy.array([0], numpy.int64), "one": numpy.array([1], numpy.int64),
            "last": numpy.array([-1], numpy.int64), "end": numpy.array([1 << 40], numpy.int64),
            "nought": numpy.int64(0), "step": numpy.int64(1), "pairs": numpy.array([-1, 2], numpy.int64),
        },
    )


def misdeclared():
    """Says that a row has four columns, and gives as many as its largest number."""
    return model(
        "misdeclared",
        [
            helper.make_node("ReduceMax", ["x"], ["most"], axes=[0, 1], keepdims=0),
            helper.make_node("Cast", ["most"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Unsqueeze", ["whole", "start"], ["end"]),
            helper.make_node("Slice", ["x", "start", "end", "axis"], ["y"]),
        ],
        [value("x", "FLOAT", ["batch", 4])],
        [value("y", "FLOAT", ["batch", 4])],
        {"start": numpy.array([0], numpy.int64), "axis": numpy.array([1], numpy.int64)},
    )


def handed_through():
    """An output that is an input, which no operator writes."""
    return model(
        "handed_through",
        [helper.make_node("Neg", ["x"], ["y"])],
        [value("x", "FLOAT", ["batch", 4])],
        [value("x", "FLOAT", ["batch", 4]), value("y", "FLOAT", ["batch", 4])],
    )


def constant_out():
    """An output that is a constant, which no operator writes."""
    return model(
        "constant_out",
        [helper.make_node("Neg", ["x"], ["y"])],
        [value("x", "FLOAT", ["batch", 4])],
        [value("y", "FLOAT", ["batch", 4]), value("table", "FLOAT", [2, 3])],
        {"table": numpy.arange(6, dtype=numpy.float32).reshape(2, 3)},
    )


def branches():
    """Answers what it was asked, or a constant that is a branch's output as it is."""
    table = numpy_helper.from_array(numpy.array([[9, 8, 7, 6]], numpy.float32), "table")
    then = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["same"])], "then", [], [value("same", "FLOAT", ["batch", 4])])
    other = helper.make_graph([], "other", [], [value("table", "FLOAT", [1, 4])], [table])
    return model(
        "branches",
        [
            helper.make_node("ReduceMax", ["x"], ["most"], axes=[0, 1], keepdims=0),
            helper.make_node("Greater", ["most", "zero"], ["positive"]),
            helper.make_node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
        ],
        [value("x", "FLOAT", ["batch", 4])],
        [value("y", "FLOAT", ["batch", 4])],
        {"zero": numpy.float32(0)},
    )


def value(name, dtype, shape):
    """An input or output; a dimension given as text varies, under that name."""
    return helper.make_tensor_value_info(name, TensorProto.DataType.Value(dtype), shape)


def model(name, nodes, inputs, outputs, constants=None):
    """A checked model of these nodes, whose doc string is its maker's."""
    graph = helper.make_graph(
        nodes, name, inputs, outputs,
        [numpy_helper.from_array(numpy.asarray(array), constant)
         for constant, array in (constants or {}).items()],
        doc_string=globals()[name].__doc__,
    )
    made = helper.make_model(
        graph, producer_name="jitney-tests", ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)])
    checker.check_model(made, full_check=True)
    return made


if __name__ == "__main__":
    main()
