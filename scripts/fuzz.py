#!/usr/bin/env python3
"""Runs every fuzz target for so many seconds, as many at once as there are processors, guided by coverage, from the
corpora kept in fuzz/corpus. What is found lies in fuzz/artifacts, and fails the run. With a seed other than 0 chance
falls as it did the last time, so that a change is not blamed for what luck finds in old code."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FUZZ = Path(__file__).resolve().parent.parent / "fuzz"
# What `cargo fuzz build --sanitizer none` passes too, so that nothing has to be installed for it.
INSTRUMENTED = " ".join([
    "--cfg fuzzing", "-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters", "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares", "-Ccodegen-units=16"])


def main():
    seconds, seed = sys.argv[1:] or ("600", "0")
    programs = build()
    targets = sorted(source.stem for source in (FUZZ / "fuzz_targets").glob("*.rs"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        well = list(pool.map(lambda target: fuzz(programs / target, target, seconds, seed), targets))
    sys.exit(0 if all(well) else 1)


def build():
    told = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    host = re.search(r"^host: (.*)$", told, re.MULTILINE)[1]
    subprocess.run(["cargo", "build", "--release", "--locked", "--target", host], cwd=FUZZ, check=True,
                   env={**os.environ, "RUSTFLAGS": INSTRUMENTED})
    return Path(os.environ.get("CARGO_TARGET_DIR", FUZZ / "target")) / host / "release"


def fuzz(program, target, seconds, seed):
    for folder in ("artifacts", "found"):
        (FUZZ / folder / target).mkdir(parents=True, exist_ok=True)
    dictionary = FUZZ / "dictionaries" / f"{target}.dict"
    run = subprocess.run(
        [program, f"found/{target}", f"corpus/{target}", f"-max_total_time={seconds}", f"-seed={seed}",
         f"-artifact_prefix=artifacts/{target}/", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096",
         "-verbosity=0", "-print_final_stats=1", *([f"-dict={dictionary}"] if dictionary.exists() else [])],
        cwd=FUZZ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    executions = re.search(r"number_of_executed_units:\s*(\d+)", run.stdout)
    is_well = run.returncode == 0 and executions is not None
    told = f"{int(executions[1]):,} executions in {seconds} s, no finding" if is_well else f"failed\n{run.stdout}"
    print(f"fuzz {target}: {told}", flush=True)
    return is_well


if __name__ == "__main__":
    main()
