"""Certificates and tokens that are replaced while the server runs, as tritonclient meets it."""

import ssl
import time

import tritonclient.grpc as triton
import tritonclient.http as rest

from pki import Pki, asked, bearer, clients, token
from server import HANG, Server


def until(holds):
    """Waits for what the server finds out by itself."""
    ends = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


def is_answered(library, client, **options):
    with client:
        try:
            asked(library, client, **options)
        except (library.InferenceServerException, ssl.SSLError, OSError):
            return False
    return True


def put(file, text):
    """Replaces a file at once, so that nobody reads half of it."""
    new = file.with_name("new")
    new.write_text(text)
    new.replace(file)


def lets_in(server, pki):
    """Whether each protocol lets in who connects now and trusts this authority."""
    grpc, http = clients(server, pki)
    return is_answered(triton, grpc), is_answered(rest, http)


def test_who_is_connected_goes_on_and_who_comes_sees_the_new_certificate(echo, pki, tmp_path):
    (tmp_path / "new").mkdir()
    new = Pki(tmp_path / "new")
    with Server(echo, *pki.flags) as server:
        grpc, http = clients(server, pki)
        with grpc, http:
            asked(triton, grpc)
            asked(rest, http)
            assert lets_in(server, new) == (False, False)
            for old, renewed in zip(pki.server, new.server):
                renewed.replace(old)
            until(lambda: lets_in(server, new) == (True, True))
            assert lets_in(server, pki) == (False, False)
            # By the connections that they have: for another they would not trust the server.
            asked(triton, grpc)
            asked(rest, http)
            pki.server[0].write_text("-----BEGIN CERTIFICATE-----\nno\n")
            until(lambda: "tls.crt: no certificate" in server.logged())
            assert "the old certificate stays in use" in server.logged()
            assert lets_in(server, new) == (True, True)
            asked(triton, grpc)
            asked(rest, http)


def test_tokens_are_taken_anew_over_both_protocols(echo, tmp_path):
    identity = tmp_path / "identity.toml"
    (first, before), (second, after) = token("first", "infer"), token("second", "infer")
    identity.write_text(before)
    with Server(echo, "--identity", identity) as server, server.client() as grpc, \
            rest.InferenceServerClient(server.address) as http:
        both = [(triton, grpc), (rest, http)]

        def knows(secret):
            known = set()
            for library, client in both:
                try:
                    asked(library, client, headers=bearer(secret))
                    known.add(library)
                except library.InferenceServerException as told:
                    assert told.status() in ["StatusCode.UNAUTHENTICATED", "401"]
            return known

        assert knows(first) == {triton, rest} and knows(second) == set()
        put(identity, after)
        until(lambda: knows(second) == {triton, rest})
        assert knows(first) == set()
        put(identity, before + "[[tokens]\n")
        until(lambda: "who was known stays so" in server.logged())
        assert knows(second) == {triton, rest} and knows(first) == set()
