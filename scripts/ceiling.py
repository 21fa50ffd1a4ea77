#!/usr/bin/env python3
"""What load generators take for themselves: jitney-load beside ghz and perf_analyzer.

All drive the same bare echo over gRPC, with the same request and as many in flight, in turns. What
counts is requests for each second of processor time of the generator, which is what one core of it
could do. Generators that are not on the PATH are left out.
"""

import argparse
import base64
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALL = "inference.GRPCInferenceService/ModelInfer"
MODEL = "tiny_mlp"
# Seconds for a turn, and for what a generator does before and after it.
PATIENCE = 60
REQUEST = {
    "model_name": MODEL,
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16]}],
    "raw_input_contents": [base64.b64encode(bytes(64)).decode()],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=5, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each generator")
    parser.add_argument("--load", help="jitney-load, if it is built already")
    parser.add_argument("--echo", help="the benchmark `whole`, if it is built already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Echo(arguments.echo) as echo:
        generators = {
            name: command
            for name, command in commands(echo.address, Path(folder), arguments).items()
            if command[0] is not None
        }
        turns = {name: [] for name in generators}
        for number in range(arguments.rounds):
            for name, command in generators.items():
                turns[name].append(turn(command, echo.process.pid))
                print(f"{name} {number + 1}: {turns[name][-1].said()}", file=sys.stderr)
    table(turns, arguments)


def commands(address, folder, arguments):
    """How each generator is called; its first word is None if it is not here."""
    scenario = folder / "scenario.toml"
    scenario.write_text(
        f'[server]\naddress = "{address}"\nconnections = {arguments.connections}\n'
        f'[[requests]]\nmodel = "{MODEL}"\n[[steps]]\narrivals = "closed"\n'
        f"in_flight = {arguments.in_flight}\nwarm_up_s = 0\nduration_s = {arguments.seconds}\n")
    request = folder / "request.json"
    request.write_text(json.dumps(REQUEST))
    return {
        "jitney-load": [arguments.load or built("jitney-load"), "run", scenario, "--json", "-"],
        "ghz": [
            shutil.which("ghz"), "--insecure", "--import-paths", ROOT / "proto",
            "--proto", proto(), "--call", CALL, "--data-file", request,
            "-c", str(arguments.in_flight), "--connections", str(arguments.connections),
            "-z", f"{arguments.seconds}s", "--duration-stop", "wait", address],
        "perf_analyzer": [
            shutil.which("perf_analyzer"), "-m", MODEL, "-i", "grpc", "-u", address, "--async",
            "--concurrency-range", str(arguments.in_flight),
            "--request-count", str(10_000 * arguments.seconds)],
    }


def proto():
    return next(
        path for path in (ROOT / "proto").rglob("*.proto")
        if "service GRPCInferenceService" in path.read_text())


def built(name):
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "-p", name], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return (ROOT / target) / "release" / name


class Echo:
    """The bare server of the benchmarks."""

    def __init__(self, program):
        self.program = program or self.build()

    @staticmethod
    def build():
        building = subprocess.run(
            ["cargo", "bench", "--locked", "--bench", "whole", "--no-run", "--message-format", "json"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        messages = [json.loads(line) for line in building.stdout.splitlines()]
        [program] = [
            message["executable"] for message in messages
            if message.get("executable") and message["target"]["name"] == "whole"]
        return program

    def __enter__(self):
        self.process = subprocess.Popen([self.program, "echo"], stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("gRPC on "):
                self.address = line.split()[2]
            if line == "ready\n":
                return self
        sys.exit("the echo has ended")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Turn:
    """Requests that were answered, and the processor time that the generator and the echo took."""

    def __init__(self, requests, rate, own, echo):
        self.rate, self.per_core, self.echo = rate, requests / own, requests / echo

    def said(self):
        return f"{self.rate:.0f}/s, {self.per_core:.0f} for each second of processor time"


def turn(command, echo):
    # perf_analyzer does not always end.
    for _ in range(3):
        before = taken(echo)
        # Told to a file, so that nobody who reads has to be waited for.
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                list(map(str, command)), stdout=output, stderr=subprocess.STDOUT)
            giving_up = threading.Timer(PATIENCE, process.kill)
            giving_up.start()
            _, status, usage = os.wait4(process.pid, 0)
            giving_up.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            said = output.read()
        if process.returncode == 0:
            requests, rate = counted(said)
            return Turn(requests, rate, usage.ru_utime + usage.ru_stime, taken(echo) - before)
    sys.exit(f"{command[0]} ended with {process.returncode}:\n{said}")


def taken(process):
    """Seconds of processor time."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def counted(said):
    """Requests and their rate, from what any of the three says."""
    report = next((line for line in said.splitlines() if line.startswith('{"')), None)
    if report is not None:
        [step] = json.loads(report)["steps"]
        return step["outcomes"]["ok"], step["good_per_second"]
    if "Requests/sec" in said:
        ok = re.search(r"\[OK\]\s+(\d+) responses", said)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
        return int(ok[1]), float(rate[1])
    count = re.search(r"Request count: (\d+)", said)
    rate = re.search(r"Throughput: ([\d.]+) infer/sec", said)
    return int(count[1]), float(rate[1])


def table(turns, arguments):
    print(f"{arguments.in_flight} in flight over {arguments.connections} connections, "
          f"{arguments.rounds} turns of each\n")
    print("| generator | requests/s | for each second of its processor time | jitney-load's over its |")
    print("|---|---|---|---|")
    for name, own in turns.items():
        ratios = [ours.per_core / theirs.per_core for ours, theirs in zip(turns["jitney-load"], own)]
        print(f"| {name} | {spread([one.rate for one in own], 0)} "
              f"| {spread([one.per_core for one in own], 0)} | {spread(ratios, 2)} |")


def spread(values, digits):
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
