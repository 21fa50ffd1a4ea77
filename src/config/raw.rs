//! What was typed to start the server; its documentation is the text of `--help`.

use std::path::PathBuf;

use super::security::RawSecurity;

// Values stay text until `resolve`, so that mistakes in flags and in the file are told together.
/// What was typed: the flags of `jitney serve`, and the environment where a flag is absent.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RawServer {
    /// Folder or URL of models: PATH/MODEL/VERSION/model.onnx, such as models/digits/1/model.onnx.
    ///
    /// A model's folder may also hold a model.toml that says how it is served. URLs are s3://, gs://,
    /// az://, http://, https:// (WebDAV) and file://; credentials come from AWS_*, GOOGLE_*, AZURE_*.
    #[arg(value_name = "PATH", env = "JITNEY_REPOSITORY")]
    pub repository: Option<PathBuf>,

    /// Folder where models of a URL are kept, and what loads took [default: ~/.cache/jitney]
    ///
    /// It survives restarts, and servers may share it. $XDG_CACHE_HOME goes before ~/.cache.
    #[arg(long, value_name = "PATH", env = "JITNEY_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,

    /// Bytes that the cache may hold, at least 1 [default: 10737418240, 10 GiB]
    ///
    /// What is not served goes when room is needed, the longest unused first. A model that does not
    /// fit beside what is served is not taken.
    #[arg(long, value_name = "BYTES", env = "JITNEY_CACHE_BYTES")]
    pub cache_bytes: Option<String>,

    /// Milliseconds that a version in a store rests before it is taken, 0 to 3600000 [default: 5000]
    ///
    /// Its objects have to be the same in two looks that are at least so far apart.
    #[arg(long, value_name = "MS", env = "JITNEY_REPOSITORY_REST_MS")]
    pub repository_rest_ms: Option<String>,

    /// Objects that a store may list, and files of a model in a folder, 1 to 10000000 [default: 100000]
    ///
    /// If there are more, nothing changes and the log says so.
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_REPOSITORY_OBJECTS")]
    pub max_repository_objects: Option<String>,

    /// TOML file with settings; a flag or environment variable goes before it.
    ///
    /// Its keys are the names of the flags with `_` for `-`, such as `max_requests = 4096`.
    #[arg(long, value_name = "FILE", env = "JITNEY_CONFIG")]
    pub config: Option<PathBuf>,

    /// IP address and port for gRPC and gRPC-Web [default: 127.0.0.1:8001]
    ///
    /// `0.0.0.0:8001` or `[::]:8001` serves every network interface. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", env = "JITNEY_GRPC_ADDRESS")]
    pub grpc_address: Option<String>,

    /// IP address and port for REST, or off [default: 127.0.0.1:8000]
    ///
    /// The same as --grpc-address serves both on one port.
    #[arg(long, value_name = "ADDRESS", env = "JITNEY_HTTP_ADDRESS")]
    pub http_address: Option<String>,

    /// Name that the server gives itself to clients [default: triton]
    ///
    /// Some clients and examples for Triton go on only if they find its name.
    #[arg(long, value_name = "NAME", env = "JITNEY_SERVER_NAME")]
    pub server_name: Option<String>,

    /// IP address and port for metrics, or off [default: 127.0.0.1:8002]
    ///
    /// They are at /metrics of REST too. The same as --http-address serves both on one port.
    #[arg(long, value_name = "ADDRESS", env = "JITNEY_METRICS_ADDRESS")]
    pub metrics_address: Option<String>,

    /// Tell metrics under Triton's names, nv_*, as well: true or false [default: false]
    #[arg(long, value_name = "BOOL", env = "JITNEY_TRITON_METRICS")]
    pub triton_metrics: Option<String>,

    /// Have each answer of gRPC carry a load report (ORCA): true or false [default: false]
    ///
    /// Clients that balance by load can ask for a stream of reports whether or not this is set.
    #[arg(long, value_name = "BOOL", env = "JITNEY_ORCA_TRAILERS")]
    pub orca_trailers: Option<String>,

    /// What a device costs an hour, so that metrics tell what requests cost [default: not told]
    #[arg(long, value_name = "PRICE", env = "JITNEY_DEVICE_PRICE_PER_HOUR")]
    pub device_price_per_hour: Option<String>,

    /// The console at /console of REST: off, on or control [default: on]
    ///
    /// on only shows. control has buttons that load and unload models, and needs --model-control
    /// explicit.
    #[arg(long, value_name = "MODE", env = "JITNEY_CONSOLE")]
    pub console: Option<String>,

    /// Folder for JSON files of what was decided around requests that broke their objective.
    ///
    /// The last of them are at /console/breaches without it.
    #[arg(long, value_name = "PATH", env = "JITNEY_BREACH_DIR")]
    pub breach_dir: Option<PathBuf>,

    /// Files that are kept there, the oldest going first, 1 to 10000 [default: 32]
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_BREACH_FILES")]
    pub max_breach_files: Option<String>,
    /// URL of a receiver of OTLP, such as http://localhost:4317, for traces and metrics [default: none]
    ///
    /// OTEL_EXPORTER_OTLP_ENDPOINT stands in for it, unless OTEL_SDK_DISABLED is true; OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME and
    /// OTEL_RESOURCE_ATTRIBUTES are heard, too.
    #[arg(long, value_name = "URL", env = "JITNEY_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// How it is spoken to: grpc or http [default: http on port 4318, else grpc]
    ///
    /// gRPC goes without TLS; a receiver of https is spoken to by http.
    #[arg(long, value_name = "PROTOCOL", env = "JITNEY_OTLP_PROTOCOL")]
    pub otlp_protocol: Option<String>,

    /// Milliseconds between metrics that are pushed there, 100 to 3600000 [default: 60000]
    #[arg(long, value_name = "MS", env = "JITNEY_OTLP_METRICS_INTERVAL_MS")]
    pub otlp_metrics_interval_ms: Option<String>,

    /// Share of requests that is told in traces, 0 to 1 [default: 0.01]
    ///
    /// What a traceparent header says goes before it, and slow or failed requests are told always.
    #[arg(long, value_name = "RATIO", env = "JITNEY_TRACE_RATIO")]
    pub trace_ratio: Option<String>,

    /// Let clients change what is traced: true or false [default: true]
    ///
    /// By TraceSetting or /v2/trace/setting; what they change goes before --trace-ratio.
    #[arg(long, value_name = "BOOL", env = "JITNEY_TRACE_SETTINGS")]
    pub trace_settings: Option<String>,

    /// Shared library of ONNX Runtime [default: libonnxruntime.so]
    ///
    /// The default is looked for beside the executable, then in ../lib from there, and then by the
    /// system's loader (LD_LIBRARY_PATH, ld.so.conf).
    #[arg(long, value_name = "PATH", env = "JITNEY_ONNXRUNTIME")]
    pub onnxruntime: Option<PathBuf>,

    /// Where models run whose model.toml does not say [default: auto]
    ///
    /// auto (every GPU, or the CPU if there is none), cpu, cuda (every GPU), cuda:N (GPU number N)
    /// or simulated:N.
    #[arg(long, value_name = "DEVICE", env = "JITNEY_DEVICE")]
    pub device: Option<String>,

    /// Who decides which models are loaded: start, explicit or watch [default: start]
    ///
    /// start loads every model in the repository once. explicit loads those named by --load-model,
    /// and then what RepositoryModelLoad and RepositoryModelUnload say. watch follows the
    /// repository: what appears is loaded, what changes is swapped, what goes is unloaded.
    #[arg(long, value_name = "MODE", env = "JITNEY_MODEL_CONTROL")]
    pub model_control: Option<String>,

    /// Milliseconds between looks at the repository, 10 to 3600000 [default: 2000]
    ///
    /// Matters with --model-control watch only.
    #[arg(long, value_name = "MS", env = "JITNEY_WATCH_INTERVAL_MS")]
    pub watch_interval_ms: Option<String>,

    /// Model to load at start with --model-control explicit; may be repeated.
    ///
    /// In the environment, names are separated by commas.
    #[arg(
        long,
        value_name = "NAME",
        env = "JITNEY_LOAD_MODEL",
        value_delimiter = ','
    )]
    pub load_model: Vec<String>,

    /// Models loaded at the same time, 1 to 64 [default: 2]
    ///
    /// More load sooner, and need the memory that each takes while it loads.
    #[arg(long, value_name = "COUNT", env = "JITNEY_LOAD_THREADS")]
    pub load_threads: Option<String>,

    /// Bytes of optimized graphs and TensorRT engines that are kept for later loads [default: 0, off]
    ///
    /// In the cache's folder; the longest unused go first. Up to 1099511627776, 1 TiB.
    #[arg(long, value_name = "BYTES", env = "JITNEY_GRAPH_CACHE_BYTES")]
    pub graph_cache_bytes: Option<String>,

    /// Where models run: thread or process [default: thread]
    ///
    /// thread is in the server, with the least latency. process is in a process for each version on a
    /// device, so that one that crashes or hangs takes nothing else with it, and is started again.
    #[arg(long, value_name = "WHERE", env = "JITNEY_ISOLATION")]
    pub isolation: Option<String>,

    /// Program that those processes run [default: this one]
    ///
    /// For one that confines them before it runs this one with the arguments that it was given. Its
    /// standard input has to stay open as it is.
    #[arg(long, value_name = "PATH", env = "JITNEY_WORKER_EXECUTABLE")]
    pub worker_executable: Option<PathBuf>,

    /// Milliseconds that a model may take to load there, 1 to 3600000 [default: 600000]
    #[arg(long, value_name = "MS", env = "JITNEY_WORKER_LOAD_TIMEOUT_MS")]
    pub worker_load_timeout_ms: Option<String>,

    /// Milliseconds that a batch may run, 0 to 3600000; 0 for ever [default: 60000 with process, else 0]
    ///
    /// What takes longer hangs: a process is killed and started again, a thread is given up. model.toml
    /// may say otherwise for a model.
    #[arg(long, value_name = "MS", env = "JITNEY_EXECUTOR_TIMEOUT_MS")]
    pub executor_timeout_ms: Option<String>,

    /// Deaths of its processes with which a model is left alone, 1 to 10000 [default: 5]
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_WORKER_DEATHS")]
    pub max_worker_deaths: Option<String>,

    /// Milliseconds within which they count, 1 to 3600000 [default: 60000]
    #[arg(long, value_name = "MS", env = "JITNEY_WORKER_DEATH_WINDOW_MS")]
    pub worker_death_window_ms: Option<String>,

    /// Milliseconds for which it is left alone, 0 to 3600000 [default: 600000]
    ///
    /// It is tried earlier if it is loaded again, or its files change under --model-control watch.
    #[arg(long, value_name = "MS", env = "JITNEY_WORKER_REST_MS")]
    pub worker_rest_ms: Option<String>,

    /// Bytes of each device's memory that models may take [default: no limit]
    ///
    /// What each takes is measured the first time it is loaded, one after the other, and kept in the
    /// cache's folder; later it is reserved before the load. One that does not fit is refused, with the
    /// numbers.
    #[arg(long, value_name = "BYTES", env = "JITNEY_DEVICE_MEMORY_BYTES")]
    pub device_memory_bytes: Option<String>,

    /// Unload the least recently used models where memory is short: true or false [default: false]
    ///
    /// Matters with --device-memory-bytes only. What was unloaded stays so until it is asked for.
    #[arg(long, value_name = "BOOL", env = "JITNEY_UNLOAD_LEAST_USED")]
    pub unload_least_used: Option<String>,

    /// Whether instances wait for resources before they run: execution_count or off [default: off]
    ///
    /// Resources are what instances in model.toml say that they need. With execution_count, those
    /// that wait go by how often they ran, times their priority.
    #[arg(long, value_name = "MODE", env = "JITNEY_RATE_LIMIT")]
    pub rate_limit: Option<String>,

    /// What there is of a resource, NAME:COUNT or NAME:COUNT:DEVICE; may be repeated.
    ///
    /// Without a device each has so many. A resource that is not named is there as often as the one
    /// instance needs it that needs most. In the environment, they are separated by commas.
    #[arg(
        long,
        value_name = "NAME:COUNT[:DEVICE]",
        env = "JITNEY_RATE_LIMIT_RESOURCE",
        value_delimiter = ','
    )]
    pub rate_limit_resource: Vec<String>,

    /// Bytes of answers that are kept to be given again, over all models [default: 0, off]
    ///
    /// For models whose model.toml says response_cache = true. The least recently used go first.
    #[arg(long, value_name = "BYTES", env = "JITNEY_RESPONSE_CACHE_BYTES")]
    pub response_cache_bytes: Option<String>,

    /// Bytes of files that come with loads and are kept, 0 to 1099511627776 [default: 1073741824, 1 GiB]
    ///
    /// They are in a folder of the server's own below the system's temporary one, for as long as their
    /// models are loaded. 0 takes none.
    #[arg(long, value_name = "BYTES", env = "JITNEY_MAX_UPLOADED_BYTES")]
    pub max_uploaded_bytes: Option<String>,

    /// Bytes of a version's files that are read, at least 1 [default: 68719476736, 64 GiB]
    ///
    /// Its model.onnx and the files in which that has its weights. A larger version is not loaded.
    #[arg(long, value_name = "BYTES", env = "JITNEY_MAX_MODEL_BYTES")]
    pub max_model_bytes: Option<String>,

    /// Let links lead out of the repository: true or false [default: false]
    ///
    /// For folders only. A model whose folder has such a link is else not loaded.
    #[arg(long, value_name = "BOOL", env = "JITNEY_FOLLOW_LINKS")]
    pub follow_links: Option<String>,

    /// Largest message in bytes, 1024 to 2147483647 [default: 67108864, 64 MiB]
    ///
    /// A larger request is refused with RESOURCE_EXHAUSTED.
    #[arg(long, value_name = "BYTES", env = "JITNEY_MAX_MESSAGE_BYTES")]
    pub max_message_bytes: Option<String>,

    /// Calls in progress on one connection, 1 to 1000000 [default: 1024]
    ///
    /// Further calls wait in the client (HTTP/2 SETTINGS_MAX_CONCURRENT_STREAMS).
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_CONCURRENT_STREAMS")]
    pub max_concurrent_streams: Option<String>,

    /// Connections open at the same time, 1 to 1000000 [default: 10000]
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_CONNECTIONS")]
    pub max_connections: Option<String>,

    /// Requests in progress over all connections, 1 to 1000000 [default: 8192]
    ///
    /// One more is refused at once with RESOURCE_EXHAUSTED. Probes are answered, and as many again may
    /// watch health.
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_REQUESTS")]
    pub max_requests: Option<String>,

    /// Bytes of requests in progress over all connections [default: 1073741824, 1 GiB]
    ///
    /// At least --max-message-bytes and at most 1099511627776 (1 TiB).
    #[arg(long, value_name = "BYTES", env = "JITNEY_MAX_IN_FLIGHT_BYTES")]
    pub max_in_flight_bytes: Option<String>,

    /// Unanswered requests of one ModelStreamInfer call, 1 to 65536 [default: 64]
    ///
    /// The next is read from the stream when one of them has been answered.
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_STREAM_REQUESTS")]
    pub max_stream_requests: Option<String>,

    /// Milliseconds to wait for a client that says nothing, 10 to 3600000 [default: 30000]
    ///
    /// On a new connection, in the middle of a body, and before a call of gRPC has its message whole; a
    /// stream may say nothing between two messages. The head of an HTTP/1 request has 30 seconds, and so has a connection between two of them. HTTP/2 asks clients by itself.
    #[arg(long, value_name = "MS", env = "JITNEY_READ_TIMEOUT_MS")]
    pub read_timeout_ms: Option<String>,

    /// Milliseconds that a client may take nothing of an answer, 10 to 3600000, or off [default: 60000]
    ///
    /// Then its call is ended if it speaks HTTP/2, or its connection if the socket takes nothing either.
    #[arg(long, value_name = "MS", env = "JITNEY_WRITE_TIMEOUT_MS")]
    pub write_timeout_ms: Option<String>,

    /// Milliseconds that a connection lasts, 100 to 86400000, or off [default: 1800000, half an hour]
    ///
    /// By chance a tenth more or less. Then its client is told to make another (GOAWAY, or connection:
    /// close) and its calls are finished, so that clients spread over servers that have come since.
    #[arg(long, value_name = "MS", env = "JITNEY_MAX_CONNECTION_AGE_MS")]
    pub max_connection_age_ms: Option<String>,

    /// Milliseconds that calls may go on after that, 0 to 86400000, or off [default: off]
    ///
    /// off: as long as they take, streams as well. Else what is not finished by then is cut off.
    #[arg(long, value_name = "MS", env = "JITNEY_MAX_CONNECTION_AGE_GRACE_MS")]
    pub max_connection_age_grace_ms: Option<String>,

    /// Origin whose pages may ask from a browser; may be repeated [default: none]
    ///
    /// Such as `https://example.com` or `http://localhost:3000`; `*` is every one. It goes for REST
    /// and gRPC-Web alike.
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "JITNEY_CORS_ORIGIN",
        value_delimiter = ','
    )]
    pub cors_origin: Vec<String>,

    /// Header that stands for the parameter of its name: priority or timeout; may be repeated.
    ///
    /// For proxies that know what clients do not say. A request's own parameter goes before it.
    #[arg(
        long,
        value_name = "NAME",
        env = "JITNEY_FORWARD_HEADERS",
        value_delimiter = ','
    )]
    pub forward_headers: Vec<String>,

    /// Where files of system shared memory may lie, such as /dev/shm/jitney- [default: off]
    ///
    /// A folder, whose files clients may then have read and written by the server; or a folder and how
    /// the names of those files begin.
    #[arg(long, value_name = "PATH", env = "JITNEY_SHARED_MEMORY_PREFIX")]
    pub shared_memory_prefix: Option<PathBuf>,

    /// Take regions of CUDA shared memory: true or false [default: false]
    ///
    /// A client that frees such memory while it is registered can break the GPU for everybody.
    #[arg(long, value_name = "BOOL", env = "JITNEY_CUDA_SHARED_MEMORY")]
    pub cuda_shared_memory: Option<String>,

    /// Regions of shared memory registered at the same time, 1 to 65536 [default: 1024]
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_SHARED_MEMORY_REGIONS")]
    pub max_shared_memory_regions: Option<String>,

    /// Bytes of all registered regions [default: 17179869184, 16 GiB]
    #[arg(long, value_name = "BYTES", env = "JITNEY_MAX_SHARED_MEMORY_BYTES")]
    pub max_shared_memory_bytes: Option<String>,

    /// Milliseconds to serve on after SIGTERM while not ready, 0 to 3600000 [default: 5000]
    ///
    /// Gives load balancers the time to see that this server is leaving, so that none of their
    /// calls is refused.
    #[arg(long, value_name = "MS", env = "JITNEY_LAME_DUCK_MS")]
    pub lame_duck_ms: Option<String>,

    /// Milliseconds that calls may take to finish after that, 0 to 3600000 [default: 30000]
    ///
    /// In Kubernetes, terminationGracePeriodSeconds has to cover both times.
    #[arg(long, value_name = "MS", env = "JITNEY_DRAIN_TIMEOUT_MS")]
    pub drain_timeout_ms: Option<String>,

    /// Threads that read and write the network, 1 to 1024 [default: one for each core]
    ///
    /// Models run on threads of their own.
    #[arg(long, value_name = "COUNT", env = "JITNEY_IO_THREADS")]
    pub io_threads: Option<String>,

    /// Let clients change which log lines are written: true or false [default: true]
    ///
    /// By LogSettings or /v2/logging; what they change goes before --log.
    #[arg(long, value_name = "BOOL", env = "JITNEY_LOG_SETTINGS")]
    pub log_settings: Option<String>,

    /// Which log lines are written [default: info]
    ///
    /// A level (error, warn, info, debug, trace), or levels by target: warn,jitney=debug.
    #[arg(long, value_name = "FILTER", env = "JITNEY_LOG")]
    pub log: Option<String>,

    /// How log lines are written: text, or json, an object a line [default: text]
    #[arg(long, value_name = "FORMAT", env = "JITNEY_LOG_FORMAT")]
    pub log_format: Option<String>,

    /// TLS, identity, and limits of clients.
    #[command(flatten)]
    pub security: RawSecurity,
}
