"""A store of the tests' own: rclone, serving a folder by the protocol of S3 or by WebDAV."""

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy

from server import HANG, ROOT
from tensors import given

PROGRAM = shutil.which("rclone")
KEY, SECRET = "test-key", "test-secret"

MODEL = ROOT / "tests" / "models" / "identity_fp32" / "1" / "model.onnx"
# How soon the store is looked at again.
QUICK = ["--repository-rest-ms", "100", "--watch-interval-ms", "50"]


class Store:
    """Serves what is below a folder on a port of its own, which it keeps when it is started again."""

    def __init__(self, folder, *flags, protocol="s3"):
        self.folder = Path(folder)
        self.protocol = protocol
        self.flags = flags
        self.address = "127.0.0.1:0"
        self.start()

    def start(self):
        flags = ["--auth-key", f"{KEY},{SECRET}"] if self.protocol == "s3" else []
        # What is written beside the server is to be seen at once, and its content to be read anew.
        flags += ["--dir-cache-time", "0s", "--vfs-cache-mode", "off"]
        self.log = tempfile.NamedTemporaryFile("w+")
        self.process = subprocess.Popen(
            [PROGRAM, "serve", self.protocol, "--config", "/dev/null", "--addr", self.address,
             *flags, *self.flags, self.folder],
            stdout=self.log, stderr=self.log)
        until = time.monotonic() + HANG
        while not (found := re.search(r"//(127\.0\.0\.1:\d+)", Path(self.log.name).read_text())):
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the store did not start: {Path(self.log.name).read_text()}")
            time.sleep(0.01)
        self.address = found.group(1)

    def stop(self):
        self.process.kill()
        self.process.wait(timeout=HANG)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def url(self, path, scheme="http"):
        if self.protocol == "s3":
            return f"s3://bucket/{path}"
        return f"{scheme}://{self.address}/bucket/{path}"

    def environment(self, scheme="http"):
        """What tells a server where the store is; without it, it would ask the cloud."""
        return {
            "AWS_ENDPOINT": f"{scheme}://{self.address}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }


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
