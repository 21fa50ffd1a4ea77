"""The shared libraries that a program or a library loads, by what the dynamic loader itself says."""

import os
import subprocess
from pathlib import Path

LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}


class ClosureError(Exception):
    """Why a file's libraries could not be told."""


def libraries(file, loader, folders=()):
    """What `file` needs, directly or not: names, and the path of each or None if it is missing.

    `loader` is the dynamic loader that is to look for them: first in `folders`, then where it would.
    """
    said = subprocess.run(
        [str(loader), "--inhibit-cache", "--library-path", os.pathsep.join(map(str, folders)),
         str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # As ldd does: list, and do not run. Nothing else of the environment, for what is found must
        # not depend on who looks.
        env={"LC_ALL": "C", "LD_TRACE_LOADED_OBJECTS": "1"})
    if said.returncode != 0:
        raise ClosureError(f"{file}: {(said.stderr or said.stdout).strip()}")
    found = {}
    for line in said.stdout.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow:
            path = path.rsplit(" (", 1)[0]
            found[Path(name).name] = None if path == "not found" else Path(path)
        elif name.startswith("/"):
            # The loader, by its path.
            path = Path(name.split(" ", 1)[0])
            found[path.name] = path
    return found


def is_elf(path):
    """Whether a file is a program or a shared library."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"
