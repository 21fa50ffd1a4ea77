"""Tensors as the client library takes and gives them."""

import ml_dtypes
import numpy
import tritonclient.grpc as triton

# Every element type of the protocol, with values at the edges of its range.
VALUES = {
    "BOOL": numpy.array([[True, False]]),
    "UINT8": numpy.array([[0, 2**8 - 1]], numpy.uint8),
    "UINT16": numpy.array([[0, 2**16 - 1]], numpy.uint16),
    "UINT32": numpy.array([[0, 2**32 - 1]], numpy.uint32),
    "UINT64": numpy.array([[0, 2**64 - 1]], numpy.uint64),
    "INT8": numpy.array([[-2**7, 2**7 - 1]], numpy.int8),
    "INT16": numpy.array([[-2**15, 2**15 - 1]], numpy.int16),
    "INT32": numpy.array([[-2**31, 2**31 - 1]], numpy.int32),
    "INT64": numpy.array([[-2**63, 2**63 - 1]], numpy.int64),
    "FP16": numpy.array([[-65504, 6e-8]], numpy.float16),
    "BF16": numpy.array([[-1.5, 2.0**100]], ml_dtypes.bfloat16),
    "FP32": numpy.array([[-numpy.inf, 1e-45]], numpy.float32),
    "FP64": numpy.array([[numpy.pi, -5e-324]], numpy.float64),
    # The second is not UTF-8, and ends in a zero.
    "BYTES": numpy.array([[b"", b"\xff jitney \x00"]], object),
}


def given(name, array, datatype=None):
    """An input of this name."""
    datatype = datatype or triton.np_to_triton_dtype(array.dtype)
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def every_type():
    """The inputs of identity_all."""
    return [given(f"in_{name.lower()}", array, name) if name != "BYTES"
            else given("in_string", array, name) for name, array in VALUES.items()]


def output_of(datatype):
    """The name of identity_all's output of a type."""
    return "out_string" if datatype == "BYTES" else f"out_{datatype.lower()}"
