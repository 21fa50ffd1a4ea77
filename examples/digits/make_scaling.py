#!/usr/bin/env python3
"""Makes the model that turns photographs into what the digits model was trained on.

Cameras give eight bits a pixel, dark ink on light paper; the images of the digits model are light
ink on dark paper, with pixels from 0 to 16. This is the step before it in the ensemble
`digits_photo`: small, and different from what it feeds, as such steps are.
"""

from pathlib import Path

import numpy
from onnx import TensorProto, checker, helper, numpy_helper

MODEL = Path(__file__).resolve().parents[1] / "models" / "digits_scaling" / "1" / "model.onnx"

# As old as those of tests/models/make.py.
OPSET = 17
IR_VERSION = 8

SIDE = 8
LIGHTEST = 255
BRIGHTEST = 16


def main():
    constants = {
        "lightest": numpy.float32(LIGHTEST),
        "unit": numpy.float32(BRIGHTEST / LIGHTEST),
        "flat": numpy.array([0, SIDE * SIDE], numpy.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["photo"], ["light"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["lightest", "light"], ["ink"]),
            helper.make_node("Mul", ["ink", "unit"], ["scaled"]),
            helper.make_node("Reshape", ["scaled", "flat"], ["image"]),
        ],
        "digits_scaling",
        [helper.make_tensor_value_info("photo", TensorProto.UINT8, ["batch", SIDE, SIDE])],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", SIDE * SIDE])],
        [numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()],
        doc_string="8x8 photographs of dark ink, 0 to 255, as images of the digits model.",
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        producer_name="jitney")
    checker.check_model(model, full_check=True)
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    MODEL.write_bytes(model.SerializeToString(deterministic=True))
    print(f"the scaling has {MODEL.stat().st_size} bytes")


if __name__ == "__main__":
    main()
