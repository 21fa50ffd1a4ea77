"""Triton's perf_analyzer: over gRPC and REST, so many in flight or so many a second, with shared memory."""

import csv
import os
import shutil
import subprocess

import pytest

from server import HANG, ROOT, Server


# An environment of its own, which make test makes where there is such a wheel, and the library in it.
VENV = ROOT / ".jitney" / "venv-perf"
CUDA = next(VENV.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib"), None)
ENVIRONMENT = {**os.environ, "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}"}
if CUDA:
    ENVIRONMENT["LD_LIBRARY_PATH"] = f"{CUDA}:{os.environ.get('LD_LIBRARY_PATH', '')}"


@pytest.fixture(scope="module")
def program():
    program = shutil.which("perf_analyzer", path=ENVIRONMENT["PATH"])
    if program is None:
        pytest.skip("perf_analyzer not found: make venv-perf, by a Python before 3.13, or put one on the PATH")
    tried = subprocess.run([program, "--version"], env=ENVIRONMENT, capture_output=True, text=True, timeout=HANG)
    if tried.returncode == 127:
        pytest.skip(f"perf_analyzer lacks a library (on Debian: libb64-0d): {tried.stderr.strip()}")
    return program


@pytest.fixture(scope="module")
def measured():
    with Server(ROOT / "tests" / "models", "--shared-memory-prefix", "/dev/shm") as server:
        yield server


@pytest.mark.parametrize("memory", ["none", "system"])
@pytest.mark.parametrize("load", [["--concurrency-range", "4"], ["--request-rate-range", "200"]],
                         ids=["concurrency", "rate"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_measures(program, measured, tmp_path, protocol, load, memory):
    table = tmp_path / "table.csv"
    # A fixed count of requests: what is slow or uneven on a busy machine is still an end.
    run = subprocess.run(
        [program, "-m", "add_sub", "-i", protocol, "-u", measured.address, *load,
         "--shared-memory", memory, "--measurement-mode", "count_windows",
         "--measurement-request-count", "100", "--stability-percentage", "999",
         "--max-trials", "3", "-f", table],
        capture_output=True, text=True, timeout=2 * HANG, env=ENVIRONMENT)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    [row] = list(csv.DictReader(table.open()))
    print(protocol, load, memory, row["Inferences/Second"], row["p50 latency"], row["p99 latency"])
    assert float(row["Inferences/Second"]) > 0
