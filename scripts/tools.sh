#!/bin/sh
# Says which of the programs that the build needs are missing, one line each, before the build
# stops in the middle for want of one. PYTHON names the Python to look for (default: python3).

python=${PYTHON:-python3}
missing=0

# miss WHAT WHAT-TO-DO
miss() {
    echo "$1 is missing: $2" >&2
    missing=1
}

if ! command -v cargo >/dev/null; then
    miss cargo "install Rust from https://rustup.rs"
else
    # An older Cargo would stop at the first thing that it does not know, and not say why.
    wanted=$(sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' "$(dirname "$0")/../Cargo.toml")
    found=$(cargo --version | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p')
    if [ "${found:-0}" -lt "${wanted:-0}" ]; then
        miss "Rust 1.$wanted or later" "this is 1.$found; update it (rustup update)"
    fi
fi

command -v cc >/dev/null ||
    miss "cc, a C compiler and linker," \
        "install one (on Debian or Ubuntu: apt install gcc libc6-dev)"

if ! command -v "$python" >/dev/null; then
    miss "$python" \
        "install Python 3.10 or later (on Debian or Ubuntu: apt install python3 python3-pip)"
elif ! "$python" -c 'import pip' 2>/dev/null; then
    miss "pip for $python" "install it (on Debian or Ubuntu: apt install python3-pip)"
fi

exit "$missing"
