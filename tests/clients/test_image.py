"""The image for CPUs, made by hand: how large it is, what is in it, and that a server runs in it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cyclonedx.schema
import jsonschema
import numpy
import pytest
from license_expression import get_spdx_licensing
from packageurl import PackageURL
from referencing import Registry, Resource

from server import BINARY, HANG, ROOT, Server
from tensors import given

SCRIPT = ROOT / "scripts" / "image.py"
# What the script says of itself; its neighbours have names that packages of the tests have too.
TOLD = """
import image, json
print(json.dumps({"layers": image.LAYERS, "user": image.USER, "library": str(image.LIB),
    "program": str(image.PROGRAM), "onnxruntime": image.onnxruntime.CPU[1]}))
"""
AIM = 120e6
# A machine that is busy takes longer than an orchestrator grants.
PATIENT = ["--timeout-ms", "60000"]
TABLE = re.compile(r"^\| all \| \d+ \| ([\d.]+) \|$", re.MULTILINE)
# What an engine does with an image, a volume of models and --read-only.
ENTER = """
set -e
mount --bind "$1" "$1"
mount --bind "$2" "$1/models"
mount --rbind /proc "$1/proc"
mount -t tmpfs none "$1/tmp"
mount -o remount,bind,ro "$1"
mount -o remount,bind,ro "$1/models"
root=$1
shift 2
exec chroot --userspec=10001:10001 "$root" /usr/local/bin/jitney "$@"
"""

pytestmark = pytest.mark.skipif(
    shutil.which("dpkg-query") is None or not Path("/etc/debian_version").exists(),
    reason="images are made of Debian's libraries, and this is not Debian")


def make(*arguments):
    """Runs the script, and gives back what it said and whether it was content."""
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True,
                          timeout=10 * HANG)
    return done.stdout + done.stderr, done.returncode == 0


@pytest.fixture(scope="module")
def told():
    done = subprocess.run([sys.executable, "-c", TOLD], cwd=SCRIPT.parent, capture_output=True,
                          text=True, check=True, timeout=HANG)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The server as it was built for the tests; a release is smaller."""
    program = tmp_path_factory.mktemp("program") / "jitney"
    subprocess.run(["strip", "--strip-debug", "-o", program, BINARY], check=True)
    return program


@pytest.fixture(scope="module")
def layers(program, tmp_path_factory):
    """What the Dockerfile's stage of this name makes, by the command that is written there."""
    folder, builder = tmp_path_factory.mktemp("image"), tmp_path_factory.mktemp("builder")
    shutil.copy(program, builder)
    shutil.copy(ROOT / "LICENSE", builder)
    shutil.copytree(ROOT / "scripts", builder / "scripts")
    with open(builder / "crates.json", "w") as crates:
        subprocess.run(
            ["cargo", "metadata", "--locked", "--format-version", "1",
             "--filter-platform", "x86_64-unknown-linux-gnu"],
            cwd=ROOT, stdout=crates, check=True, timeout=HANG)
    stage = (ROOT / "Dockerfile").read_text().split(" AS layers\n")[1].split("\nFROM ")[0]
    [command] = re.findall(r"^RUN (.*)", stage, re.MULTILINE | re.DOTALL)
    assert command.count(" /layers") == 2
    done = subprocess.run(
        ["sh", "-c", command.replace(" /layers", f" {folder / 'layers'}")], cwd=builder,
        capture_output=True, text=True, timeout=10 * HANG)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "layers"


@pytest.fixture(scope="module")
def root(layers, tmp_path_factory):
    root = tmp_path_factory.mktemp("root") / "root"
    said, made = make("root", layers, root)
    assert made, said
    # Another user has to be able to reach it.
    for folder in [root, *root.parents][:4]:
        folder.chmod(folder.stat().st_mode | 0o111)
    return root


def test_size(layers, root):
    said, sound = make("measure", layers)
    print(said)
    assert sound
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    assert float(TABLE.search(said)[1]) == round(size / 1e6, 1)
    assert size < AIM


def test_no_shell_and_nothing_to_write(root):
    programs = [path for path in root.rglob("*")
                if path.is_file() and path.stat().st_mode & 0o111 and ".so" not in path.name]
    assert programs == [root / "usr/local/bin/jitney"]
    for path in root.rglob("*"):
        # Mode bits of links say nothing.
        if not path.is_symlink() and path.stat().st_mode & 0o022:
            assert path in [root / "tmp", root / "cache"]


def test_what_is_missing_or_superfluous_is_named(layers, tmp_path):
    broken = tmp_path / "layers"
    shutil.copytree(layers, broken, symlinks=True)
    [needed] = broken.glob("system/usr/lib/*/libstdc++.so.6")
    shutil.move(needed, needed.with_name("libnobody.so.1"))
    said, sound = make("measure", broken)
    assert not sound
    assert "missing: libstdc++.so.6, which libonnxruntime.so loads" in said
    assert re.search(r"superfluous: \S+/libnobody.so.1, which nobody loads", said)


def published(bill):
    """Validates against CycloneDX's own schema, which refers to those of licences and signatures."""
    folder = Path(cyclonedx.schema.__file__).parent / "_res"
    registry = Registry().with_resources(
        (f"http://cyclonedx.org/schema/{file.name}",
         Resource.from_contents(json.loads(file.read_text())))
        for file in folder.glob("*.SNAPSHOT.schema.json"))
    schema = json.loads((folder / "bom-1.6.SNAPSHOT.schema.json").read_text())
    jsonschema.Draft7Validator(schema, registry=registry).validate(bill)


def test_bill_of_materials(root, told):
    bill = json.loads((root / "opt/jitney/sbom.cdx.json").read_text())
    published(bill)
    parts = {}
    for part in bill["components"]:
        url = PackageURL.from_string(part["purl"])
        assert (url.name, url.version) == (part["name"], part["version"])
        parts[f"{url.type}/{url.name}"] = part
    assert parts["pypi/onnxruntime"]["version"] == told["onnxruntime"]
    assert {"cargo/tonic", "cargo/ort", "deb/libc6", "deb/libstdc++6"} <= set(parts)
    # Tests, builds and macros are not in the program.
    assert not {"cargo/criterion", "cargo/protox", "cargo/serde_derive"} & set(parts)
    for name, part in parts.items():
        for licence in part.get("licenses", []):
            if "expression" in licence:
                assert not get_spdx_licensing().validate(licence["expression"]).errors, name


def test_a_server_runs_in_it(root):
    entered = ["unshare", "--mount", "sh", "-c", ENTER, "sh", root, ROOT / "examples" / "models"]
    mounts = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", root / "tmp"]
    if os.geteuid() != 0 or subprocess.run(mounts).returncode != 0:
        pytest.skip("only root may enter an image's root directory")
    environment = {
        "JITNEY_ONNXRUNTIME": "/opt/jitney/lib/libonnxruntime.so", "JITNEY_CACHE_DIR": "/cache"}
    with Server("/models", environment=environment, command=entered) as server:
        # The command became the server, without a shell in between.
        process = Path(f"/proc/{server.process.pid}")
        assert re.search(r"^Uid:\t10001\t10001", (process / "status").read_text(), re.MULTILINE)
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        [options] = [fields[5] for fields in mounts if fields[4] == "/"]
        assert options.split(",")[0] == "ro"
        with server.client() as client:
            answer = client.infer("digits", [given("image", numpy.ones([1, 64], numpy.float32))])
            assert answer.as_numpy("probabilities").sum() == pytest.approx(1)
        assert probe(root, server.address) == (0, "serving\n")
        assert probe(root, server.address, "--model", "nobody")[0] == 1
        assert server.stop() == 0
        assert probe(root, server.address)[0] == 1


def probe(root, address, *flags):
    """What the image's health check says."""
    done = subprocess.run(
        ["chroot", "--userspec=10001:10001", root, "/usr/local/bin/jitney", "probe", *flags, *PATIENT],
        env={**os.environ, "JITNEY_GRPC_ADDRESS": address.replace("127.0.0.1", "0.0.0.0")},
        capture_output=True, text=True, timeout=HANG)
    return done.returncode, done.stdout


def test_the_dockerfiles_copy_the_layers(told):
    for name, wanted in [("Dockerfile", [layer for layer in told["layers"] if layer != "cuda"]),
                         ("Dockerfile.cuda", told["layers"])]:
        text = (ROOT / name).read_text()
        copied = re.findall(r"^COPY --from=layers /layers/(\w+) /$", text, re.MULTILINE)
        assert copied == wanted
        assert re.search(r"^FROM scratch$", text, re.MULTILINE)
        assert f"USER {told['user']}\n" in text
        assert f"JITNEY_ONNXRUNTIME=/{told['library']}/libonnxruntime.so" in text
        assert 'ENTRYPOINT ["/%s"]' % told["program"] in text
        assert ("--gpu" in text) == ("cuda" in wanted)
        # What is copied to the builder is there, and let through.
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
            for source in sources.split():
                assert (ROOT / source).exists() and f"!{source}" in ignored
