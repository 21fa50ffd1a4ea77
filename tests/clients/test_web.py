"""A page in a real browser, over gRPC-Web and REST, from an origin of its own."""

import http.server
import json
import queue
import shutil
import subprocess
import threading
from urllib.parse import urlsplit

import pytest

from server import HANG, ROOT, Server

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HERE = ROOT / "tests" / "clients"
FILES = {
    "/infer.html": (HERE / "browser" / "infer.html", "text/html"),
    "/grpc_service.proto": (ROOT / "proto" / "grpc_service.proto", "text/plain"),
    "/protobuf.js": (
        HERE / "node" / "node_modules" / "protobufjs" / "dist" / "protobuf.min.js", "text/javascript"),
}


class Page(http.server.BaseHTTPRequestHandler):
    """Gives the page out, and takes what it has to say."""

    def do_GET(self):
        file, kind = FILES.get(urlsplit(self.path).path, (None, None))
        body = file.read_bytes() if file else b""
        self.answer(200 if file else 404, kind or "text/plain", body)

    def do_POST(self):
        self.server.said.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.answer(200, "text/plain", b"")

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def page():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.said = queue.Queue()
        server.origin = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def browse(page, tmp_path):
    """Opens the page in a browser, and gives what it says."""
    if BROWSER is None:
        pytest.skip("no Chromium here: install it to see a page ask (on Debian: apt install chromium)")

    def browse(address):
        browser = subprocess.Popen(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}",
             f"{page.origin}/infer.html?server=http://{address}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return page.said.get(timeout=HANG)
        finally:
            browser.terminate()
            browser.wait(timeout=HANG)

    return browse


def test_a_page_infers_and_reads_errors(add, repository, page, browse):
    add("identity_fp32")
    with Server(repository, "--cors-origin", page.origin) as server:
        saw = browse(server.address)
        assert "nowhere" in saw["failure"].pop("told")
        assert saw == {
            "live": True, "status": "0", "id": "from a page", "row": [1, 2.5, -3],
            "failure": {"status": "5"}, "rest": [7, 8]}


def test_a_page_of_an_origin_that_is_not_allowed_sees_nothing(add, repository, browse):
    add("identity_fp32")
    with Server(repository, "--cors-origin", "http://other.example") as server:
        assert "Failed to fetch" in browse(server.address)["error"]

