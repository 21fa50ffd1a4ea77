"""Whether ONNX Runtime's real CUDA and TensorRT providers take every option that is handed to them.

The providers are those of the onnxruntime-gpu wheel (256 MB): `make providers` fetches them, and without
them these tests are skipped. Below them is nothing: a driver that is not one (tests/driver), and libraries
made by cuda_stubs. A provider reads its options before it asks for a GPU, so an option that it does not know
is told from the failure of everything that comes after.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import cuda_stubs
from server import BINARY, ROOT
from test_cuda_shared_memory import DRIVER

LIBRARIES = ROOT / ".jitney" / "onnxruntime-gpu"
PROVIDERS = [LIBRARIES / f"libonnxruntime_providers_{name}.so" for name in ["cuda", "tensorrt"]]
NVIDIA = Path("/proc/driver/nvidia/version")
# How ONNX Runtime says that an option is not known, or its value not.
UNKNOWN = ["Unknown provider option", "Failed to parse", "Failed to map"]

pytestmark = [
    pytest.mark.skipif(not all(file.is_file() for file in PROVIDERS),
                       reason="ONNX Runtime's GPU providers are not installed: make providers"),
    pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed"),
]

CUDA = {
    "gpu_mem_limit": ["1000000000"],
    "arena_extend_strategy": ["kNextPowerOfTwo", "kSameAsRequested"],
    "cudnn_conv_algo_search": ["EXHAUSTIVE", "HEURISTIC", "DEFAULT"],
    "do_copy_in_default_stream": [False, True],
    "cudnn_conv_use_max_workspace": [False, True],
    "use_tf32": [False, True],
    "enable_cuda_graph": [False, True],
    "prefer_nhwc": [False, True],
}
TENSORRT = {
    "trt_fp16_enable": [False, True],
    "trt_int8_enable": [True],
    "trt_max_workspace_size": ["1073741824"],
    "trt_max_partition_iterations": ["1000"],
    "trt_min_subgraph_size": ["1"],
    "trt_int8_calibration_table_name": ["table"],
    "trt_int8_use_native_calibration_table": [True],
    "trt_engine_cache_enable": [True],
    "trt_engine_cache_path": ["/tmp/engines"],
    "trt_timing_cache_enable": [True],
    "trt_timing_cache_path": ["/tmp/engines"],
    "trt_profile_min_shapes": ["INPUT0:1x1"],
    "trt_profile_opt_shapes": ["INPUT0:4x4"],
    "trt_profile_max_shapes": ["INPUT0:8x8"],
}
# As config.pbtxt has them, in Triton's words.
PARAMETERS = {
    "cudnn_conv_algo_search": "012", "arena_extend_strategy": "01", "do_copy_in_default_stream": "01",
    "cudnn_conv_use_max_workspace": "01", "gpu_mem_limit": ["1000000000"], "use_tf32": "01",
}
ACCELERATORS = {
    "precision_mode": ["FP16", "INT8"], "max_workspace_size_bytes": ["1073741824"],
    "trt_engine_cache_enable": ["1"],
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda")
    cuda_stubs.make(PROVIDERS, folder)
    (folder / "libcuda.so.1").symlink_to(DRIVER)
    (folder / "control").write_text("devices = 1\n")
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "JITNEY_DRIVER": str(folder),
            "JITNEY_ONNXRUNTIME": str(LIBRARIES / "libonnxruntime.so")}


@pytest.fixture
def refusal(environment, repository, add):
    """What is said when a model so configured is put on the GPU."""

    def refusal(file, text, *flags):
        add("identity_fp32", "model")
        (repository / "model" / file).write_text(text)
        done = subprocess.run([BINARY, "check", repository, "--device", "cuda:0", *flags], env=environment,
                              text=True, capture_output=True, timeout=180)
        said = done.stdout + done.stderr
        assert done.returncode == 1, f"it ended with {done.returncode}: {said}"
        return said

    return refusal


def taken(said):
    """It came as far as to ask for a GPU: options were read."""
    assert not any(word in said for word in UNKNOWN), said
    assert "this is not CUDA" in said or "CUDA failure 100" in said, said


def toml(table, name, value):
    written = str(value).lower() if isinstance(value, bool) else f'"{value}"'
    return f"[onnxruntime.{table}]\n{name} = {written}\n"


def cases(options):
    return [(name, value) for name, values in options.items() for value in values]


@pytest.mark.parametrize("name, value", cases(CUDA))
def test_cuda_takes_the_option(refusal, name, value):
    taken(refusal("model.toml", toml("cuda", name, value)))


@pytest.mark.parametrize("name, value", cases(TENSORRT))
def test_tensorrt_takes_the_option(refusal, name, value):
    taken(refusal("model.toml", toml("tensorrt", name, value)))


@pytest.mark.skipif(not NVIDIA.is_file(), reason="no NVIDIA driver, without whose version engines are not kept")
def test_tensorrt_takes_where_the_server_keeps_engines(refusal, tmp_path):
    flags = ["--graph-cache-bytes", "1000000", "--cache-dir", tmp_path / "cache"]
    taken(refusal("model.toml", toml("tensorrt", "trt_fp16_enable", True), *flags))
    # Their folder is made before TensorRT is told of it.
    assert [path for path in (tmp_path / "cache").glob("graphs/*") if path.is_dir()]


@pytest.mark.parametrize("name, value", cases(PARAMETERS))
def test_cuda_takes_what_becomes_of_a_parameter(refusal, name, value):
    taken(refusal("config.pbtxt",
                  f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}'))


@pytest.mark.parametrize("name, value", cases(ACCELERATORS))
def test_tensorrt_takes_what_becomes_of_an_accelerators_parameter(refusal, name, value):
    taken(refusal("config.pbtxt", f"""
        optimization {{ execution_accelerators {{ gpu_execution_accelerator : [ {{
          name : "tensorrt" parameters {{ key: "{name}" value: "{value}" }} }}]
        }}}}"""))


@pytest.mark.parametrize("table, name", [("cuda", "no_such_option"), ("tensorrt", "trt_no_such_option")])
def test_an_option_that_is_not_known_is_refused_and_said(refusal, table, name):
    said = refusal("model.toml", toml(table, name, "1"))
    assert name in said and any(word in said for word in UNKNOWN), said
