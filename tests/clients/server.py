"""A Jitney server of the tests' own, as an operator starts it."""

import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import tritonclient.grpc as triton

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / os.environ.get("PROFILE", "debug") / "jitney"

# Longer than this only what hangs takes.
HANG = 180


def until(what, holds):
    """Waits for what the server tells nobody."""
    end = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


class Server:
    """Serves a repository on a free port, from start until it is told to stop."""

    def __init__(self, repository, *flags, environment=None, command=(BINARY,),
                 address="127.0.0.1:0"):
        self.repository = repository
        # Not a pipe: nobody reads it while the server runs, and a full one would stop it.
        self.log = tempfile.TemporaryFile("w+")
        self.cache = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [*command, "serve", repository, "--grpc-address", address, *flags],
            # A test's own flag goes before it. REST has the same port.
            env={**os.environ, "JITNEY_HTTP_ADDRESS": address, "JITNEY_LAME_DUCK_MS": "0",
                 "JITNEY_METRICS_ADDRESS": "off", "JITNEY_CACHE_DIR": self.cache.name,
                 **(environment or {})},
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.said = []
        lines = queue.Queue()
        threading.Thread(target=self._read, args=[lines], daemon=True).start()
        while "ready" not in self.said:
            try:
                line = lines.get(timeout=HANG)
            except queue.Empty:
                line = None
            if line is None:
                self.process.kill()
                raise AssertionError(f"the server did not start: {self.said}\n{self.logged()}")
            self.said.append(line)
        [self.address] = [line.split()[2] for line in self.said if line.startswith("gRPC on ")]

    def _read(self, lines):
        for line in self.process.stdout:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()

    def client(self):
        return triton.InferenceServerClient(self.address)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """Ends the server and gives its exit code."""
        self.terminate()
        return self.wait()

    def wait(self):
        try:
            return self.process.wait(timeout=HANG)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the server did not end\n{self.logged()}") from None

    def logged(self):
        # The server writes where the file's own position is, which has to stay at the end.
        return Path(f"/proc/self/fd/{self.log.fileno()}").read_text()


class Gate:
    """Keeps every run of the simulated models that have its behaviour from ending, until it is opened."""

    def __init__(self, folder):
        self.file = folder / "closed"
        self.file.touch()
        self.behaviour = f'waits_while_exists = "{self.file}"'

    def open(self):
        self.file.unlink()


def simulated(repository, name, policy="", behaviour="", dtype="FP32"):
    """Adds a simulated model that echoes x as y, in rows of any length."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "model.toml").write_text(f"""{policy}
batch_axis = "first"
[warm_up]
runs = 0
[simulated]
inputs = [{{ name = "x", dtype = "{dtype}", shape = [-1, -1] }}]
outputs = [{{ name = "y", dtype = "{dtype}", shape = [-1, -1] }}]
{behaviour}
""")
