"""Servers that tests share, for those that change nothing in them."""

import shutil
import subprocess

import pytest

from pki import Pki
from server import ROOT, Server, simulated
from store import QUICK, Store


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


@pytest.fixture
def bucket(tmp_path):
    """The folder that the store serves as a bucket."""
    folder = tmp_path / "store" / "bucket"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def store(bucket):
    with Store(bucket.parent) as store:
        yield store


@pytest.fixture
def serve(store, tmp_path):
    """Starts a server on the store's repository, with a cache that the test's servers share."""

    def serve(*flags, control="watch", store=store, scheme="http", environment=None):
        return Server(
            store.url("at", scheme), "--model-control", control,
            "--cache-dir", tmp_path / "cache", *QUICK, *flags,
            environment={**store.environment(scheme), **(environment or {})})

    return serve


@pytest.fixture
def small_cache(tmp_path):
    """The cache's folder, on a file system of two megabytes."""
    folder = tmp_path / "cache"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
