"""grpcurl without a proto file: reflection, health, inference in JSON, and what the server prints."""

import base64
import json
import shutil
import subprocess
import sys

import pytest

from server import HANG

SERVICE = "inference.GRPCInferenceService"


def grpcurl(address, *arguments, data=None):
    given = ["-d", json.dumps(data)] if data is not None else []
    return subprocess.run(
        ["grpcurl", "-plaintext", *given, address, *arguments],
        capture_output=True, text=True, timeout=HANG)


def answer(server, method, data=None):
    done = grpcurl(server.address, method, data=data or {})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_reflection_lists_and_describes(server):
    services = grpcurl(server.address, "list").stdout.split()
    assert SERVICE in services
    assert "grpc.health.v1.Health" in services
    methods = grpcurl(server.address, "list", SERVICE).stdout
    assert f"{SERVICE}.ModelStreamInfer" in methods
    described = grpcurl(server.address, "describe", "inference.ModelInferRequest").stdout
    assert "repeated bytes raw_input_contents = 7;" in described


@pytest.mark.parametrize("service", ["", SERVICE, "add_sub"])
def test_health(server, service):
    health = answer(server, "grpc.health.v1.Health/Check", {"service": service})
    assert health == {"status": "SERVING"}


def test_health_of_an_unknown_model(server):
    done = grpcurl(server.address, "grpc.health.v1.Health/Check", data={"service": "nowhere"})
    assert done.returncode != 0
    assert "NotFound" in done.stderr


def test_inference_in_json(server):
    row = list(range(16))
    tensors = [{"name": name, "datatype": "INT32", "shape": [1, 16],
                "contents": {"int_contents": row}} for name in ["INPUT0", "INPUT1"]]
    said = answer(server, f"{SERVICE}/ModelInfer", {"model_name": "add_sub", "inputs": tensors})
    assert said["modelName"] == "add_sub"
    sums = base64.b64decode(said["rawOutputContents"][0])
    doubled = b"".join((2 * number).to_bytes(4, "little") for number in row)
    assert sums == doubled


def test_lines_that_the_server_prints_can_be_pasted(examples):
    """As they stand, into a shell that finds grpcurl, curl and a Python with tritonclient."""
    lines = examples.said[examples.said.index("try it:") + 1:]
    by_grpcurl, by_python, by_curl = [line.strip() for line in lines[:3]]
    assert by_grpcurl.startswith("grpcurl ")
    assert by_python.startswith("python3 -c ")
    assert by_curl.startswith("curl -s ")
    if shutil.which("curl"):
        assert json.loads(paste(by_curl))["model_name"] == "digits"
    done = paste(by_grpcurl)
    assert json.loads(done)["modelName"] == "digits"
    digit = paste(by_python.replace("python3", sys.executable, 1))
    assert digit.strip("[]\n ").isdigit()


def paste(line):
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    return done.stdout
