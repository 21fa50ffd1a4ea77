"""Disks that are full and stores that stall or lie, again and again: whoever asks for the model is told, others do not
notice, and in the end the server has what it had before. `make chaos` deals it more of it, and prints figures."""

import os
import subprocess

import pytest
from tritonclient.utils import InferenceServerException

from possessions import Witness, rests, settles
from relay import Relay
from server import until
from store import PROGRAM, put

TIMES = 20 if os.environ.get("JITNEY_CHAOS") == "full" else 3

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no rclone for this machine")


def used(folder):
    try:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except FileNotFoundError:
        # It went meanwhile.
        return used(folder)


def refused(client, why):
    with pytest.raises(InferenceServerException, match=why) as error:
        client.load_model("large")
    assert not client.is_model_ready("large")
    return error.value.message()


def deal(server, what, once):
    """Has something happen again and again, while others ask."""
    with Witness(server) as witness:
        once()
        witness.sees(5000)
        witness.tells()
    before = rests(server)
    with Witness(server) as witness:
        for _ in range(TIMES):
            once()
            witness.sees(10)
        right = witness.tells()
    after = settles(server, before)
    print(f"chaos: {what} {TIMES} times: each told, {right} others right; {before}, {after}")


def test_a_full_disk_is_told_and_leaves_nothing_behind(bucket, serve, small_cache):
    put(bucket, "m/1/model.onnx")
    put(bucket, "large/1/model.onnx")
    put(bucket, "large/1/weights.bin", os.urandom(4 << 20))
    with serve(control="explicit") as server, server.client() as client:
        client.load_model("m")
        before = used(small_cache)

        def once():
            assert str(small_cache) in refused(client, "No space left on device")
            until("nothing is left of it", lambda: used(small_cache) <= before + 4096)

        deal(server, "disk full as a model is fetched", once)
        subprocess.run(["mount", "-o", "remount,size=16m", small_cache], check=True)
        client.load_model("large")
        assert client.is_model_ready("large", "1")


@pytest.mark.parametrize("fault, path, told", [
    ("stall", "weights.bin", "timed out"),
    ("hang_up", "weights.bin", "weights.bin"),
    ("cut_short", "weights.bin", "1000000 bytes were listed and there are 999999 now"),
    ("make_up", "model.onnx", "large/1/model.onnx"),
])
def test_a_store_that_fails_is_told_and_leaves_nothing_behind(bucket, store, serve, fault, path, told):
    put(bucket, "m/1/model.onnx")
    put(bucket, "large/1/model.onnx")
    put(bucket, "large/1/weights.bin", bytes(1_000_000))
    relay = Relay(store, path)
    patience = {"AWS_READ_TIMEOUT": "1 second"} if fault == "stall" else {}
    with serve(control="explicit", environment=patience) as server, server.client() as client:
        client.load_model("m")

        def once():
            relay.fault = getattr(relay, fault)
            refused(client, told)
            relay.fault = None

        deal(server, f"store that fails ({fault})", once)
        client.load_model("large")
        assert client.is_model_ready("large", "1")
    relay.opened.set()
