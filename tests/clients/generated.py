"""Code that languages' own tools make of our proto files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server import HANG, ROOT

CLIENTS = Path(__file__).parent
PROTO = ROOT / "proto"
FILES = ["grpc_service.proto", "model_config.proto"]
# What the tools do, from downloads to a program, on a machine that is busy.
BUILD = 10 * HANG

GO_TOOLS = ["google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.11",
            "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0"]


def run(command, folder, timeout=BUILD, **options):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout,
                          **options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def need(*programs, install):
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: install {install}")


def go(folder):
    """Makes the code for Go and puts it beside the clients; gives where they are."""
    need("go", install="Go 1.24 or later from https://go.dev")
    work = shutil.copytree(CLIENTS / "go", folder / "go")
    for tool in GO_TOOLS:
        run(["go", "install", tool], work, env={**os.environ, "GOBIN": str(folder / "bin")})
    code = work / "inference"
    code.mkdir()
    mapped = [f"--{plugin}_opt=M{file}=jitney.example/client/inference"
              for plugin in ["go", "go-grpc"] for file in FILES]
    plugins = [f"--plugin={folder / 'bin' / name}"
               for name in ["protoc-gen-go", "protoc-gen-go-grpc"]]
    paths = ["--go_opt=paths=source_relative", "--go-grpc_opt=paths=source_relative"]
    run([sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO}", *plugins,
         f"--go_out={code}", f"--go-grpc_out={code}", *paths, *mapped, *FILES], work)
    return work
