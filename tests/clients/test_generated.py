"""Clients in Go, Java and C++ whose code is made from our proto files by each language's own tools."""

import json
import shutil
import subprocess

import pytest

from generated import CLIENTS, FILES, PROTO, go, need, run
from server import HANG


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
    check(run(["go", "run", "-mod=readonly", ".", server.address], go(tmp_path)))


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
