#!/usr/bin/env python3
"""Runs everything real on the GPUs of this machine, and writes a report to attach to an issue.

    make test-gpu

Models are asked on the processor and on a GPU by ONNX Runtime's CUDA provider, and by TensorRT where its
libraries are; tensors go through memory of the GPU by tritonclient; memory is looked at before, while and
after a model is loaded; and the sample model is driven for a few seconds. Ends with 0 if all is well, 1 if
something is not, and 77 if there is nothing to run on, which it says.

It was never run on a GPU by those who wrote it. `--gpu cpu` tries this script itself, on the processor.
"""

import argparse
import ctypes.util
import datetime
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / ".jitney"
SKIPPED = 77
# Of answers that a GPU adds up in another order, and with TF32 in fewer digits.
RELATIVE, ABSOLUTE = 2e-2, 1e-3
# What is left of a model's memory after it is unloaded: ONNX Runtime's and CUDA's own.
LEFT_BYTES = 512 << 20

sys.path.insert(0, str(ROOT / "tests/clients"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gpu", default="cuda:0", help="the device that is tried (default: cuda:0)")
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release",
                        help="where jitney and jitney-load are (default: target/release)")
    parser.add_argument("--report", type=Path, default=ROOT / "target/gpu.md")
    options = parser.parse_args()
    program = options.programs.resolve() / "jitney"
    listed = said(program, "devices")
    if options.gpu != "cpu" and not any(line.startswith(f"{options.gpu}:")
                                        for line in listed.splitlines()):
        why = [line for line in listed.splitlines() if line.startswith("no CUDA device")]
        print(f"skipped: {(why or ['there is no ' + options.gpu])[0]}")
        return SKIPPED
    prepare(options.gpu)
    run = Run(options.gpu, program, listed)
    for check in [run.units, run.answers, run.tensorrt, run.shared_memory, run.memory, run.load]:
        run.check(check)
    text = run.report()
    options.report.write_text(text)
    print(text)
    return 1 if run.failed else 0


def said(*command, environment=None, errors=subprocess.PIPE):
    done = subprocess.run([str(part) for part in command], text=True, cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def prepare(gpu):
    """ONNX Runtime with its providers, CUDA's libraries, and a Python with the client; again in that."""
    scripts = ROOT / "scripts"
    if gpu != "cpu":
        said(sys.executable, scripts / "onnxruntime.py", "--gpu", "--dest", OWN / "onnxruntime-gpu")
        said(sys.executable, scripts / "environment.py", OWN / "venv-cuda",
             scripts / "requirements-cuda.txt")
    environment = OWN / "venv-gpu"
    said(sys.executable, scripts / "environment.py", environment, scripts / "requirements-gpu.txt")
    if Path(sys.prefix) != environment:
        os.execv(environment / "bin/python", [environment / "bin/python", *sys.argv])


class Skipped(Exception):
    """Why a check was not made."""


class Run:
    """The checks on one device, and what became of them."""

    def __init__(self, gpu, program, listed):
        self.gpu, self.program, self.listed = gpu, program, listed
        self.rows, self.failed = [], False
        self.environment = {}
        if gpu != "cpu":
            folders = sorted((OWN / "venv-cuda/lib").glob("python3*/site-packages/nvidia/*/lib"))
            path = [*map(str, folders), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
            self.environment = {
                "LD_LIBRARY_PATH": ":".join(path),
                "JITNEY_ONNXRUNTIME": str(OWN / "onnxruntime-gpu/libonnxruntime.so")}

    def check(self, check):
        try:
            outcome, detail = "passed", check()
        except Skipped as why:
            outcome, detail = "skipped", str(why)
        except Exception as error:  # Whatever it is goes into the report.
            outcome, detail = "FAILED", f"{type(error).__name__}: {error}"
            self.failed = True
        print(f"{check.__name__}: {outcome}", file=sys.stderr)
        detail = " ".join(str(detail).split()).replace("|", "\\|")
        self.rows.append(f"| {check.__doc__} | {outcome} | {detail[:1500]} |")

    def serve(self, repository, device, *flags):
        from server import Server
        return Server(repository, "--device", device, *flags, environment=self.environment,
                      command=(self.program,))

    def units(self):
        """Memory, pinned memory and streams by the driver"""
        out = said("cargo", "test", "--lib", "--locked", "--", "device::", "--nocapture",
                   environment=self.environment, errors=subprocess.STDOUT)
        if "skipped:" in out:
            raise Skipped("the tests of src/device saw no GPU")
        return next(line for line in out.splitlines() if line.startswith("test result"))

    def answers(self):
        """The same answers by CUDA as by the processor"""
        return self.compare("")

    def tensorrt(self):
        """The same answers by TensorRT as by the processor"""
        if self.gpu != "cpu" and not found("libnvinfer.so.10", self.environment):
            raise Skipped("libnvinfer.so.10 is not there; LD_LIBRARY_PATH may name its folder")
        return self.compare("" if self.gpu == "cpu" else "[onnxruntime.tensorrt]\n")

    def compare(self, policy):
        with tempfile.TemporaryDirectory() as folder:
            repository = gather(Path(folder), policy)
            with self.serve(repository, "cpu") as one, self.serve(repository, self.gpu) as other:
                return agree(one.client(), other.client())

    def shared_memory(self):
        """CUDA shared memory by tritonclient"""
        if self.gpu == "cpu":
            raise Skipped("it needs a GPU")
        import numpy
        import tritonclient.grpc as triton
        import tritonclient.utils.cuda_shared_memory as shm
        array = numpy.arange(8, dtype=numpy.float32).reshape(2, 4)
        number = int(self.gpu.split(":")[1])
        region = shm.create_shared_memory_region("region", 64, number)
        shm.set_shared_memory_region(region, [array, numpy.zeros_like(array)])
        flags = ["--cuda-shared-memory", "true"]
        with self.serve(ROOT / "tests/models", self.gpu, *flags) as server:
            client = server.client()
            client.register_cuda_shared_memory("region", shm.get_raw_handle(region), number, 64)
            given = triton.InferInput("INPUT0", [2, 4], "FP32")
            given.set_shared_memory("region", 32)
            wanted = triton.InferRequestedOutput("OUTPUT0")
            wanted.set_shared_memory("region", 32, 32)
            client.infer("identity_fp32", [given], outputs=[wanted])
            echo = shm.get_contents_as_numpy(region, numpy.float32, [4, 4])
            client.unregister_cuda_shared_memory()
        shm.destroy_shared_memory_region(region)
        numpy.testing.assert_array_equal(echo[2:], array)
        return "64 bytes registered, read and written"

    def memory(self):
        """Memory is counted, and given back"""
        flags = ["--model-control", "explicit", "--device-memory-bytes", str(8 << 30)]
        with self.serve(ROOT / "examples/models", self.gpu, *flags) as server:
            client = server.client()
            before = self.free()
            client.load_model("digits")
            statistics = client.get_inference_statistics("digits", as_json=True)
            [usage] = statistics["model_stats"][0]["memory_usage"]
            if int(usage.get("byte_size", 0)) == 0:
                raise AssertionError(f"nothing was counted: {usage}")
            while_loaded = self.free()
            client.unload_model("digits")
            after = self.free()
        if before - after > LEFT_BYTES:
            raise AssertionError(f"{before - after} bytes were not given back")
        return (f"{usage['byte_size']} bytes counted; free before, while and after: "
                f"{before}, {while_loaded}, {after}")

    def free(self):
        """Bytes that another process sees free, in MiB steps."""
        line = next(line for line in said(self.program, "devices").splitlines()
                    if line.startswith(f"{self.gpu}:"))
        return int(line.rsplit(", ", 1)[1].split()[0]) << 20

    def load(self):
        """A short load on the sample model"""
        with tempfile.TemporaryDirectory() as folder, \
                self.serve(ROOT / "examples/models", self.gpu) as server:
            scenario = Path(folder) / "scenario.toml"
            scenario.write_text(SCENARIO)
            told = said(self.program.with_name("jitney-load"), "run", scenario,
                        "--address", server.address)
        steps = [line.strip() for line in told.splitlines() if "in time and right" in line]
        if len(steps) != 2:
            raise AssertionError(f"there are two steps: {told}")
        return "; ".join(steps)

    def report(self):
        import numpy
        import tritonclient
        version = said(self.program, "--version").strip()
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                                capture_output=True).stdout.strip()
        about = [
            f"{version} ({commit}), {datetime.date.today()}, {platform.platform()}",
            f"tritonclient {getattr(tritonclient, '__version__', '?')}, numpy {numpy.__version__}",
            *self.listed.splitlines()]
        stamp = OWN / ("onnxruntime" if self.gpu == "cpu" else "onnxruntime-gpu") / "VERSION"
        if stamp.is_file():
            about.append(stamp.read_text().split(" sha256")[0])
        if shutil.which("nvidia-smi"):
            query = "--query-gpu=name,driver_version,memory.total,compute_cap"
            about += said("nvidia-smi", query, "--format=csv,noheader").splitlines()
        lines = [f"# Jitney on {self.gpu}", "", *[f"- {line}" for line in about], "",
                 "| check | outcome | detail |", "|---|---|---|", *self.rows]
        return "\n".join(lines) + "\n"


SCENARIO = """
[server]
connections = 4

[[requests]]
model = "digits"

[[steps]]
name = "one after the other"
arrivals = "closed"
in_flight = 1
duration_s = 5

[[steps]]
name = "many at once"
arrivals = "closed"
in_flight = 64
duration_s = 5
"""


def found(library, environment):
    folders = environment.get("LD_LIBRARY_PATH", "").split(":")
    beside = any((Path(folder) / library).exists() for folder in folders if folder)
    return beside or ctypes.util.find_library("nvinfer") is not None


def gather(folder, policy):
    """The test models and the sample models, each with this policy."""
    for models in [ROOT / "tests/models", ROOT / "examples/models"]:
        for model in models.iterdir():
            file = model / "1/model.onnx"
            # What keeps state is asked otherwise.
            if file.is_file() and "[sequence]" not in text(model / "model.toml"):
                (folder / model.name / "1").mkdir(parents=True)
                shutil.copy(file, folder / model.name / "1")
                (folder / model.name / "model.toml").write_text(text(model / "model.toml") + policy)
    return folder


def text(file):
    return file.read_text() if file.is_file() else ""


def agree(one, other):
    """Asks both the same, and holds the answers against each other."""
    compared = []
    for entry in one.get_model_repository_index().models:
        if entry.state != "READY":
            continue
        inputs = made_up(one.get_model_metadata(entry.name))
        first, second = one.infer(entry.name, inputs), other.infer(entry.name, inputs)
        worst = 0.0
        for output in first.get_response().outputs:
            expected, found = first.as_numpy(output.name), second.as_numpy(output.name)
            worst = max(worst, distance(f"{entry.name}: {output.name}", expected, found))
        compared.append(f"{entry.name} ({worst:.1e})")
    if len(compared) < 5:
        raise AssertionError(f"only {compared} were served")
    return f"largest differences: {', '.join(compared)}"


def distance(what, expected, found):
    import numpy
    if expected.dtype.kind != "f":
        numpy.testing.assert_array_equal(found, expected, err_msg=what)
        return 0.0
    numpy.testing.assert_allclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE, err_msg=what)
    return float(numpy.max(numpy.abs(found - expected), initial=0))


def made_up(metadata):
    import numpy
    import tritonclient.grpc as triton
    from tritonclient.utils import triton_to_np_dtype
    random = numpy.random.default_rng(7)
    inputs = []
    for tensor in metadata.inputs:
        shape = [int(size) if int(size) > 0 else (2 if axis == 0 else 8)
                 for axis, size in enumerate(tensor.shape)]
        if tensor.datatype == "BYTES":
            array = numpy.full(shape, b"text", object)
        elif tensor.datatype.startswith("FP"):
            array = random.random(shape).astype(triton_to_np_dtype(tensor.datatype))
        else:
            array = numpy.ones(shape, triton_to_np_dtype(tensor.datatype))
        made = triton.InferInput(tensor.name, shape, tensor.datatype)
        made.set_data_from_numpy(array)
        inputs.append(made)
    return inputs


if __name__ == "__main__":
    sys.exit(main())
