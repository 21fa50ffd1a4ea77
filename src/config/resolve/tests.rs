use std::net::SocketAddr;

use clap::{Args, Command, FromArgMatches};

use super::*;
use crate::config::SecurityConfig;
use crate::model::{ClientLimits, OfferedResource, TlsFiles};

fn command() -> Command {
    RawServer::augment_args(Command::new("serve"))
}

fn parse(arguments: &[&str]) -> RawServer {
    let arguments = [&["serve"], arguments].concat();
    // The environment of whoever runs the tests is not under test.
    let command = command().mut_args(|argument| argument.env(None));
    let matches = command.try_get_matches_from(arguments).unwrap();
    RawServer::from_arg_matches(&matches).unwrap()
}

fn resolve(arguments: &[&str]) -> Result<ServerConfig, String> {
    parse(arguments)
        .resolve()
        .map_err(|report| report.to_string())
}

/// Resolves `arguments` with `source` as the file, which the messages call `FILE`.
fn resolve_with(source: &str, arguments: &[&str]) -> Result<ServerConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jitney.toml");
    std::fs::write(&file, source).unwrap();
    let mut raw = parse(arguments);
    raw.config = Some(file.clone());
    let shorten = |report: Report| report.to_string().replace(file.to_str().unwrap(), "FILE");
    raw.resolve().map_err(shorten)
}

fn defaults() -> ServerConfig {
    ServerConfig {
        repository: Location::Folder(PathBuf::from("models")),
        cache_dir: find_cache_dir(|name| std::env::var_os(name)),
        cache_bytes: 10_737_418_240,
        repository_rest: Duration::from_millis(5_000),
        max_repository_objects: 100_000,
        grpc_address: "127.0.0.1:8001".parse().unwrap(),
        http_address: Some("127.0.0.1:8000".parse().unwrap()),
        server_name: "triton".to_owned(),
        metrics_address: Some("127.0.0.1:8002".parse().unwrap()),
        triton_metrics: false,
        orca_trailers: false,
        device_price_per_hour: None,
        console: ConsoleAccess::On,
        breach_dir: None,
        max_breach_files: 32,
        otlp: None,
        trace_settings: true,
        onnxruntime: find_onnxruntime(std::env::current_exe().ok().as_deref()),
        device: DeviceChoice::Auto,
        model_control: ModelControl::Start,
        watch_interval: Duration::from_millis(2_000),
        load_models: Vec::new(),
        load_threads: 2,
        isolation: IsolationConfig {
            process: false,
            worker_executable: None,
            worker_load_timeout: Duration::from_millis(600_000),
            executor_timeout: None,
            max_worker_deaths: 5,
            worker_death_window: Duration::from_millis(60_000),
            worker_rest: Duration::from_millis(600_000),
        },
        rate_limit: false,
        rate_limit_resources: Vec::new(),
        response_cache_bytes: 0,
        max_model_bytes: 68_719_476_736,
        follow_links: false,
        max_message_bytes: 67_108_864,
        max_concurrent_streams: 1_024,
        max_connections: 10_000,
        max_requests: 8_192,
        max_in_flight_bytes: 1_073_741_824,
        graph_cache_bytes: 0,
        device_memory_bytes: None,
        unload_least_used: false,
        max_uploaded_bytes: 1_073_741_824,
        max_stream_requests: 64,
        read_timeout: Duration::from_millis(30_000),
        write_timeout: Some(Duration::from_secs(60)),
        max_connection_age: Some(Duration::from_secs(1_800)),
        max_connection_age_grace: None,
        cors_origins: Vec::new(),
        forward_headers: Vec::new(),
        shared_memory: SharedMemoryPolicy {
            prefix: None,
            cuda: false,
            max_regions: 1_024,
            max_bytes: 17_179_869_184,
        },
        lame_duck: Duration::from_millis(5_000),
        drain_timeout: Duration::from_millis(30_000),
        io_threads: cores(),
        log_settings: true,
        log: "info".to_owned(),
        log_json: false,
        security: SecurityConfig {
            tls: None,
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 1_024,
            identity: None,
            open_control: false,
            clients: ClientLimits {
                rate: None,
                burst: 1.0,
                concurrency: None,
                max_clients: 10_000,
            },
        },
    }
}

#[test]
fn a_repository_is_all_it_needs() {
    assert_eq!(resolve(&["models"]), Ok(defaults()));
    assert_eq!(resolve_with("repository = \"models\"", &[]), Ok(defaults()));
    let expected = "PATH or JITNEY_REPOSITORY: missing; say which folder or URL holds the models";
    assert_eq!(resolve(&[]), Err(expected.to_owned()));
}

#[test]
fn every_key_of_the_file() {
    let source = r#"
repository = "here"
cache_dir = "/var/cache"
cache_bytes = 1
repository_rest_ms = 0
max_repository_objects = 2
grpc_address = "[::]:9000"
http_address = "off"
server_name = "jitney"
metrics_address = "[::]:9002"
triton_metrics = true
orca_trailers = true
device_price_per_hour = 2.5
console = "control"
breach_dir = "/var/breaches"
max_breach_files = 3
onnxruntime = "/opt/libonnxruntime.so"
device = "cuda"
model_control = "explicit"
watch_interval_ms = 10
load_model = ["a", "b"]
load_threads = 3
isolation = "process"
worker_executable = "/opt/confined"
worker_load_timeout_ms = 1
executor_timeout_ms = 2
max_worker_deaths = 3
worker_death_window_ms = 4
worker_rest_ms = 5
rate_limit = "execution_count"
rate_limit_resource = ["slots:2:cpu"]
response_cache_bytes = 1000000
max_model_bytes = 9
follow_links = true
max_message_bytes = 2_048
max_concurrent_streams = 4
max_connections = 5
max_requests = 6
max_in_flight_bytes = 4_096
max_stream_requests = 7
max_uploaded_bytes = 8
graph_cache_bytes = 9
device_memory_bytes = 5
unload_least_used = true
read_timeout_ms = 100
write_timeout_ms = 200
max_connection_age_ms = "off"
max_connection_age_grace_ms = 100.5
cors_origin = ["https://example.com:8443", "*"]
forward_headers = ["timeout", "priority"]
shared_memory_prefix = "/dev/shm/x-"
cuda_shared_memory = true
max_shared_memory_regions = 10
max_shared_memory_bytes = 11
log_settings = false
lame_duck_ms = 0
drain_timeout_ms = 8.5
io_threads = 9
log = "debug"
log_format = "json"
tls_cert = "/tls/tls.crt"
tls_key = "/tls/tls.key"
tls_client_ca = "/tls/ca.crt"
handshake_timeout_ms = 20
max_handshakes = 12
identity = "/etc/identity.toml"
open_control = true
client_rate = 0.5
client_burst = 3
client_concurrency = 13
max_clients = 14
otlp_endpoint = "http://host:4317"
otlp_protocol = "http"
otlp_metrics_interval_ms = 1000
trace_ratio = 0.5
trace_settings = false
"#;
    let expected = ServerConfig {
        repository: Location::Folder(PathBuf::from("here")),
        cache_dir: PathBuf::from("/var/cache"),
        cache_bytes: 1,
        repository_rest: Duration::ZERO,
        max_repository_objects: 2,
        grpc_address: SocketAddr::from(([0_u16; 8], 9_000)),
        http_address: None,
        server_name: "jitney".to_owned(),
        metrics_address: Some("[::]:9002".parse().unwrap()),
        triton_metrics: true,
        orca_trailers: true,
        device_price_per_hour: Some(2.5),
        console: ConsoleAccess::Control,
        breach_dir: Some(PathBuf::from("/var/breaches")),
        max_breach_files: 3,
        otlp: Some(OtlpConfig {
            endpoint: "http://host:4317".parse().unwrap(),
            http: true,
            headers: Vec::new(),
            resource: Vec::new(),
            trace_ratio: 0.5,
            metrics_interval: Duration::from_secs(1),
        }),
        trace_settings: false,
        onnxruntime: PathBuf::from("/opt/libonnxruntime.so"),
        device: DeviceChoice::CudaAll,
        model_control: ModelControl::Explicit,
        watch_interval: Duration::from_millis(10),
        load_models: vec!["a".to_owned(), "b".to_owned()],
        load_threads: 3,
        isolation: IsolationConfig {
            process: true,
            worker_executable: Some(PathBuf::from("/opt/confined")),
            worker_load_timeout: Duration::from_millis(1),
            executor_timeout: Some(Duration::from_millis(2)),
            max_worker_deaths: 3,
            worker_death_window: Duration::from_millis(4),
            worker_rest: Duration::from_millis(5),
        },
        rate_limit: true,
        rate_limit_resources: vec![OfferedResource {
            name: "slots".to_owned(),
            count: 2,
            device: Some(DeviceChoice::Cpu),
        }],
        response_cache_bytes: 1_000_000,
        max_message_bytes: 2_048,
        max_concurrent_streams: 4,
        max_model_bytes: 9,
        follow_links: true,
        max_connections: 5,
        max_requests: 6,
        max_in_flight_bytes: 4_096,
        graph_cache_bytes: 9,
        device_memory_bytes: Some(5),
        unload_least_used: true,
        max_uploaded_bytes: 8,
        max_stream_requests: 7,
        read_timeout: Duration::from_millis(100),
        write_timeout: Some(Duration::from_millis(200)),
        max_connection_age: None,
        max_connection_age_grace: Some(Duration::from_micros(100_500)),
        cors_origins: vec!["https://example.com:8443".to_owned(), "*".to_owned()],
        forward_headers: vec!["timeout", "priority"],
        shared_memory: SharedMemoryPolicy {
            prefix: Some(PathBuf::from("/dev/shm/x-")),
            cuda: true,
            max_regions: 10,
            max_bytes: 11,
        },
        lame_duck: Duration::ZERO,
        drain_timeout: Duration::from_micros(8_500),
        io_threads: 9,
        log_settings: false,
        log: "debug".to_owned(),
        log_json: true,
        security: SecurityConfig {
            tls: Some(TlsFiles {
                certificate: PathBuf::from("/tls/tls.crt"),
                key: PathBuf::from("/tls/tls.key"),
                client_ca: Some(PathBuf::from("/tls/ca.crt")),
            }),
            handshake_timeout: Duration::from_millis(20),
            max_handshakes: 12,
            identity: Some(PathBuf::from("/etc/identity.toml")),
            open_control: true,
            clients: ClientLimits {
                rate: Some(0.5),
                burst: 3.0,
                concurrency: Some(13),
                max_clients: 14,
            },
        },
    };
    assert_eq!(resolve_with(source, &[]), Ok(expected));
}

#[test]
fn a_batch_may_run_for_ever_only_where_it_cannot_be_killed() {
    let timeout = |flags: &[&str]| {
        let config = resolve(&[&["models"], flags].concat()).unwrap();
        config.isolation.executor_timeout
    };
    assert_eq!(timeout(&[]), None);
    let process = "--isolation=process";
    assert_eq!(timeout(&[process]), Some(Duration::from_secs(60)));
    assert_eq!(timeout(&[process, "--executor-timeout-ms=0"]), None);
}

#[test]
fn what_was_typed_goes_before_the_file() {
    let source = "repository = \"filed\"\nmax_requests = 5\nload_model = [\"a\"]\nlog = \"warn\"\n";
    let flags = [
        "typed",
        "--max-requests",
        "6",
        "--load-model",
        "b,c",
        "--load-model=d",
    ];
    let control = ["--model-control", "explicit"];
    let config = resolve_with(source, &[flags.as_slice(), &control].concat()).unwrap();
    assert_eq!(config.repository, Location::Folder(PathBuf::from("typed")));
    assert_eq!(config.max_requests, 6);
    assert_eq!(config.load_models, ["b", "c", "d"]);
    assert_eq!(config.log, "warn");
}

#[test]
fn mistakes_in_the_flags_and_in_the_file_are_told_together() {
    let source = "repository = 1\nport = 8001\ndevice = \"gpu\"\nmax_request = 3\n";
    let flags = [
        "--grpc-address=localhost",
        "--max-requests=0",
        "--load-model=../x",
    ];
    let expected = r#"--grpc-address or JITNEY_GRPC_ADDRESS: found "localhost"; allowed: an IP address and a port, such as "0.0.0.0:8001" or "[::]:8001"
--load-model or JITNEY_LOAD_MODEL: found "../x"; allowed: a model's name: 1 to 255 letters, digits, '.', '_' or '-', not starting with '.'
--max-requests or JITNEY_MAX_REQUESTS: found "0"; allowed: a whole number, 1 to 1000000
FILE:1: repository: found 1; allowed: a folder, or a URL such as s3://BUCKET/PREFIX
FILE:2: port: unknown key; allowed here: KEYS
FILE:3: device: found "gpu"; allowed: "auto", "cpu", "cuda", "cuda:N", "simulated:N"
FILE:4: max_request: unknown key; did you mean max_requests? allowed here: KEYS"#;
    let found = resolve_with(source, &flags).unwrap_err();
    assert_eq!(found.replace(&keys().join(", "), "KEYS"), expected);
}

#[test]
fn a_file_that_cannot_be_read_hides_no_other_mistake() {
    let found = resolve(&["--config=/no/such.toml", "--device=tpu"]).unwrap_err();
    let expected = r#"--device or JITNEY_DEVICE: found "tpu"; allowed: "auto", "cpu", "cuda", "cuda:N", "simulated:N"
/no/such.toml: cannot be read: No such file or directory (os error 2)"#;
    assert_eq!(found, expected);
    let found = resolve_with("= 1", &["--io-threads=none"]).unwrap_err();
    let expected = "--io-threads or JITNEY_IO_THREADS: found \"none\"; allowed: a whole number, 1 to 1024\nFILE:1:1: ";
    assert!(found.starts_with(expected), "{found}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let flags = [
        "--max-in-flight-bytes=2048",
        "--load-model=a",
        "--console=control",
    ];
    let found = resolve(&[&["models"], flags.as_slice()].concat());
    let expected = "max_in_flight_bytes: found 2048; allowed: at least max_message_bytes, 67108864\n\
                    load_model: names models, which only model_control \"explicit\" allows\n\
                    console: found \"control\", which only model_control \"explicit\" allows";
    assert_eq!(found, Err(expected.to_owned()));
    let found = resolve(&["models", "--otlp-endpoint=https://host:4317"]);
    let expected = "otlp_endpoint: is of https, which goes with otlp_protocol \"http\" only";
    assert_eq!(found, Err(expected.to_owned()));
}

#[test]
fn a_url_is_checked_wherever_it_is_written() {
    let url = "s3://bucket/models";
    let store = Location::Store(url.parse().unwrap());
    let flags = ["--cache-dir=/c"];
    let filed = format!("repository = {url:?}");
    assert_eq!(resolve(&[url, "--cache-dir=/c"]).unwrap().repository, store);
    assert_eq!(resolve_with(&filed, &flags).unwrap().repository, store);
    let found = resolve(&["ftp://host"]).unwrap_err();
    let expected = "PATH or JITNEY_REPOSITORY: found a URL of \"ftp\"; allowed: a folder, or";
    assert!(found.starts_with(expected), "{found}");
    let found = resolve_with("\nrepository = \"s3://a:b@c\"", &[]).unwrap_err();
    assert!(found.starts_with("FILE:2: repository: a URL of"), "{found}");
}

/// The settings, by the names they have in the file.
fn keys() -> Vec<String> {
    let ids = command()
        .get_arguments()
        .map(|argument| argument.get_id().to_string())
        .collect();
    let mut keys: Vec<String> = ids;
    keys.retain(|key| key != "config");
    keys
}

#[test]
fn flags_variables_and_keys_agree() {
    for argument in command().get_arguments() {
        let key = argument.get_id().to_string();
        let variable = argument.get_env().unwrap().to_str().unwrap();
        assert_eq!(variable, format!("JITNEY_{}", key.to_uppercase()));
        if key != "repository" {
            assert_eq!(argument.get_long(), Some(key.replace('_', "-").as_str()));
        }
    }
}

#[test]
fn the_reference_names_every_setting() {
    let reference = include_str!("../../../docs/configuration.md");
    for key in keys() {
        let variable = format!("`JITNEY_{}`", key.to_uppercase());
        assert!(reference.contains(&format!("`{key}`")), "{key}");
        assert!(reference.contains(&variable), "{variable}");
    }
}

#[test]
fn half_of_what_belongs_together_is_a_mistake() {
    for (flags, told) in [
        (
            ["models", "--tls-cert=a"].as_slice(),
            "tls_key: missing; tls_cert needs it",
        ),
        (
            &["models", "--tls-key=a"],
            "tls_cert: missing; tls_key needs it",
        ),
        (
            &["models", "--tls-client-ca=a"],
            "tls_cert: missing; tls_client_ca needs it",
        ),
        (
            &["models", "--client-burst=2"],
            "client_burst: is of client_rate, which is missing",
        ),
        (
            &["models", "--client-rate=0"],
            "--client-rate or JITNEY_CLIENT_RATE: found \"0\"",
        ),
    ] {
        assert!(resolve(flags).unwrap_err().starts_with(told), "{told}");
    }
    let burst = |rate: &str| {
        resolve(&["models", "--client-rate", rate])
            .unwrap()
            .security
            .clients
            .burst
    };
    assert_eq!((burst("0.5"), burst("20")), (1.0, 20.0));
}
