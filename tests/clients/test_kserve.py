"""KServe's Python clients, over REST and gRPC: in an environment of their own, whose pins are not ours."""

import json
import subprocess

import pytest

from server import HANG, ROOT

VENV = ROOT / ".jitney" / "venv-kserve"
OUTPUTS = {"OUTPUT0": [[number + 3 for number in range(16)]],
           "OUTPUT1": [[number - 3 for number in range(16)]]}


@pytest.fixture(scope="module")
def seen(server):
    if not list(VENV.glob("lib/python*/site-packages/kserve")):
        pytest.skip("KServe's client is not installed: make venv-kserve, by a Python before 3.14")
    done = subprocess.run(
        [VENV / "bin" / "python", ROOT / "tests" / "clients" / "kserve" / "client.py", f"http://{server.address}",
         server.address], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_sees_who_is_there(seen, protocol):
    assert [seen[protocol][what] for what in ["live", "ready", "model"]] == [True] * 3


@pytest.mark.parametrize("form", ["json", "raw"])
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_gets_what_it_asked_for(seen, protocol, form):
    assert seen[protocol][form] == {"model": "add_sub", "id": "one", "outputs": OUTPUTS}


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_is_told_what_is_not_there(seen, protocol):
    assert "Request for unknown model" in seen[protocol]["nowhere"]
