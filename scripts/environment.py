#!/usr/bin/env python3
"""Makes a virtual environment that holds what one requirements file pins.

A stamp inside it says what it was made from, so a second call costs milliseconds, and a change to
the pins or to the Python makes it anew instead of on top of what was there.
"""

import argparse
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from pinned_wheel import reason

STAMP = "jitney-requirements"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="where the environment goes")
    parser.add_argument("requirements", type=Path, help="the requirements file")
    options = parser.parse_args()
    try:
        make(options.folder, options.requirements)
    except (RuntimeError, OSError) as error:
        sys.exit(f"environment.py: {error}")


def make(folder, requirements):
    """Leaves an environment of these requirements in `folder`."""
    stamp = folder / STAMP
    wanted = f"{sys.version}\n{hashlib.sha256(requirements.read_bytes()).hexdigest()}\n"
    if stamp.is_file() and stamp.read_text() == wanted and (folder / "bin" / "python").exists():
        return
    if sys.version_info < (3, 10):
        raise RuntimeError(
            f"{requirements.name} needs Python 3.10 or later, and this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}: name another with PYTHON=..."
        )
    if importlib.util.find_spec("ensurepip") is None:
        raise RuntimeError(
            "this Python cannot make virtual environments, for it lacks ensurepip: install it "
            "(on Debian or Ubuntu: apt install python3-venv)"
        )
    print(f"making {folder} from {requirements.name}", flush=True)
    run("make the virtual environment", [sys.executable, "-m", "venv", "--clear", str(folder)])
    run(f"install {requirements.name}", [
        str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet",
        "--disable-pip-version-check", "--requirement", str(requirements),
    ])
    stamp.write_text(wanted)


def run(purpose, command):
    """Runs a command that is quiet unless it fails."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(
            f"could not {purpose}: {reason(done.stderr)}; check the network connection and "
            "pip's index settings, then try again"
        )


if __name__ == "__main__":
    main()
