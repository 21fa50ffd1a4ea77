"""Servers that tests share, for those that change nothing in them."""

import shutil

import pytest

from pki import Pki
from server import ROOT, Server, simulated


@pytest.fixture(scope="session")
def server():
    """Serves the small models of tests/models."""
    with Server(ROOT / "tests" / "models") as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def examples():
    """Serves the sample models: the digits, and the sentence encoder."""
    with Server(ROOT / "examples" / "models") as server:
        yield server


@pytest.fixture
def repository(tmp_path):
    """An empty repository."""
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def add(repository):
    """Copies one of the small models into the test's own repository, as a version of a name."""

    def add(model, name=None, version=1):
        made = ROOT / "tests" / "models" / model / "1"
        shutil.copytree(made, repository / (name or model) / str(version))

    return add


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path)


@pytest.fixture
def echo(repository):
    simulated(repository, "echo")
    return repository
