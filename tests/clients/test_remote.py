"""Repositories in a store that speaks S3, or WebDAV, and the cache that stands in for it."""

import os
import shutil
import socket
import socketserver
import subprocess
import threading
import time

import numpy
import pytest
from tritonclient.utils import InferenceServerException

from server import BINARY, HANG, ROOT, Server
from store import PROGRAM, Store
from tensors import given

MODEL = ROOT / "tests" / "models" / "identity_fp32" / "1" / "model.onnx"
QUICK = ["--repository-rest-ms", "100", "--watch-interval-ms", "50"]

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no rclone for this machine")


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

    def serve(*flags, control="watch", store=store, scheme="http"):
        return Server(
            store.url("at", scheme), "--model-control", control,
            "--cache-dir", tmp_path / "cache", *QUICK, *flags,
            environment=store.environment(scheme))

    return serve


def put(bucket, path, content=None):
    """Uploads one object, in one step."""
    path = bucket / "at" / path
    path.parent.mkdir(parents=True, exist_ok=True)
    desk = bucket.parent.parent / "desk"
    desk.write_bytes(MODEL.read_bytes() if content is None else content)
    desk.rename(path)


def answers(client, version):
    numbers = numpy.array([[1.0, 2.5]], numpy.float32)
    answer = client.infer("m", [given("INPUT0", numbers)])
    assert answer.get_response().model_version == version
    assert (answer.as_numpy("OUTPUT0") == numbers).all()


def until(what, holds):
    """Waits for what the server tells nobody."""
    end = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


def state(client, version):
    index = client.get_model_repository_index().models
    found = [entry for entry in index if (entry.name, entry.version) == ("m", version)]
    return found[0] if found else None


def test_serves_from_a_bucket_and_follows_it(bucket, serve):
    put(bucket, "m/1/model.onnx")
    with serve() as server, server.client() as client:
        assert client.is_server_ready()
        answers(client, "1")
        put(bucket, "m/model.toml", b"max_batch_size = 7\n")
        put(bucket, "m/2/model.onnx")
        until("version 2", lambda: client.is_model_ready("m", "2"))
        answers(client, "2")
        until("the policy", lambda: client.get_model_config("m").config.max_batch_size == 7)
        shutil.rmtree(bucket / "at" / "m")
        until("the model goes", lambda: not client.is_model_ready("m"))
        put(bucket, "m/1/model.onnx")
        until("the model is back", lambda: client.is_model_ready("m", "1"))


def test_a_version_that_is_uploaded_in_part_is_not_loaded(bucket, serve):
    put(bucket, "m/1/model.onnx")
    with serve() as server, server.client() as client:
        put(bucket, "m/2/weights.bin", b"all but the model")
        # The store is looked at for a later model, so it was for this version too.
        put(bucket, "n/1/model.onnx")
        until("the other model", lambda: client.is_model_ready("n"))
        answers(client, "1")
        assert state(client, "2") is None
        put(bucket, "m/2/model.onnx")
        until("version 2", lambda: client.is_model_ready("m", "2"))


def test_a_broken_version_leaves_the_old_one_serving(bucket, serve):
    put(bucket, "m/1/model.onnx")
    with serve() as server, server.client() as client:
        put(bucket, "m/2/model.onnx", MODEL.read_bytes()[:-40])
        until("the index says why", lambda: getattr(state(client, "2"), "state", "") == "UNAVAILABLE")
        assert "m/2/model.onnx" in state(client, "2").reason
        answers(client, "1")
        put(bucket, "m/2/model.onnx")
        until("version 2", lambda: client.is_model_ready("m", "2"))


def test_serves_on_without_the_store_and_follows_it_when_it_is_back(bucket, store, serve):
    put(bucket, "m/1/model.onnx")
    with serve() as server, server.client() as client:
        store.stop()
        until("the log says so", lambda: "the store cannot be read" in server.logged())
        answers(client, "1")
        put(bucket, "m/2/model.onnx")
        store.start()
        until("version 2", lambda: client.is_model_ready("m", "2"))
        assert server.logged().count("the store cannot be read") == 1
        assert "the store answers again" in server.logged()


def test_starts_from_the_cache_without_the_store(bucket, store, serve):
    put(bucket, "m/model.toml", b"max_batch_size = 7\n")
    put(bucket, "m/1/model.onnx")
    with serve() as server:
        assert server.stop() == 0
    store.stop()
    for control in ["start", "watch"]:
        with serve(control=control) as server, server.client() as client:
            assert "SERVING FROM THE CACHE" in server.logged()
            assert client.is_server_ready()
            answers(client, "1")
            assert client.get_model_config("m").config.max_batch_size == 7
    with serve(control="explicit") as server, server.client() as client:
        client.load_model("m")
        answers(client, "1")
        with pytest.raises(InferenceServerException, match="s3://bucket/at"):
            client.load_model("n")


def test_what_was_corrupted_in_the_cache_is_fetched_again(bucket, serve, tmp_path):
    put(bucket, "m/1/model.onnx")
    serve().stop()
    [cached] = (tmp_path / "cache" / "objects").iterdir()
    cached.chmod(0o600)
    cached.write_bytes(bytes(len(MODEL.read_bytes())))
    with serve() as server, server.client() as client:
        answers(client, "1")
        assert "not what was put into the cache" in server.logged()
    assert cached.read_bytes() == MODEL.read_bytes()


def test_two_servers_share_a_cache_of_bounded_size(bucket, serve, tmp_path):
    size = len(MODEL.read_bytes())

    def model(number):
        # Each is a content of its own: a field that no reader of models knows.
        return MODEL.read_bytes() + bytes([0xFA, 0x7F, 1, number])

    def cached():
        return sum(path.stat().st_size for path in (tmp_path / "cache" / "objects").iterdir())

    bound = ["--cache-bytes", str(3 * (size + 4))]
    put(bucket, "m/1/model.onnx", model(1))
    with (serve(*bound) as one, serve(*bound) as other,
          one.client() as first, other.client() as second):
        assert cached() == size + 4
        for version in range(2, 7):
            put(bucket, f"m/{version}/model.onnx", model(version))
            for client in [first, second]:
                until(f"version {version}", lambda: client.is_model_ready("m", str(version)))
                answers(client, str(version))
            assert cached() <= 3 * (size + 4)
        # What is served is never evicted for what does not fit.
        put(bucket, "m/9/model.onnx", bytes(3 * (size + 4)))
        for server in [one, other]:
            until("the log says why", lambda: f"cache_bytes is {3 * (size + 4)}" in server.logged())
        answers(first, "6")
        answers(second, "6")
        assert cached() <= 3 * (size + 4)


def test_clients_load_what_they_ask_for(bucket, serve, tmp_path):
    put(bucket, "m/1/model.onnx")
    put(bucket, "n/1/model.onnx", MODEL.read_bytes() + bytes([0xFA, 0x7F, 0]))
    with serve(control="explicit") as server, server.client() as client:
        assert {entry.name for entry in client.get_model_repository_index().models} == {"m", "n"}
        assert list((tmp_path / "cache" / "objects").iterdir()) == []
        client.load_model("m")
        answers(client, "1")
        assert len(list((tmp_path / "cache" / "objects").iterdir())) == 1
        put(bucket, "m/2/model.onnx")
        client.load_model("m")
        answers(client, "2")
        with pytest.raises(InferenceServerException, match="no model"):
            client.load_model("nowhere")


def test_check_reads_a_bucket(bucket, store, tmp_path):
    put(bucket, "m/1/model.onnx")
    put(bucket, "wrong/1/model.onnx", b"not a model")

    def check():
        return subprocess.run(
            [BINARY, "check", store.url("at"), "--cache-dir", tmp_path / "cache", *QUICK],
            env={**os.environ, **store.environment()}, capture_output=True, text=True, timeout=HANG)

    checked = check()
    assert checked.returncode == 1
    assert "m version 1: INPUT0" in checked.stdout
    assert "wrong version 1: WRONG" in checked.stdout
    store.stop()
    # What is in the cache is not what was asked about.
    checked = check()
    assert checked.returncode == 1
    assert "s3://bucket/at: " in checked.stderr


def test_wrong_credentials_are_told(bucket, store, tmp_path):
    put(bucket, "m/1/model.onnx")
    checked = subprocess.run(
        [BINARY, "check", store.url("at"), "--cache-dir", tmp_path / "cache", *QUICK],
        env={**os.environ, **store.environment(), "AWS_ACCESS_KEY_ID": "other"},
        capture_output=True, text=True, timeout=HANG)
    assert checked.returncode == 1
    assert "s3://bucket/at: " in checked.stderr and "403" in checked.stderr, checked.stderr


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


def used(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_full_disk_is_told_and_leaves_nothing_behind(bucket, serve, small_cache):
    put(bucket, "m/1/model.onnx")
    put(bucket, "large/1/model.onnx")
    put(bucket, "large/1/weights.bin", os.urandom(4 << 20))
    with serve(control="explicit") as server, server.client() as client:
        client.load_model("m")
        before = used(small_cache)
        for _ in range(2):
            with pytest.raises(InferenceServerException, match="No space left on device") as error:
                client.load_model("large")
            assert str(small_cache) in error.value.message()
            assert not client.is_model_ready("large")
            until("nothing is left of it", lambda: used(small_cache) <= before + 4096)
        answers(client, "1")
        subprocess.run(["mount", "-o", "remount,size=16m", small_cache], check=True)
        client.load_model("large")
        assert client.is_model_ready("large", "1")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="nothing makes a certificate")
@pytest.mark.parametrize("protocol", ["s3", "webdav"])
def test_serves_over_tls(bucket, serve, tmp_path, monkeypatch, protocol):
    put(bucket, "m/1/model.onnx")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-addext", "basicConstraints=critical,CA:false", "-keyout", key, "-out", certificate],
        capture_output=True, timeout=HANG, check=True)
    with Store(bucket.parent, "--cert", certificate, "--key", key, protocol=protocol) as tls:
        checked = subprocess.run(
            [BINARY, "check", tls.url("at", "https"), "--cache-dir", tmp_path / "cache", *QUICK],
            env={**os.environ, **tls.environment("https")},
            capture_output=True, text=True, timeout=HANG)
        assert checked.returncode == 1 and "certificate" in checked.stderr, checked.stderr
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with serve(store=tls, scheme="https") as server, server.client() as client:
            answers(client, "1")


def test_serves_from_webdav(bucket, serve):
    put(bucket, "m/1/model.onnx")
    with Store(bucket.parent, protocol="webdav") as webdav:
        with serve(store=webdav) as server, server.client() as client:
            answers(client, "1")
            put(bucket, "m/2/model.onnx")
            until("version 2", lambda: client.is_model_ready("m", "2"))


class Stall:
    """Between a server and its store: lets half of one object through, and the rest when it is opened."""

    def __init__(self, store, path, most):
        self.opened = threading.Event()
        self.stalled = threading.Event()
        host, port = store.address.split(":")
        stall = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                with socket.create_connection((host, int(port))) as behind:
                    asked = [False]
                    threading.Thread(target=self.forward, args=[behind, asked], daemon=True).start()
                    came = 0
                    while piece := behind.recv(4096):
                        came += len(piece)
                        if asked[0] and came > most:
                            stall.stalled.set()
                            stall.opened.wait(HANG)
                        self.request.sendall(piece)

            def forward(self, behind, asked):
                while piece := self.request.recv(65536):
                    # A later request of the same connection counts from here.
                    asked[0] = asked[0] or path.encode() in piece
                    behind.sendall(piece)

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = "127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_a_store_that_stalls_keeps_nobody_from_probing_and_is_told(bucket, store, serve):
    put(bucket, "m/1/model.onnx")
    put(bucket, "m/1/weights.bin", bytes(1_000_000))
    put(bucket, "other/1/model.onnx")
    stall = Stall(store, "weights.bin", 400_000)
    store.address = stall.address
    with serve(control="explicit") as server, server.client() as client, \
            server.client() as other:
        load = threading.Thread(target=client.load_model, args=["m"])
        load.start()
        assert stall.stalled.wait(HANG)

        def told():
            index = other.get_model_repository_index().models
            return [(entry.state, entry.reason) for entry in index if entry.name == "m"]

        until("bytes of bytes", lambda: told()[0][1].startswith("fetching, 0."))
        [(state, reason)] = told()
        assert state == "LOADING" and "of 1.0 MB" in reason and "% done" in reason
        assert other.is_server_live() and other.is_server_ready()
        other.load_model("other")
        assert other.is_model_ready("other")
        stall.opened.set()
        load.join(HANG)
        answers(client, "1")
