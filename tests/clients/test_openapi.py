"""The document that describes the routes: valid, and what the server does, whatever it is sent."""

import json
import subprocess
import sys

import pytest
import requests
from openapi_spec_validator import OpenAPIV31SpecValidator

from server import HANG, Server, simulated

# Beyond documented statuses and bodies: a 500 is documented nowhere.
CHECKS = ("status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,allow_header_conformance")


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """A server whose model nobody can unload, or a fuzzer soon finds none."""
    repository = tmp_path_factory.mktemp("models")
    simulated(repository, "m")
    with Server(repository) as server:
        yield server


@pytest.fixture(scope="module")
def document(echo):
    return requests.get(f"http://{echo.address}/v2/openapi.json", timeout=HANG).json()


def test_the_document_is_valid(document):
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


def test_a_fuzzer_finds_nothing(echo, document, tmp_path):
    """Names are drawn from those that there are, too, or hardly a request would get far."""
    parameters = document["components"]["parameters"]
    parameters["model"]["examples"] = {"there": {"value": "m"}}
    parameters["version"]["examples"] = {"there": {"value": "1"}}
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]
    for path, item in document["paths"].items():
        if path.endswith("/infer"):
            content = item["post"]["requestBody"]["content"]["application/json"]
            content["examples"] = {"echo": {"value": {"inputs": inputs}}}
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document))
    fuzzer = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", file, "--url", f"http://{echo.address}",
         "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "10",
         "--seed", "1", "--no-shrink", "--continue-on-failure", "--request-timeout", "30",
         "--suppress-health-check", "all", "--warnings", "off", "--no-color"],
        capture_output=True, text=True, timeout=10 * HANG, cwd=tmp_path)
    assert fuzzer.returncode == 0, fuzzer.stdout[-8000:] + fuzzer.stderr[-2000:]
    statistics = requests.get(f"http://{echo.address}/v2/models/m/stats", timeout=HANG).json()
    assert statistics["model_stats"][0]["inference_stats"]["success"]["count"] > 0
