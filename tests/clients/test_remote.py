"""Repositories in a store that speaks S3, or WebDAV, and the cache that stands in for it."""

import os
import shutil
import subprocess
import threading

import pytest
from tritonclient.utils import InferenceServerException

from relay import Relay
from server import BINARY, HANG, until
from store import MODEL, PROGRAM, QUICK, Store, answers, put

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no rclone for this machine")


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


def test_a_store_that_stalls_keeps_nobody_from_probing_and_is_told(bucket, store, serve):
    put(bucket, "m/1/model.onnx")
    put(bucket, "m/1/weights.bin", bytes(1_000_000))
    put(bucket, "other/1/model.onnx")
    relay = Relay(store, "weights.bin")
    relay.fault = relay.stall
    with serve(control="explicit") as server, server.client() as client, \
            server.client() as other:
        load = threading.Thread(target=client.load_model, args=["m"], daemon=True)
        load.start()
        assert relay.stalled.wait(HANG)

        def told():
            index = other.get_model_repository_index().models
            return [(entry.state, entry.reason) for entry in index if entry.name == "m"]

        until("bytes of bytes", lambda: told()[0][1].startswith("fetching, 0."))
        [(state, reason)] = told()
        assert state == "LOADING" and "of 1.0 MB" in reason and "% done" in reason
        assert other.is_server_live() and other.is_server_ready()
        other.load_model("other")
        assert other.is_model_ready("other")
        relay.opened.set()
        load.join(HANG)
        assert not load.is_alive()
        answers(client, "1")
