//! Execution providers: registered or refused, never silently replaced.
//!
//! Options are handed on as `model.toml` has them; their names are in ONNX Runtime's documentation
//! of each provider (<https://onnxruntime.ai/docs/execution-providers>).

use std::path::Path;

use ::ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use ::ort::session::builder::SessionBuilder;

pub(super) use crate::device::ComputeStream;
use crate::device::DeviceId;
use crate::model::OnnxRuntimePolicy;

/// Puts the providers for `device` before the one for the host, which ONNX Runtime always has.
pub(super) fn register(
    builder: SessionBuilder,
    device: DeviceId,
    policy: &OnnxRuntimePolicy,
    stream: Option<&ComputeStream>,
    engines: Option<&Path>,
) -> Result<SessionBuilder, String> {
    let host = policy.arena.map(|arena| {
        let provider = ep::CPU::default().with_arena_allocator(arena);
        provider.build().error_on_failure()
    });
    let DeviceId::Cuda(number) = device else {
        return match host {
            None => Ok(builder),
            Some(host) => builder
                .with_execution_providers([host])
                .map_err(|error| explain(error.message())),
        };
    };
    if stream.is_none() {
        check_shared(policy)?;
    }
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    let mut providers = Vec::new();
    if let Some(options) = &policy.tensorrt {
        providers.push(tensorrt(number, &with_engines(options, engines), stream)?);
    }
    providers.push(cuda(number, &policy.cuda, stream)?);
    providers.extend(host);
    builder
        .with_execution_providers(providers)
        .map_err(|error| explain(error.message()))
}

fn cuda(
    number: i32,
    options: &[(String, String)],
    stream: Option<&ComputeStream>,
) -> Result<ExecutionProviderDispatch, String> {
    let mut provider = ep::CUDA::default().with_device_id(number);
    if let Some(stream) = stream {
        // SAFETY: the executor drops its session before the stream.
        provider = unsafe { provider.with_compute_stream(stream.handle()) };
    }
    for (key, value) in options {
        check_option(key, value)?;
        provider = provider.with_arbitrary_config(key, value);
    }
    Ok(provider.build().error_on_failure())
}

fn tensorrt(
    number: i32,
    options: &[(String, String)],
    stream: Option<&ComputeStream>,
) -> Result<ExecutionProviderDispatch, String> {
    let mut provider = ep::TensorRT::default().with_device_id(number);
    if let Some(stream) = stream {
        // SAFETY: the executor drops its session before the stream.
        provider = unsafe { provider.with_compute_stream(stream.handle()) };
    }
    for (key, value) in options {
        check_option(key, value)?;
        provider = provider.with_arbitrary_config(key, value);
    }
    Ok(provider.build().error_on_failure())
}

/// TensorRT's options, which say where engines are kept if they did not: the names are in ONNX Runtime's
/// documentation of the provider, which takes them; no engine was made so.
fn with_engines(options: &[(String, String)], engines: Option<&Path>) -> Vec<(String, String)> {
    let mut all = options.to_vec();
    let Some(folder) = engines.and_then(Path::to_str) else {
        return all;
    };
    for cache in ["trt_engine_cache", "trt_timing_cache"] {
        if !options.iter().any(|(key, _)| key.starts_with(cache)) {
            all.push((format!("{cache}_enable"), "1".to_owned()));
            all.push((format!("{cache}_path"), folder.to_owned()));
        }
    }
    all
}

/// What a session cannot do for several threads at once: TensorRT has one context for each session,
/// and a CUDA graph has one set of buffers.
fn check_shared(policy: &OnnxRuntimePolicy) -> Result<(), String> {
    let graph = |(key, value): &(String, String)| key == "enable_cuda_graph" && value != "0";
    if policy.tensorrt.is_some() || policy.cuda.iter().any(graph) {
        return Err(
            "share_weights = true does not go with TensorRT or enable_cuda_graph, which keep state \
             in the session; take one of the two out of model.toml"
                .to_owned(),
        );
    }
    Ok(())
}

/// Options that would contradict the placement, and strings that C cannot hold.
fn check_option(key: &str, value: &str) -> Result<(), String> {
    const PLACED: [&str; 3] = [
        "device_id",
        "has_user_compute_stream",
        "user_compute_stream",
    ];
    if PLACED.contains(&key) {
        return Err(format!(
            "option {key} is set by the instance's device; leave it out"
        ));
    }
    if key.contains('\0') || value.contains('\0') {
        return Err(format!("option {key:?} holds a NUL"));
    }
    Ok(())
}

/// What a provider's error means, and what to do about it.
const EXPLANATIONS: [(&str, &str); 7] = [
    (
        "is not enabled in this build",
        "this ONNX Runtime library is built for the CPU alone; use the one of the onnxruntime-gpu package (--onnxruntime)",
    ),
    (
        "libnvinfer",
        "TensorRT's libraries are missing; install TensorRT 10, or take [onnxruntime.tensorrt] out of model.toml",
    ),
    (
        "libcuda.so",
        "the NVIDIA driver is missing; install it, or start the container with GPUs",
    ),
    (
        "libcudnn",
        "cuDNN's libraries are missing; install cuDNN 9 for CUDA 13 and put it on LD_LIBRARY_PATH",
    ),
    (
        "cannot open shared object file",
        "CUDA's libraries are missing; install CUDA 13's runtime libraries and put them on LD_LIBRARY_PATH",
    ),
    (
        "driver version is insufficient",
        "the NVIDIA driver is too old for this ONNX Runtime's CUDA; for CUDA 13 install 580 or later",
    ),
    (
        "no CUDA-capable device",
        "the driver sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES",
    ),
];

/// A provider's error with what to do about it.
pub(super) fn explain(text: &str) -> String {
    let known = EXPLANATIONS.iter().find(|(sign, _)| text.contains(sign));
    match known {
        Some((_, advice)) => format!("{advice} ({text})"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_errors_say_what_to_do() {
        for (text, advice) in [
            (
                "CUDA execution provider is not enabled in this build.",
                "use the one of the onnxruntime-gpu package",
            ),
            (
                "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: No such file or directory",
                "CUDA's libraries are missing",
            ),
            (
                "libcudnn.so.9: cannot open shared object file: No such file or directory",
                "cuDNN's libraries are missing",
            ),
            (
                "libcuda.so.1: cannot open shared object file: No such file or directory",
                "the NVIDIA driver is missing",
            ),
            (
                "libnvinfer.so.10: cannot open shared object file: No such file or directory",
                "TensorRT's libraries are missing",
            ),
            (
                "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
                "install 580 or later",
            ),
            (
                "CUDA failure 100: no CUDA-capable device is detected",
                "the driver sees no GPU",
            ),
        ] {
            let explained = explain(text);
            assert!(explained.contains(advice), "{explained}");
            assert!(explained.ends_with(&format!("({text})")), "{explained}");
        }
        assert_eq!(explain("something else"), "something else");
    }

    #[test]
    fn what_keeps_state_in_the_session_is_not_shared() {
        let mut policy = OnnxRuntimePolicy::default();
        assert!(check_shared(&policy).is_ok());
        policy.cuda = vec![("enable_cuda_graph".to_owned(), "1".to_owned())];
        assert!(check_shared(&policy).is_err());
        policy.cuda.clear();
        policy.tensorrt = Some(Vec::new());
        assert!(check_shared(&policy).is_err());
    }

    #[test]
    fn engines_are_kept_where_the_model_does_not_say() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let own = [pair("trt_engine_cache_enable", "0")];
        assert_eq!(with_engines(&own, None), own);
        let expected = [
            pair("trt_engine_cache_enable", "0"),
            pair("trt_timing_cache_enable", "1"),
            pair("trt_timing_cache_path", "/cache"),
        ];
        assert_eq!(with_engines(&own, Some(Path::new("/cache"))), expected);
        let expected = [
            pair("trt_engine_cache_enable", "1"),
            pair("trt_engine_cache_path", "/cache"),
            pair("trt_timing_cache_enable", "1"),
            pair("trt_timing_cache_path", "/cache"),
        ];
        assert_eq!(with_engines(&[], Some(Path::new("/cache"))), expected);
    }

    #[test]
    fn options_that_contradict_the_placement_are_refused() {
        assert!(check_option("gpu_mem_limit", "1000").is_ok());
        assert!(check_option("device_id", "1").is_err());
        assert!(check_option("x", "a\0b").is_err());
    }
}
