#!/usr/bin/env python3
"""Puts ONNX Runtime's shared library where Jitney looks for it.

Jitney loads ONNX Runtime when it starts instead of linking to it, so the library has to be on the
machine. The Python package index carries it for every platform that Jitney runs on, inside a
wheel: this unpacks that one file and its licences. Nothing is installed, and a second call finds
the library in place and returns at once.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from pinned_wheel import WheelError, fetch

LIBRARY = "libonnxruntime.so"
PROVIDERS = [
    "libonnxruntime_providers_shared.so",
    "libonnxruntime_providers_cuda.so",
    "libonnxruntime_providers_tensorrt.so",
]
LICENCES = ["LICENSE", "ThirdPartyNotices.txt"]
STAMP = "VERSION"

# The version for the CPU, and the wheel's SHA-256 by machine.
CPU = ("onnxruntime", "1.32.0", {
    "x86_64": "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
    "aarch64": "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
})
# The version with the CUDA and TensorRT providers, for CUDA 13 and cuDNN 9.
GPU = ("onnxruntime-gpu", "1.31.1", {
    "x86_64": "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
})


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gpu", action="store_true",
                        help="the build with the CUDA and TensorRT providers")
    parser.add_argument("--dest", type=Path, default=root / ".jitney" / "onnxruntime",
                        help="the folder it goes into (default: .jitney/onnxruntime)")
    options = parser.parse_args()
    try:
        install(GPU if options.gpu else CPU, options.dest)
    except (WheelError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"onnxruntime.py: {error}")


def install(package, dest):
    """Leaves the package's shared libraries and licences in `dest`."""
    name, version, checksums = package
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine())
    if platform.system() != "Linux" or machine not in checksums:
        raise WheelError(
            f"{name} {version} is pinned here for Linux on {' and '.join(checksums)}, not for "
            f"{platform.system()} on {machine}: build or install ONNX Runtime yourself and set "
            "JITNEY_ONNXRUNTIME to its shared library"
        )
    stamp = f"{name} {version} {machine} sha256:{checksums[machine]}\n"
    libraries = [LIBRARY] + (PROVIDERS if package is GPU else [])
    if installed(dest, stamp, libraries):
        return

    dest.mkdir(parents=True, exist_ok=True)
    # Unpacked beside its destination, so that each file can be renamed into place.
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=dest) as scratch:
        wheel = fetch(f"{name}=={version}", checksums[machine], scratch, [
            f"manylinux_2_27_{machine}", f"manylinux_2_28_{machine}",
        ])
        unpack(wheel, version, libraries, Path(scratch))
        # The stamp goes first and comes back last: an interrupted run is never taken for a
        # finished one. A rename also leaves a running server the file that it has loaded.
        (dest / STAMP).unlink(missing_ok=True)
        for other in set(PROVIDERS) - set(libraries):
            (dest / other).unlink(missing_ok=True)
        for file in libraries + LICENCES:
            os.replace(Path(scratch) / file, dest / file)
        (Path(scratch) / STAMP).write_text(stamp)
        os.replace(Path(scratch) / STAMP, dest / STAMP)
    print(f"{name} {version} is in {dest}")


def installed(dest, stamp, libraries):
    """Whether a finished run of this script left these files in `dest`."""
    try:
        return ((dest / STAMP).read_text() == stamp
                and all((dest / file).is_file() for file in libraries))
    except FileNotFoundError:
        return False


def unpack(wheel, version, libraries, into):
    """Takes the libraries and the licences out of a wheel, under the names they go by here."""
    members = {f"onnxruntime/capi/{file}": file for file in libraries}
    # Under its plain name, so that what names it need not know the version.
    del members[f"onnxruntime/capi/{LIBRARY}"]
    members[f"onnxruntime/capi/{LIBRARY}.{version}"] = LIBRARY
    members.update({f"onnxruntime/{file}": file for file in LICENCES})
    with zipfile.ZipFile(wheel) as archive:
        for member, file in members.items():
            try:
                source = archive.open(member)
            except KeyError:
                raise WheelError(
                    f"{wheel.name} has no {member}: its layout has changed, so "
                    "scripts/onnxruntime.py has to change with it"
                ) from None
            with source, open(into / file, "wb") as target:
                shutil.copyfileobj(source, target)
            mode = 0o755 if ".so" in file else 0o644
            (into / file).chmod(mode)


if __name__ == "__main__":
    main()
