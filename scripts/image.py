#!/usr/bin/env python3
"""Makes what goes into Jitney's images, and measures it.

    image.py layers LAYERS --program PROGRAM --crates FILE [--gpu]   # on Debian
    image.py root LAYERS ROOT
    image.py measure LAYERS

The Dockerfiles call the first in a stage and copy each folder of LAYERS as one layer into an empty
image, so the list of files is here alone. The second does by hand what those copies do, where there
is no container engine: the folder ROOT is then the image's root directory. The third says how large
each layer is, and fails if a library is missing, or is there and nobody loads it.

FILE is what `cargo metadata --format-version 1 --locked --filter-platform TARGET` printed.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnxruntime
import sbom
from closure import LOADERS, ClosureError, is_elf, libraries
from pinned_wheel import WheelError

ROOT = Path(__file__).resolve().parent.parent
# In the order in which they are copied: what changes least comes first.
LAYERS = ["system", "cuda", "onnxruntime", "jitney"]
LIB = Path("opt/jitney/lib")
PROGRAM = Path("usr/local/bin/jitney")
USER = 10001

# Programs and libraries that are loaded by name and not by another's header, and by whom.
OPENED = {
    "jitney": "the entry point",
    "libonnxruntime.so": "jitney, at start",
    "libonnxruntime_providers_shared.so": "ONNX Runtime, with any provider",
    "libonnxruntime_providers_cuda.so": "ONNX Runtime, for CUDA",
    "libonnxruntime_providers_tensorrt.so": "ONNX Runtime, where a model asks for TensorRT",
    "libcudnn.so.9": "ONNX Runtime's CUDA provider, when a model needs cuDNN",
    "libcufft.so.12": "ONNX Runtime's CUDA provider, when a model needs Fourier transforms",
    "libcudnn_adv.so.9": "cuDNN: attention, recurrent layers",
    "libcudnn_cnn.so.9": "cuDNN: convolutions",
    "libcudnn_engines_precompiled.so.9": "cuDNN: its kernels",
    "libcudnn_engines_runtime_compiled.so.9": "cuDNN: kernels that it compiles",
    "libcudnn_engines_tensor_ir.so.9": "cuDNN: kernels that it compiles",
    "libcudnn_ext.so.9": "cuDNN: its extensions",
    "libcudnn_graph.so.9": "cuDNN: graphs, its interface since version 9",
    "libcudnn_heuristic.so.9": "cuDNN: which kernel to take",
    "libcudnn_ops.so.9": "cuDNN: pooling, softmax, normalisation",
    "libnvrtc.so.13": "cuDNN, cuBLAS and ONNX Runtime, to compile kernels",
    "libnvrtc-builtins.so.13.0": "the compiler of kernels",
    "libnvJitLink.so.13": "cuDNN, to link kernels",
}
# What an image cannot bring, and where it comes from.
ELSEWHERE = {
    "libcuda.so.1": "the host's driver",
    "libnvidia-ml.so.1": "the host's driver",
    "libnvinfer.so.10": "an image with TensorRT on top of this one",
    "libnvinfer_plugin.so.10": "an image with TensorRT on top of this one",
    "libnvonnxparser.so.10": "an image with TensorRT on top of this one",
}
# The kernel's.
VIRTUAL = {"linux-vdso.so.1"}


class ImageError(Exception):
    """What is wrong with an image, for the person at the terminal."""


def main():
    options = arguments()
    try:
        options.run(options)
    except (ImageError, ClosureError, WheelError, OSError) as error:
        sys.exit(f"image.py: {error}")


def resolved(path):
    """A path that means the same to other programs: a bare name would be looked for on PATH."""
    return Path(path).resolve()


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("layers", help="make the layers")
    command.add_argument("layers", type=resolved)
    command.add_argument("--program", type=resolved, required=True, help="the server")
    command.add_argument("--crates", type=Path, required=True, help="what cargo metadata printed")
    command.add_argument("--gpu", action="store_true", help="with CUDA")
    command.set_defaults(run=lambda told: make(told.layers, told.program, told.crates, told.gpu))
    command = commands.add_parser("root", help="put the layers on top of each other")
    command.add_argument("layers", type=resolved)
    command.add_argument("root", type=resolved)
    command.set_defaults(run=lambda told: assemble(told.layers, told.root))
    command = commands.add_parser("measure", help="say how large the layers are, and what is wrong")
    command.add_argument("layers", type=resolved)
    command.set_defaults(run=lambda told: print(measure(told.layers)))
    return parser.parse_args()


# The layers.


def make(layers, program, crates, gpu):
    """Leaves one folder a layer in `layers`, which is made anew."""
    shutil.rmtree(layers, ignore_errors=True)
    for layer in LAYERS:
        (layers / layer).mkdir(parents=True)
    parts = ours(layers / "jitney", program)
    parts += runtime(layers / "onnxruntime", gpu)
    if gpu:
        parts += cuda(layers)
    parts += system(layers)
    version = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    bill = sbom.document(version, json.loads(crates.read_text()), parts)
    put(layers / "jitney/opt/jitney/sbom.cdx.json", json.dumps(bill, indent=1) + "\n")


def ours(layer, program):
    copy(program, layer / PROGRAM, 0o755)
    copy(ROOT / "LICENSE", layer / "opt/jitney/LICENSE")
    return []


def runtime(layer, gpu):
    """ONNX Runtime, as scripts/onnxruntime.py pins it."""
    package = onnxruntime.GPU if gpu else onnxruntime.CPU
    onnxruntime.install(package, layer / LIB)
    licences = layer / "opt/jitney/licenses" / package[0]
    for file in onnxruntime.LICENCES:
        licences.mkdir(parents=True, exist_ok=True)
        (layer / LIB / file).rename(licences / file)
    return [sbom.component("pypi", package[0], package[1], "MIT")]


def cuda(layers):
    """Of NVIDIA's wheels those libraries that are loaded, and the licences of all."""
    layer = layers / "cuda"
    (layer / LIB).mkdir(parents=True)
    parts = []
    for line in (ROOT / "scripts/requirements-cuda.txt").read_text().splitlines():
        if "==" not in line:
            continue
        name, version = line.split("==")
        # One after the other, for they are gigabytes.
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=layer) as scratch:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir",
                       "--disable-pip-version-check", "--root-user-action=ignore", "--no-deps",
                       "--only-binary=:all:", "--target", scratch, line]
            subprocess.run(install, check=True, stdout=sys.stderr)
            for library in Path(scratch).glob("nvidia/*/lib/*.so*"):
                library.rename(layer / LIB / library.name)
            licences = layer / "opt/jitney/licenses" / name
            for folder in Path(scratch).glob("*.dist-info/licenses"):
                shutil.copytree(folder, licences, dirs_exist_ok=True)
        parts.append(sbom.component("pypi", name, version, "NVIDIA's proprietary licence"))
    prune(layers)
    return parts


def prune(layers):
    """Takes away what came along in NVIDIA's wheels and nobody loads."""
    folder = layers / "cuda" / LIB
    runtime = layers / "onnxruntime" / LIB
    used, waiting = set(), [
        file for file in [*folder.iterdir(), *runtime.iterdir()] if file.name in OPENED]
    used.update(file.name for file in waiting)
    for file in waiting:
        used.update(libraries(file, host_loader(), [folder, runtime]))
    for file in sorted(folder.iterdir()):
        if file.name not in used:
            print(f"left out, as nobody loads it: {file.name}", file=sys.stderr)
            file.unlink()


def system(layers):
    """What is needed of Debian: libraries, certificates, and who the user is."""
    layer = layers / "system"
    for link in ["bin", "lib", "lib64"]:
        (layer / "usr" / link).mkdir(parents=True)
        (layer / link).symlink_to(f"usr/{link}")
    taken = [copied(path, layer) for path in sorted(needed(layers))]
    taken.append(copied(Path("/etc/ssl/certs/ca-certificates.crt"), layer, "ca-certificates"))
    for file in ["/etc/os-release", "/etc/debian_version"]:
        taken.append(copied(Path(file), layer, "base-files"))
    put(layer / "etc/passwd", "root:x:0:0:root:/:/nonexistent\n"
        f"jitney:x:{USER}:{USER}:jitney:/:/nonexistent\n")
    put(layer / "etc/group", f"root:x:0:\njitney:x:{USER}:\n")
    put(layer / "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    for folder, mode in [("tmp", 0o1777), ("models", 0o755), ("cache", 0o777)]:
        (layer / folder).mkdir()
        (layer / folder).chmod(mode)
    return [recorded(package, layer) for package in sorted(set(taken))]


def needed(layers):
    """The system's libraries that those of the other layers need, with the loader."""
    own = [layers / layer / LIB for layer in ["onnxruntime", "cuda"]]
    files = [layers / "jitney" / PROGRAM]
    files += [file for folder in own if folder.is_dir() for file in folder.iterdir()]
    found = {}
    for file in filter(is_elf, files):
        found.update(libraries(file, host_loader(), own))
    return {path for path in found.values()
            if path is not None and not path.is_relative_to(layers) and path.is_absolute()}


def copied(path, layer, package=None):
    """Copies one of the system's files, links followed, and says which package it is of."""
    if package is not None:
        copy(path, layer / path.relative_to("/"))
        return package
    # /lib and /lib64 are links into /usr on every Debian of today.
    copy(path, layer / "usr" / str(path).removeprefix("/usr").lstrip("/"), 0o755)
    return owner(path)


def owner(path):
    """The package that a file came with; its records may have the path before /usr was merged."""
    plain = Path("/") / str(path).removeprefix("/usr").lstrip("/")
    for name in {path, path.resolve(), plain, Path("/usr") / plain.relative_to("/")}:
        said = subprocess.run(["dpkg-query", "--search", str(name)], capture_output=True, text=True)
        if said.returncode == 0:
            return said.stdout.split(":", 1)[0]
    raise ImageError(f"no package of Debian brought {path}")


def recorded(package, layer):
    """Leaves what scanners look for: the package's record, and its copyright."""
    said = subprocess.run(["dpkg-query", "--status", package], capture_output=True, text=True,
                          check=True).stdout
    put(layer / "var/lib/dpkg/status.d" / package, said)
    copy(Path("/usr/share/doc") / package / "copyright",
         layer / "usr/share/doc" / package / "copyright")
    fields = dict(line.split(": ", 1) for line in said.splitlines()
                  if ": " in line and not line.startswith(" "))
    return sbom.component("deb", package, fields["Version"], namespace="debian",
                          qualifiers=f"?arch={fields['Architecture']}")


def host_loader():
    return next(Path(folder) / LOADERS[platform.machine()] for folder in ["/lib64", "/lib"]
                if (Path(folder) / LOADERS[platform.machine()]).exists())


def copy(source, target, mode=0o644):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


# The root directory.


def assemble(layers, root):
    """What copying the layers into an empty image leaves."""
    root.mkdir(parents=True)
    for layer in LAYERS:
        shutil.copytree(layers / layer, root, symlinks=True, dirs_exist_ok=True)
    # An engine makes these, to mount the kernel's own on them.
    for folder in ["dev", "proc", "sys"]:
        (root / folder).mkdir()


# What is in it.


def measure(layers):
    """Tables of layers and libraries; an ImageError if a library is too much or too little."""
    with tempfile.TemporaryDirectory(dir=layers.parent) as scratch:
        root = Path(scratch) / "root"
        link(layers, root)
        files = {file.name: file.stat().st_size for file in elves(root)}
        users, wrong = loaded(root)
    sizes = {layer: weigh(layers / layer) for layer in LAYERS}
    total = sum(size for _, size in sizes.values())
    lines = ["| layer | files | MB |", "|---|---|---|"]
    lines += [f"| {layer} | {count} | {megabytes(size)} |"
              for layer, (count, size) in sizes.items() if count]
    lines.append(f"| all | {sum(count for count, _ in sizes.values())} | {megabytes(total)} |")
    lines += ["", "| program or library | MB | loaded by |", "|---|---|---|"]
    lines += [f"| {name} | {megabytes(size)} | {by(name, users.get(name))} |"
              for name, size in files.items()]
    libraries = sum(size for name, size in files.items() if name != PROGRAM.name)
    lines += ["", f"{megabytes(total)} MB are {total / libraries:.2f} times the libraries"]
    if wrong:
        raise ImageError("\n".join(lines + [""] + wrong))
    return "\n".join(lines)


def by(name, users):
    """Who loads a library, in short."""
    if not users:
        return OPENED.get(name, "nobody")
    more = f" and {len(users) - 2} more" if len(users) > 2 else ""
    return ", ".join(users[:2]) + more


def link(layers, root):
    """The root directory, without copying what is in it."""
    root.mkdir()
    for layer in LAYERS:
        subprocess.run(["cp", "--archive", "--link", f"{layers / layer}/.", root], check=True)


def loaded(root):
    """By whom each library is loaded; and what is missing, or is there for nobody."""
    loader = next(root.glob(f"usr/lib*/**/{LOADERS[platform.machine()]}"))
    # Where the loader looks, inside the image: LD_LIBRARY_PATH, and its own folders.
    folders = [root / LIB, *sorted({file.parent for file in elves(root) if file.name != "jitney"})]
    users, wrong = {loader.name: ["the kernel"]}, []
    for file in elves(root):
        for name, path in libraries(file, loader, folders).items():
            if name in VIRTUAL or name == file.name:
                continue
            inside = path is not None and path.resolve().is_relative_to(root.resolve())
            if not inside and name not in ELSEWHERE and name != loader.name:
                wrong.append(f"missing: {name}, which {file.name} loads")
            users.setdefault(name, []).append(file.name)
    for file in elves(root):
        if file.name not in users and file.name not in OPENED:
            wrong.append(f"superfluous: {file.relative_to(root)}, which nobody loads")
    return users, wrong


def elves(root):
    return sorted((path for path in root.rglob("*") if is_elf(path)), key=lambda path: path.name)


def weigh(layer):
    files = [path for path in layer.rglob("*") if path.is_file() and not path.is_symlink()]
    return len(files), sum(path.stat().st_size for path in files)


def megabytes(size):
    return f"{size / 1e6:.1f}"


if __name__ == "__main__":
    main()
