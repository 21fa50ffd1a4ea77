"""Certificates, callers and the clients that they are for."""

import ssl
import subprocess

import numpy
import tritonclient.grpc as triton
import tritonclient.http as rest
import trustme

from server import BINARY, HANG


class Pki:
    """An authority, the server's certificate and a client's, as files."""

    def __init__(self, folder):
        self.authority = trustme.CA()
        self.ca = folder / "ca.crt"
        self.authority.cert_pem.write_to_path(self.ca)
        # cert-manager's say what they are for; trustme's are for both sides, as probes need.
        self.server = self.issue(folder / "tls", "127.0.0.1", "localhost")
        self.client = self.issue(folder / "client", "spiffe.test")
        self.flags = ["--tls-cert", self.server[0], "--tls-key", self.server[1]]

    def issue(self, path, *names):
        issued = self.authority.issue_cert(*names, common_name=names[0])
        certificate, key = path.with_suffix(".crt"), path.with_suffix(".key")
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key


def asked(library, client, **options):
    """Has a client of either protocol ask for an echo."""
    given = library.InferInput("x", [1, 3], "FP32")
    sent = numpy.array([[1, 2, 3]], numpy.float32)
    given.set_data_from_numpy(sent)
    answer = client.infer("echo", [given], **options)
    assert (answer.as_numpy("y") == sent).all()


def context(pki, with_certificate):
    made = ssl.create_default_context(cafile=pki.ca)
    if with_certificate:
        made.load_cert_chain(*pki.client)
    return made


def clients(server, pki, with_certificate=False):
    """tritonclient over both protocols."""
    own = {"private_key": str(pki.client[1]), "certificate_chain": str(pki.client[0])}
    grpc = triton.InferenceServerClient(server.address, ssl=True, root_certificates=str(pki.ca),
                                        **(own if with_certificate else {}))
    http = rest.InferenceServerClient(
        server.address, ssl=True, ssl_context_factory=lambda: context(pki, with_certificate))
    return grpc, http


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG)


def probe(server, *flags):
    return run(BINARY, "probe", "--timeout-ms", "60000", "--grpc-address", server.address, *flags)


def token(name, *roles):
    """A new token, and the lines for the file."""
    made = run(BINARY, "token", "--name", name, *(part for role in roles for part in ["--role", role]))
    assert made.returncode == 0, made.stderr
    secret = made.stderr.split()[-1]
    assert secret not in made.stdout
    return secret, made.stdout


def bearer(secret):
    return {"authorization": f"Bearer {secret}"}
