#!/usr/bin/env python3
"""Makes the sample model: which of the ten digits an 8x8 image shows.

A model for trying the server out should be small enough to keep in the repository, and real enough
that its answers can be checked by eye. This one is trained with scikit-learn and exported as
anyone's would be; the images that it never saw are written beside this file, with their labels, so
that a client can show what share of them the server gets right.

The images come with scikit-learn: "Optical Recognition of Handwritten Digits", E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0.
"""

import csv
from pathlib import Path

import numpy
from onnx import checker
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "models" / "digits" / "1" / "model.onnx"
HELDOUT = HERE / "heldout.csv"

PIXELS = 64
BRIGHTEST = 16
SEED = 20
DECIMALS = 5


def main():
    digits = load_digits()
    trained_on, heldout, trained_labels, heldout_labels = train_test_split(
        digits.data, digits.target,
        test_size=360, stratify=digits.target, random_state=SEED)

    # The scaling belongs to the model, so that clients send pixels as they are.
    scaler = MaxAbsScaler().fit(numpy.full((1, PIXELS), BRIGHTEST))
    network = MLPClassifier(hidden_layer_sizes=(128,), alpha=1e-3, max_iter=300, random_state=SEED)
    # One thread adds in one order; what else differs between runs and machines, in the last digits
    # of 64 bits, goes when the weights are rounded. So a second run writes the same file.
    with threadpool_limits(1):
        network.fit(scaler.transform(trained_on), trained_labels)
    network.coefs_ = [weights.round(DECIMALS) for weights in network.coefs_]
    network.intercepts_ = [biases.round(DECIMALS) for biases in network.intercepts_]
    classifier = make_pipeline(scaler, network)
    print(f"accuracy on the {len(heldout)} held-out images: "
          f"{classifier.score(heldout, heldout_labels):.4f}")

    model = export(classifier)
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    MODEL.write_bytes(model.SerializeToString(deterministic=True))
    with open(HELDOUT, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["label"] + [f"pixel_{index}" for index in range(PIXELS)])
        for label, image in zip(heldout_labels, heldout.astype(int)):
            table.writerow([label, *image])
    print(f"the model has {MODEL.stat().st_size} bytes")


def export(classifier):
    """The classifier as an ONNX model, whose dimensions have names."""
    model = to_onnx(
        classifier,
        initial_types=[("image", FloatTensorType([None, PIXELS]))],
        # Without this, the probabilities are a list of maps, which is no tensor.
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
        name="digits",
    )
    # The first dimension has one name throughout: that tells the server that it counts
    # independent images, so that images of several requests can go in one batch.
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.doc_string = "The digit that an 8x8 image shows; pixels from 0 to 16."
    checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    main()
