"""A Node.js client with @grpc/grpc-js and the proto file."""

import json
import subprocess

from server import HANG, ROOT

CLIENT = ROOT / "tests" / "clients" / "node" / "infer.mjs"


def test_infers_streams_and_reads_errors(server):
    node = subprocess.run(
        ["node", CLIENT, server.address, ROOT / "proto" / "grpc_service.proto"],
        capture_output=True, text=True, timeout=HANG)
    assert node.returncode == 0, node.stderr
    saw = json.loads(node.stdout)
    assert saw["inputs"] == [{"name": "INPUT0", "datatype": "FP32", "shape": ["-1", "-1"]}]
    assert (saw["id"], saw["shape"], saw["row"]) == ("one", ["1", "3"], [1, 2.5, -3])
    assert saw["typed"] == [7, 8]
    assert saw["failure"]["code"] == 5
    assert "nowhere" in saw["failure"]["details"]
    assert saw["streamed"][0::2] == [[1], [3]]
    assert "nowhere" in saw["streamed"][1]
