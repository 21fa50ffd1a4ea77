"""What the server and its console print can be pasted, whatever it takes to be let in."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import requests

from pki import Pki, bearer, token
from server import HANG, Server


def paste(line, **variables):
    """What a shell says to a line as it stands, in another folder than the server's."""
    line = line.strip().replace("python3", sys.executable, 1)
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=HANG, cwd="/",
                          env={**os.environ, **variables})
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def assert_answered(by_grpcurl, by_python, by_curl, **variables):
    assert json.loads(paste(by_grpcurl, **variables))["modelName"] == "echo"
    assert paste(by_python, **variables) == "[[1.]]\n"
    if shutil.which("curl"):
        assert json.loads(paste(by_curl, **variables))["model_name"] == "echo"


def invited(server, words):
    """The lines below the invitation."""
    [at] = [at for at, line in enumerate(server.said) if line.startswith("try it")]
    assert server.said[at] == f"try it{words}:"
    return server.said[at + 1:at + 4]


# What the certificate names, and how the address is called instead.
@pytest.mark.parametrize("names", [["127.0.0.1", "localhost"], ["jitney.test", "10.0.0.1"]])
def test_with_tls_and_a_token(echo, tmp_path, names):
    pki = Pki(tmp_path)
    pki.issue(tmp_path / "tls", *names)
    secret, line = token("somebody", "infer", "observe")
    identity = tmp_path / "identity.toml"
    identity.write_text(line)
    with Server(echo, *pki.flags, "--identity", identity) as server:
        lines = invited(server, ", with TOKEN to a token of the role infer")
        assert_answered(*lines, TOKEN=secret)
        said = requests.get(f"https://{server.address}/console/example?model=echo", timeout=HANG,
                            headers=bearer(secret), verify=pki.ca if "localhost" in names else False)
        shown = said.json()
        assert_answered(shown["grpcurl"], shown["python"], shown["curl"], TOKEN=secret)


def test_with_certificates_of_both_sides(echo, pki, tmp_path):
    identity = tmp_path / "identity.toml"
    identity.write_text(
        '[[certificates]]\nname = "a"\nsan = "spiffe.test"\nroles = ["infer"]\n')
    flags = [*pki.flags, "--tls-client-ca", pki.ca]
    certificate, key = map(str, pki.client)
    with Server(echo, *flags, "--identity", identity) as server:
        lines = invited(server, ", with CERT and KEY to the paths of a client's certificate")
        assert_answered(*lines, CERT=certificate, KEY=key)


def test_with_a_token_alone(echo, tmp_path):
    secret, line = token("somebody", "infer")
    identity = tmp_path / "identity.toml"
    identity.write_text(line)
    with Server(echo, "--identity", identity) as server:
        lines = invited(server, ", with TOKEN to a token of the role infer")
        assert_answered(*lines, TOKEN=secret)
