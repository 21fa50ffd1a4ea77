"""The classification extension, against numpy."""

import numpy
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from server import Server
from test_shared_memory import connect

ROWS = numpy.array([[0.1, 0.7, numpy.nan, -3, 0.7], [5, 4, 3, 2, 1]], numpy.float32)


def expected(row, count, labels=()):
    """The largest first, equal ones by their index, what is no number last."""
    order = numpy.argsort(-row, kind="stable")[:count]
    texts = []
    for index in order:
        label = f":{labels[index]}" if index < len(labels) and labels[index] else ""
        texts.append(f"{row[index]:.6f}:{index}{label}".encode())
    return texts


@pytest.fixture(params=[triton_grpc, triton_http])
def triton(request):
    return request.param


def classify(triton, server, model, array, count, datatype="FP32", names=("INPUT0", "OUTPUT0")):
    with connect("grpc" if triton is triton_grpc else "http", server) as client:
        tensor = triton.InferInput(names[0], list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        output = triton.InferRequestedOutput(names[1], class_count=count)
        return client.infer(model, [tensor], outputs=[output]).as_numpy(names[1])


@pytest.mark.parametrize("count", [1, 3, 5, 100])
def test_each_rows_largest(triton, server, count):
    classes = classify(triton, server, "identity_fp32", ROWS, count)
    assert classes.shape == (2, min(count, 5))
    for row, told in zip(ROWS, classes):
        assert list(told) == expected(row, count)


def test_models_without_rows_have_one_list(triton, server):
    array = numpy.array([1, 3, 2], numpy.float32)
    classes = classify(triton, server, "unbatched_softmax", array, 2, names=("x", "y"))
    softmax = numpy.exp(array) / numpy.exp(array).sum()
    assert [text.split(b":")[1] for text in classes] == [b"1", b"2"]
    assert [float(text.split(b":")[0]) for text in classes] == pytest.approx(softmax[[1, 2]], abs=1e-5)


def test_labels(triton, add, repository):
    add("identity_fp32")
    folder = repository / "identity_fp32"
    labels = ["zero", "one", "", "a: three"]
    (folder / "labels.txt").write_text("\n".join(labels))
    (folder / "model.toml").write_text('[labels]\nOUTPUT0 = "labels.txt"\n')
    with Server(repository) as server:
        classes = classify(triton, server, "identity_fp32", ROWS, 5)
        for row, told in zip(ROWS, classes):
            assert list(told) == expected(row, 5, labels)
        with server.client() as client:
            [output] = client.get_model_config("identity_fp32").config.output
            assert output.label_filename == "labels.txt"


def test_strings_are_no_classes(triton, server):
    words = numpy.array([[b"a"]], object)
    with pytest.raises(InferenceServerException) as error:
        classify(triton, server, "string_identity", words, 1, datatype="BYTES")
    assert "only numbers can be classified" in str(error.value)
