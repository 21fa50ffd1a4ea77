"""A Prometheus of the tests' own, from Debian's package."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from server import HANG

CONFIGURATION = """
global:
  # As long as a scrape may take, too, of a server that is busy.
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: {rules}
scrape_configs:
  - job_name: jitney
    scheme: {scheme}
    tls_config: {{ insecure_skip_verify: true }}
    static_configs:
      - targets: ["{target}"]
"""

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Prometheus is not installed: apt-get install prometheus")


def get(url):
    with urllib.request.urlopen(url, timeout=HANG) as answer:
        return answer.read().decode()


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


class Prometheus:
    """Scrapes one server each second, from start until it is left."""

    def __init__(self, folder, target, rules=(), scheme="http"):
        configuration = folder / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(
            target=target, scheme=scheme, rules=json.dumps([str(rule) for rule in rules])))
        self.address = free_address()
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={configuration}", f"--web.listen-address={self.address}",
             f"--storage.tsdb.path={folder / 'data'}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=HANG)

    def ask(self, path, **parameters):
        """What its API answers; nothing while it starts."""
        url = f"http://{self.address}/api/v1/{path}?" + urllib.parse.urlencode(parameters, doseq=True)
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as error:
            said = error.read().decode()
            assert error.code == 503, f"{parameters}: {said}"
            return None
        except OSError:
            return None

    def now(self, expression, **at):
        """What an expression is worth at this moment, or at another `time`."""
        answer = self.ask("query", query=expression, **at)
        if answer is None:
            return []
        if answer["resultType"] == "scalar":
            return [{"metric": {}, "value": answer["result"]}]
        return answer["result"]

    def query(self, expression):
        """The same, as soon as there is something."""
        [found] = self.await_each([expression])
        return found

    def await_each(self, expressions, is_there=bool):
        """What each of them is worth as soon as it is there; all at once."""
        found = {}
        until = time.monotonic() + HANG
        while len(found) < len(set(expressions)):
            for expression in set(expressions) - set(found):
                value = self.now(expression)
                if is_there(value):
                    found[expression] = value
            missing = sorted(set(expressions) - set(found))
            assert time.monotonic() < until, f"Prometheus has no {missing}"
            # Prometheus tells nobody of what it has scraped.
            time.sleep(0.05)
        return [found[expression] for expression in expressions]
