"""A page of another server, in a real browser: what it can send without asking, and what it can read."""

import functools
import http.server
import shutil
import threading

import pytest
import requests
from playwright.sync_api import sync_playwright

from server import HANG, Server

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def page(tmp_path):
    """A page of a server that is not Jitney's, though of the same machine."""
    if BROWSER is None:
        pytest.skip("no Chromium here: install it (on Debian: apt install chromium)")
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>foreign</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    foreign = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=foreign.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"],
                                             timeout=HANG * 1000)
        page = browser.new_page()
        page.set_default_timeout(HANG * 1000)
        page.goto(f"http://127.0.0.1:{foreign.server_port}/")
        yield page
        browser.close()
    foreign.shutdown()


# In each, what the page sees of its attempt.
SENDS = """async url => {
    const answer = await fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'});
    return answer.type;
}"""
READS = "url => fetch(url).then(answer => answer.text(), error => error.name)"
LISTENS = """([kind, url]) => new Promise(resolve => {
    const source = kind == 'WebSocket' ? new WebSocket(url) : new EventSource(url);
    source.onopen = source.onmessage = () => resolve('open');
    source.onerror = () => resolve('error');
})"""


def refused(server):
    metrics = requests.get(f"http://{server.address}/metrics", timeout=HANG).text
    [count] = [line.split()[1] for line in metrics.splitlines()
               if line.startswith('jitney_calls_refused_total{reason="cross_origin"}')]
    return int(float(count))


def test_it_changes_nothing_and_reads_nothing(echo, page):
    control = ["--model-control", "explicit", "--load-model", "echo", "--console", "control"]
    with Server(echo, *control) as server, server.client() as client:
        unload = "v2/repository/models/echo/unload"
        for sent, path in enumerate([unload, "console/profile?model=echo", "v2/logging"], 1):
            # What came back it may not see.
            assert page.evaluate(SENDS, f"http://{server.address}/{path}") == "opaque"
            assert refused(server) == sent
        for path in ["console/state", "v2/models/echo", "metrics"]:
            assert page.evaluate(READS, f"http://{server.address}/{path}") == "TypeError"
        for kind, scheme in [("WebSocket", "ws"), ("EventSource", "http")]:
            url = f"{scheme}://{server.address}/console/state"
            assert page.evaluate(LISTENS, [kind, url]) == "error"
        assert client.is_model_ready("echo")
        # Its own page may.
        page.goto(f"http://{server.address}/console")
        assert page.evaluate(SENDS, f"http://{server.address}/{unload}") == "basic"
        assert not client.is_model_ready("echo")


def test_a_page_that_is_named_may(echo, page):
    control = ["--model-control", "explicit", "--load-model", "echo"]
    origin = page.evaluate("() => location.origin")
    with Server(echo, *control, "--cors-origin", origin) as server, server.client() as client:
        assert '"name":"echo"' in page.evaluate(READS, f"http://{server.address}/v2/models/echo")
        page.evaluate(SENDS, f"http://{server.address}/v2/repository/models/echo/unload")
        assert refused(server) == 0 and not client.is_model_ready("echo")
