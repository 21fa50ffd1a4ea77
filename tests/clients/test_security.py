"""TLS, callers and their roles, as real clients meet them: tritonclient, grpcurl, curl and jitney probe."""

import base64
import hashlib
import hmac
import json
import shutil
import ssl
import time

import pytest
import requests
import tritonclient.grpc as triton
import tritonclient.http as rest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from pki import asked, bearer, clients, probe, run, token
from server import HANG, Server


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on PATH")


# TLS.


@needs_curl
def test_every_client_speaks_tls(echo, pki):
    with Server(echo, *pki.flags) as server:
        assert f"gRPC on {server.address} (TLS), gRPC-Web too" in server.said
        grpc, http = clients(server, pki)
        with grpc, http:
            asked(triton, grpc)
            asked(rest, http)
        ready = run("grpcurl", "-cacert", pki.ca, server.address, "grpc.health.v1.Health/Check")
        assert json.loads(ready.stdout) == {"status": "SERVING"}, ready.stderr
        assert run("grpcurl", "-plaintext", "-max-time", "9", server.address, "list").returncode != 0
        for version in ["--http1.1", "--http2"]:
            said = run("curl", "-sS", version, "--cacert", pki.ca,
                       f"https://{server.address}/v2/health/live")
            assert json.loads(said.stdout) == {"live": True}, said.stderr
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"https://{server.address}/v2", timeout=HANG)
        metrics = requests.get(f"https://{server.address}/metrics", timeout=HANG, verify=pki.ca).text
        assert 'jitney_tls_handshakes_total{outcome="failed"} ' in metrics
        [expires] = [line.split()[1] for line in metrics.splitlines()
                     if line.startswith("jitney_tls_certificate_not_after_seconds ")]
        assert float(expires) > time.time()


def test_clients_have_to_have_a_certificate_where_one_is_wanted(echo, pki, tmp_path):
    identity = tmp_path / "identity.toml"
    identity.write_text(
        '[[certificates]]\nname = "a"\nsan = "spiffe.test"\nroles = ["infer"]\n')
    with Server(echo, *pki.flags, "--tls-client-ca", pki.ca, "--identity", identity) as server:
        grpc, http = clients(server, pki, with_certificate=True)
        with grpc, http:
            asked(triton, grpc)
            asked(rest, http)
            with pytest.raises(triton.InferenceServerException, match="lacks the role \"observe\""):
                grpc.get_model_repository_index()
        grpc, http = clients(server, pki)
        with grpc, http:
            with pytest.raises(triton.InferenceServerException):
                asked(triton, grpc)
            with pytest.raises((ssl.SSLError, OSError)):
                asked(rest, http)


def test_a_probe_asks_by_the_servers_own_certificate(echo, pki):
    tls = ["--tls-cert", pki.server[0], "--tls-key", pki.server[1]]
    with Server(echo, *pki.flags, "--tls-client-ca", pki.ca) as server:
        assert probe(server, *tls).stdout == "serving\n"
        assert probe(server, *tls, "--live").returncode == 0
        assert probe(server, *tls, "--model", "none").returncode == 1
        assert probe(server).returncode == 1
    with Server(echo) as server:
        assert probe(server).stdout == "serving\n"
        assert probe(server, *tls).returncode == 1


# Callers.


def test_tokens_open_what_their_roles_say(echo, tmp_path):
    infer, first = token("ci", "infer")
    operate, second = token("admin", "operate", "observe")
    stranger, _ = token("stranger", "infer", "observe", "operate")
    identity = tmp_path / "identity.toml"
    identity.write_text(first + second)
    flags = ["--identity", identity, "--model-control", "explicit", "--load-model", "echo"]
    with Server(echo, *flags) as server, server.client() as grpc, \
            rest.InferenceServerClient(server.address) as http:
        assert grpc.is_server_live() and grpc.is_model_ready("echo")
        assert http.is_server_ready() and http.is_model_ready("echo")
        asked(triton, grpc, headers=bearer(infer))
        asked(rest, http, headers=bearer(infer))
        asked(rest, http, headers={"X-API-Key": infer})
        grpc.unload_model("echo", headers=bearer(operate))
        http.load_model("echo", headers=bearer(operate))
        assert http.get_model_repository_index(headers=bearer(operate))
        for library, client, unknown in [(triton, grpc, "UNAUTHENTICATED"), (rest, http, "401")]:
            for headers in [{}, bearer(stranger), bearer("")]:
                with pytest.raises(library.InferenceServerException) as told:
                    asked(library, client, headers=headers)
                assert unknown in told.value.status()
            for call in [
                lambda: asked(library, client, headers=bearer(operate)),
                lambda: client.unload_model("echo", headers=bearer(infer)),
                lambda: client.get_model_repository_index(headers=bearer(infer)),
                lambda: client.get_inference_statistics(headers=bearer(infer)),
                lambda: client.update_log_settings({"log_verbose_level": 1}, headers=bearer(infer)),
            ]:
                with pytest.raises(library.InferenceServerException, match="lacks the role"):
                    call()
        # Reflection, by whoever is known.
        assert run("grpcurl", "-plaintext", server.address, "list").returncode != 0
        listed = run("grpcurl", "-plaintext", "-H", f"authorization: Bearer {infer}",
                     server.address, "list")
        assert "inference.GRPCInferenceService" in listed.stdout, listed.stderr
        # A browser sends what its user typed as a password.
        page = requests.get(f"http://{server.address}/console", auth=("me", operate), timeout=HANG)
        assert page.status_code == 200
        assert 'caller="admin" path="/v2/repository/models/echo/load"' in server.logged()


class Jwts:
    """An issuer with an RSA key."""

    def __init__(self):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self):
        numbers = self.key.public_key().public_numbers()
        return {"keys": [{"kty": "RSA", "kid": "k", "use": "sig", "n": packed(numbers.n.to_bytes(256, "big")),
                          "e": packed(numbers.e.to_bytes(3, "big"))}]}

    def signed(self, algorithm="RS256", **claims):
        claims = {"iss": "https://issuer", "aud": "jitney", "sub": "somebody",
                  "exp": time.time() + 3600, "roles": ["infer"], **claims}
        text = ".".join(packed(json.dumps(part).encode())
                        for part in [{"alg": algorithm, "kid": "k"}, claims])
        if algorithm == "RS256":
            signature = self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        elif algorithm == "HS256":
            # For servers that take what is public for the secret.
            public = self.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            signature = hmac.digest(public, text.encode(), hashlib.sha256)
        else:
            signature = b""
        return f"{text}.{packed(signature)}"


def packed(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_jwt_are_believed_if_everything_about_them_is_right(echo, tmp_path):
    ours, others = Jwts(), Jwts()
    keys, identity = tmp_path / "jwks.json", tmp_path / "identity.toml"
    keys.write_text(json.dumps(ours.jwks()))
    identity.write_text('[jwt]\nissuer = "https://issuer"\naudience = "jitney"\nkeys = "jwks.json"\n')
    with Server(echo, "--identity", identity) as server, server.client() as grpc:
        asked(triton, grpc, headers=bearer(ours.signed()))
        for said, made in [
            ("expired", ours.signed(exp=time.time() - 3600)),
            ("issuer", ours.signed(iss="https://other")),
            ("aud", ours.signed(aud="other")),
            ("no key", ours.signed("none")),
            ("no key", ours.signed("HS256")),
            ("no key", others.signed()),
        ]:
            with pytest.raises(triton.InferenceServerException, match=said) as told:
                asked(triton, grpc, headers=bearer(made))
            assert "UNAUTHENTICATED" in told.value.status()
        with pytest.raises(triton.InferenceServerException, match="lacks the role") as told:
            asked(triton, grpc, headers=bearer(ours.signed(roles=["observe"])))
        assert "PERMISSION_DENIED" in told.value.status()
        # The issuer has another key from now on.
        keys.write_text(json.dumps(others.jwks()))
        until = time.monotonic() + HANG
        while True:
            try:
                asked(triton, grpc, headers=bearer(others.signed()))
                break
            except triton.InferenceServerException:
                assert time.monotonic() < until
        with pytest.raises(triton.InferenceServerException, match="no key"):
            asked(triton, grpc, headers=bearer(ours.signed()))


# Open to others.


def test_what_is_open_to_the_world_says_so_and_is_not_controlled(echo):
    flags = ["--http-address", "0.0.0.0:0", "--model-control", "explicit", "--load-model", "echo"]
    with Server(echo, *flags) as server:
        [port] = [line.split("/v2")[0].rsplit(":", 1)[1] for line in server.said
                  if line.startswith("REST on ")]
        assert f"OPEN TO THE WORLD: 0.0.0.0:{port}" in server.logged()
        assert f"OPEN TO THE WORLD: {server.address}" not in server.logged()
        with rest.InferenceServerClient(f"127.0.0.1:{port}") as http:
            asked(rest, http)
            with pytest.raises(rest.InferenceServerException, match="knows nobody"):
                http.unload_model("echo")
        with server.client() as grpc:
            grpc.unload_model("echo")


def test_a_client_that_asks_too_often_is_told_when_to_come_again(echo):
    with Server(echo, "--client-rate", "0.001", "--client-burst", "2") as server, \
            server.client() as grpc:
        asked(triton, grpc)
        asked(triton, grpc)
        with pytest.raises(triton.InferenceServerException, match="client_rate") as told:
            asked(triton, grpc)
        assert "RESOURCE_EXHAUSTED" in told.value.status()
        assert grpc.is_server_ready()
        refused = requests.get(f"http://{server.address}/v2", timeout=HANG)
        assert refused.status_code == 429
        assert 900 <= int(refused.headers["retry-after"]) <= 1000
