"""Clients in Go, Java and C++ whose code is made from our proto files by each language's own tools."""

import json
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


def check(printed):
    """What every one of the clients is to have seen."""
    # Maven puts colours around it, asked or not.
    [line] = [line for line in printed.splitlines() if "{" in line]
    saw = json.loads(line[line.index("{"):])
    assert saw["inputs"] == ["INPUT0 INT32", "INPUT1 INT32"]
    assert saw["id"] == "one"
    assert saw["sum"] == [2 * number for number in range(16)]
    assert saw["code"] == 5
    assert "nowhere" in saw["message"]


def test_go(server, tmp_path):
    need("go", install="Go 1.24 or later from https://go.dev")
    work = shutil.copytree(CLIENTS / "go", tmp_path / "go")
    for tool in GO_TOOLS:
        run(["go", "install", tool], work, env={**os.environ, "GOBIN": str(tmp_path / "bin")})
    code = work / "inference"
    code.mkdir()
    mapped = [f"--{plugin}_opt=M{file}=jitney.example/client/inference"
              for plugin in ["go", "go-grpc"] for file in FILES]
    plugins = [f"--plugin={tmp_path / 'bin' / name}"
               for name in ["protoc-gen-go", "protoc-gen-go-grpc"]]
    paths = ["--go_opt=paths=source_relative", "--go-grpc_opt=paths=source_relative"]
    run([sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO}", *plugins,
         f"--go_out={code}", f"--go-grpc_out={code}", *paths, *mapped, *FILES], work)
    check(run(["go", "run", "-mod=readonly", ".", server.address], work))


def test_java(server, tmp_path):
    need("java", "mvn", install="a JDK 17 or later and Maven (on Debian: default-jdk-headless maven)")
    printed = run(["mvn", "--batch-mode", "--quiet", "--file", CLIENTS / "java" / "pom.xml",
                   f"-Dwork={tmp_path}", "compile", "exec:java",
                   f"-Dexec.args={server.address}"], tmp_path)
    check(printed)


def test_cpp(server, tmp_path):
    need("c++", "protoc", "grpc_cpp_plugin", "pkg-config",
         install="gRPC for C++ (on Debian: g++ pkg-config libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc)")
    library = subprocess.run(["pkg-config", "--cflags", "--libs", "grpc++", "protobuf"],
                             capture_output=True, text=True)
    if library.returncode != 0:
        pytest.skip("gRPC's C++ library was not found: install it (on Debian: libgrpc++-dev libprotobuf-dev)")
    run(["protoc", f"--proto_path={PROTO}", f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}",
         f"--cpp_out={tmp_path}", f"--grpc_out={tmp_path}", *FILES], tmp_path)
    program = tmp_path / "infer"
    made = ["grpc_service.pb.cc", "grpc_service.grpc.pb.cc", "model_config.pb.cc"]
    run(["c++", "-std=c++17", "-O0", "-I.", CLIENTS / "cpp" / "infer.cpp", *made, "-o", program,
         *library.stdout.split()], tmp_path)
    check(run([program, server.address], tmp_path, timeout=HANG))
