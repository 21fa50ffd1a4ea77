#!/bin/sh
# Runs every fuzz target for so many seconds (default: 600), guided by coverage, from the corpora kept
# in fuzz/corpus. What is found ends the run, and lies in fuzz/artifacts.
set -eu
seconds=${1:-600}
cd "$(dirname "$0")/../fuzz"

# What `cargo fuzz build --sanitizer none` passes too, so that nothing has to be installed for it.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=16"
cargo build --release --locked --target "$host"

for source in fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    dictionary="dictionaries/$target.dict"
    mkdir -p "artifacts/$target" "found/$target"
    echo "fuzzing $target for $seconds s"
    "target/$host/release/$target" "found/$target" "corpus/$target" \
        -max_total_time="$seconds" -artifact_prefix="artifacts/$target/" -timeout=10 \
        -rss_limit_mb=2048 -max_len=4096 -verbosity=0 -print_final_stats=1 \
        $(test -f "$dictionary" && echo "-dict=$dictionary")
done
