//! What the server is told to do, with every setting decided.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{IsolationConfig, Location, OtlpConfig, SecurityConfig};
use crate::model::{DeviceChoice, OfferedResource, SharedMemoryPolicy};

/// Every setting of the server. Made by [`RawServer::resolve`](super::RawServer::resolve).
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// The model repository: one folder for each model.
    pub repository: Location,
    /// Where models of a store are kept; empty if nothing says where.
    pub cache_dir: PathBuf,
    /// Bytes of files that the cache may hold.
    pub cache_bytes: u64,
    /// How long the objects of a version in a store stay as they are before it is taken.
    pub repository_rest: Duration,
    /// Objects that a store may list, and files that a model in a folder may have.
    pub max_repository_objects: usize,
    /// Where gRPC is served.
    pub grpc_address: SocketAddr,
    /// Where REST is served, if anywhere; the address of gRPC for both on one port.
    pub http_address: Option<SocketAddr>,
    /// What the server says its name is.
    pub server_name: String,
    /// Where metrics are served by themselves, if anywhere; REST has them too.
    pub metrics_address: Option<SocketAddr>,
    /// Whether metrics are told under Triton's names too.
    pub triton_metrics: bool,
    /// Whether answers of gRPC carry load reports.
    pub orca_trailers: bool,
    /// What a device costs an hour, in whatever currency; none if nobody wants to know.
    pub device_price_per_hour: Option<f64>,
    /// Who may do what on the console.
    pub console: ConsoleAccess,
    /// Where breaches of objectives are written, if anywhere.
    pub breach_dir: Option<PathBuf>,
    /// Files that are kept there.
    pub max_breach_files: usize,
    /// Where traces and metrics are sent, if anywhere.
    pub otlp: Option<OtlpConfig>,
    /// Whether clients may change what is traced.
    pub trace_settings: bool,
    /// The shared library of ONNX Runtime; a bare name is left to the system's loader.
    pub onnxruntime: PathBuf,
    /// Where a model runs whose `model.toml` does not say; never `Default`.
    pub device: DeviceChoice,
    /// Who decides which models are loaded.
    pub model_control: ModelControl,
    /// The time from one look at the repository to the next.
    pub watch_interval: Duration,
    /// Models to load at start; empty unless the control is explicit.
    pub load_models: Vec<String>,
    /// Models that are loaded at the same time.
    pub load_threads: usize,
    /// Bytes of optimized graphs and engines that are kept in the cache's folder; 0 for none.
    pub graph_cache_bytes: u64,
    /// How far what goes wrong in a model may go.
    pub isolation: IsolationConfig,
    /// Bytes of each device's memory that models may take; none for all.
    pub device_memory_bytes: Option<u64>,
    /// Whether the least recently used models are unloaded where that is not enough.
    pub unload_least_used: bool,
    /// Whether instances run only while they hold the resources that they need.
    pub rate_limit: bool,
    /// What there is of them.
    pub rate_limit_resources: Vec<OfferedResource>,
    /// Bytes of answers that are kept to be given again; 0 for none.
    pub response_cache_bytes: usize,
    /// Bytes of files that came with loads and are kept.
    pub max_uploaded_bytes: u64,
    /// Bytes of a version's files that are read.
    pub max_model_bytes: u64,
    /// Whether links may lead out of the repository.
    pub follow_links: bool,
    /// The largest message that is read or written.
    pub max_message_bytes: usize,
    /// Calls in progress on one connection.
    pub max_concurrent_streams: u32,
    /// Connections open at the same time.
    pub max_connections: usize,
    /// Requests in progress over all connections.
    pub max_requests: usize,
    /// Bytes of request tensors held over all connections; at least `max_message_bytes`.
    pub max_in_flight_bytes: usize,
    /// Requests of one `ModelStreamInfer` call that are not answered yet.
    pub max_stream_requests: usize,
    /// How long a client may say nothing where the server can only wait for it.
    pub read_timeout: Duration,
    /// How long a client may take nothing of an answer; none for ever.
    pub write_timeout: Option<Duration>,
    /// How old a connection gets before its client is told to make another; none for any age.
    pub max_connection_age: Option<Duration>,
    /// How long calls may go on after that; none for as long as they take.
    pub max_connection_age_grace: Option<Duration>,
    /// Origins whose pages a browser lets ask this server; `*` for every one.
    pub cors_origins: Vec<String>,
    /// Headers that stand for parameters of requests, by their names.
    pub forward_headers: Vec<&'static str>,
    /// What is offered of shared memory.
    pub shared_memory: SharedMemoryPolicy,
    /// How long it still takes new calls after the signal to stop.
    pub lame_duck: Duration,
    /// How long calls may take to finish after that.
    pub drain_timeout: Duration,
    /// Threads that read and write the network.
    pub io_threads: usize,
    /// Whether clients may change which log lines are written.
    pub log_settings: bool,
    /// Which log lines are written: a filter of `tracing_subscriber`.
    pub log: String,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// What is asked of those who ask.
    pub security: SecurityConfig,
}

/// Who decides which models are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelControl {
    /// Every model in the repository at start, and none later.
    #[default]
    Start,
    /// Those named at start, then those that the repository calls of the protocol name.
    Explicit,
    /// Those in the repository, looked at again and again.
    Watch,
}

/// Who may do what on the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsoleAccess {
    /// There is none.
    Off,
    /// Everybody looks, nobody changes anything.
    #[default]
    On,
    /// It loads and unloads models, too.
    Control,
}

/// The folder `jitney` among the user's caches; empty if the environment names none.
pub(super) fn find_cache_dir(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let named = |name, below| {
        let path = PathBuf::from(variable(name)?);
        path.is_absolute().then(|| path.join(below))
    };
    named("XDG_CACHE_HOME", "jitney")
        .or_else(|| named("HOME", ".cache/jitney"))
        .unwrap_or_default()
}

/// ONNX Runtime's library beside the `executable` or in the `lib` folder next to its own; else the
/// bare name, for the system's loader to find.
pub(super) fn find_onnxruntime(executable: Option<&Path>) -> PathBuf {
    const LIBRARY: &str = "libonnxruntime.so";
    executable
        .and_then(Path::parent)
        .into_iter()
        .flat_map(|folder| [folder.join(LIBRARY), folder.join("../lib").join(LIBRARY)])
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| PathBuf::from(LIBRARY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_among_the_users_own() {
        let find = |set: &[(&str, &str)]| {
            find_cache_dir(|name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let home = ("HOME", "/home/u");
        assert_eq!(find(&[]), PathBuf::new());
        assert_eq!(find(&[home]), PathBuf::from("/home/u/.cache/jitney"));
        let both = [home, ("XDG_CACHE_HOME", "/x")];
        assert_eq!(find(&both), PathBuf::from("/x/jitney"));
        // The specification says that a path that is not absolute is to be ignored.
        let relative = [home, ("XDG_CACHE_HOME", "x")];
        assert_eq!(find(&relative), PathBuf::from("/home/u/.cache/jitney"));
    }

    #[test]
    fn the_library_beside_the_executable_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let executable = folder.path().join("bin/jitney");
        let find = || find_onnxruntime(Some(&executable));
        let put = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
        };
        put("bin/jitney");
        assert_eq!(find(), PathBuf::from("libonnxruntime.so"));
        put("lib/libonnxruntime.so");
        assert_eq!(find(), folder.path().join("bin/../lib/libonnxruntime.so"));
        put("bin/libonnxruntime.so");
        assert_eq!(find(), folder.path().join("bin/libonnxruntime.so"));
        assert_eq!(find_onnxruntime(None), PathBuf::from("libonnxruntime.so"));
    }
}
