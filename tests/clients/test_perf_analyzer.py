"""Triton's perf_analyzer: over gRPC and REST, so many in flight or so many a second, with shared memory."""

import csv
import shutil
import subprocess

import pytest

from server import HANG, ROOT, Server


@pytest.fixture(scope="module")
def measured():
    if shutil.which("perf_analyzer") is None:
        pytest.skip("perf_analyzer not found: put it on the PATH (the wheel of tritonclient up to 2.51 has one, "
                    "which needs libb64 and libcudart.so.12)")
    with Server(ROOT / "tests" / "models", "--shared-memory-prefix", "/dev/shm") as server:
        yield server


@pytest.mark.parametrize("memory", ["none", "system"])
@pytest.mark.parametrize("load", [["--concurrency-range", "4"], ["--request-rate-range", "200"]],
                         ids=["concurrency", "rate"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_measures(measured, tmp_path, protocol, load, memory):
    table = tmp_path / "table.csv"
    # A fixed count of requests: what is slow or uneven on a busy machine is still an end.
    run = subprocess.run(
        ["perf_analyzer", "-m", "add_sub", "-i", protocol, "-u", measured.address, *load,
         "--shared-memory", memory, "--measurement-mode", "count_windows",
         "--measurement-request-count", "100", "--stability-percentage", "999",
         "--max-trials", "3", "-f", table],
        capture_output=True, text=True, timeout=2 * HANG)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    [row] = list(csv.DictReader(table.open()))
    print(protocol, load, memory, row["Inferences/Second"], row["p50 latency"], row["p99 latency"])
    assert float(row["Inferences/Second"]) > 0
