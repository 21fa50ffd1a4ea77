//! How what was typed becomes what it means.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jitney_settings::rule::{
    ADDRESS, Between, OneOf, Rule, Text, Truth, milliseconds, whole, whole_from,
};
use jitney_settings::{Problem, Report, Table, Written, read_document, read_without};

use super::isolation::IsolationConfig;
use super::location::{Location, Place};
use super::otlp::{OtlpConfig, PROTOCOLS, RECEIVER, is_off, pairs, resource, usual_protocol};
use super::raw::RawServer;
use super::resource::OFFERED;
use super::rule::{ADDRESS_OR_OFF, DEVICE, MODEL_NAME, ORIGIN, TimeOrOff};
use super::server::{ConsoleAccess, ModelControl, ServerConfig, find_cache_dir, find_onnxruntime};
use crate::model::{DeviceChoice, SharedMemoryPolicy};

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const DAY_MS: f64 = 86_400_000.0;
const MANY: RangeInclusive<usize> = 1..=1_000_000;
const MESSAGE_BYTES: RangeInclusive<usize> = 1_024..=2_147_483_647;
const IN_FLIGHT_BYTES: RangeInclusive<usize> = 1_024..=1_024 * GIB;

const CONTROLS: OneOf<'_, ModelControl> = OneOf(&[
    ("start", ModelControl::Start),
    ("explicit", ModelControl::Explicit),
    ("watch", ModelControl::Watch),
]);

const CONSOLES: OneOf<'_, ConsoleAccess> = OneOf(&[
    ("off", ConsoleAccess::Off),
    ("on", ConsoleAccess::On),
    ("control", ConsoleAccess::Control),
]);

/// Whether models run in processes of their own.
const ISOLATIONS: OneOf<'_, bool> = OneOf(&[("thread", false), ("process", true)]);

/// Whether lines are JSON.
const LOG_FORMATS: OneOf<'_, bool> = OneOf(&[("text", false), ("json", true)]);
const RATE_LIMITS: OneOf<'_, bool> = OneOf(&[("execution_count", true), ("off", false)]);
/// Parameters that may come as headers.
const FORWARDED: OneOf<'_, &'static str> =
    OneOf(&[("priority", "priority"), ("timeout", "timeout")]);

impl RawServer {
    /// What it all means: flags go before the environment, that before the file, that before the
    /// defaults. Reads the file, and reports everything that is wrong anywhere.
    pub fn resolve(self) -> Result<ServerConfig, Report> {
        let Some(file) = self.config.clone() else {
            return read_document(Path::new(""), "", |table| self.settle(table));
        };
        match std::fs::read_to_string(&file) {
            Ok(source) => read_document(&file, &source, |table| self.settle(table)),
            Err(error) => read_without(&file, &error, |table| self.settle(table)),
        }
    }

    fn settle(self, table: &mut Table<'_, '_>) -> ServerConfig {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let second = Duration::from_secs(1);
        let mut s = Settings(table);
        let config = ServerConfig {
            repository: s.repository(self.repository),
            cache_dir: s.cache_dir(self.cache_dir),
            cache_bytes: s.one(
                "cache_bytes",
                self.cache_bytes,
                whole_from(1),
                10 * GIB as u64,
            ),
            repository_rest: s.time(
                "repository_rest_ms",
                self.repository_rest_ms,
                0.0,
                5 * second,
            ),
            max_repository_objects: s.count(
                "max_repository_objects",
                self.max_repository_objects,
                1..=10_000_000,
                100_000,
            ),
            grpc_address: s.one("grpc_address", self.grpc_address, ADDRESS, loopback(8001)),
            http_address: s.one(
                "http_address",
                self.http_address,
                ADDRESS_OR_OFF,
                Some(loopback(8000)),
            ),
            server_name: s.one("server_name", self.server_name, Text, "triton".to_owned()),
            metrics_address: s.one(
                "metrics_address",
                self.metrics_address,
                ADDRESS_OR_OFF,
                Some(loopback(8002)),
            ),
            triton_metrics: s.one("triton_metrics", self.triton_metrics, Truth, false),
            orca_trailers: s.one("orca_trailers", self.orca_trailers, Truth, false),
            device_price_per_hour: s.perhaps(
                "device_price_per_hour",
                self.device_price_per_hour,
                Between(0.0..=1e6),
            ),
            console: s.one("console", self.console, CONSOLES, ConsoleAccess::On),
            breach_dir: s.perhaps_path("breach_dir", self.breach_dir),
            max_breach_files: s.count("max_breach_files", self.max_breach_files, 1..=10_000, 32),
            otlp: s.otlp(
                self.otlp_endpoint,
                self.otlp_protocol,
                self.otlp_metrics_interval_ms,
                self.trace_ratio,
            ),
            trace_settings: s.one("trace_settings", self.trace_settings, Truth, true),
            onnxruntime: s.onnxruntime(self.onnxruntime),
            device: s.one("device", self.device, DEVICE, DeviceChoice::Auto),
            model_control: s.one(
                "model_control",
                self.model_control,
                CONTROLS,
                ModelControl::Start,
            ),
            watch_interval: s.time(
                "watch_interval_ms",
                self.watch_interval_ms,
                10.0,
                2 * second,
            ),
            load_models: s.names("load_model", &self.load_model, MODEL_NAME),
            load_threads: s.count("load_threads", self.load_threads, 1..=64, 2),
            graph_cache_bytes: s.count("graph_cache_bytes", self.graph_cache_bytes, 0..=1 << 40, 0),
            isolation: {
                let process = s.one("isolation", self.isolation, ISOLATIONS, false);
                // A thread that hangs can only be given up, and to look for that costs a little.
                let executor_timeout = match process {
                    true => IsolationConfig::EXECUTOR_TIMEOUT,
                    false => Duration::ZERO,
                };
                IsolationConfig {
                    process,
                    worker_executable: s.perhaps_path("worker_executable", self.worker_executable),
                    worker_load_timeout: s.time(
                        "worker_load_timeout_ms",
                        self.worker_load_timeout_ms,
                        1.0,
                        600 * second,
                    ),
                    executor_timeout: Some(s.time(
                        "executor_timeout_ms",
                        self.executor_timeout_ms,
                        0.0,
                        executor_timeout,
                    ))
                    .filter(|timeout| !timeout.is_zero()),
                    max_worker_deaths: s.count(
                        "max_worker_deaths",
                        self.max_worker_deaths,
                        1..=10_000,
                        5,
                    ),
                    worker_death_window: s.time(
                        "worker_death_window_ms",
                        self.worker_death_window_ms,
                        1.0,
                        60 * second,
                    ),
                    worker_rest: s.time("worker_rest_ms", self.worker_rest_ms, 0.0, 600 * second),
                }
            },
            device_memory_bytes: s.perhaps(
                "device_memory_bytes",
                self.device_memory_bytes,
                whole_from(1),
            ),
            unload_least_used: s.one("unload_least_used", self.unload_least_used, Truth, false),
            rate_limit: s.one("rate_limit", self.rate_limit, RATE_LIMITS, false),
            rate_limit_resources: s.names(
                "rate_limit_resource",
                &self.rate_limit_resource,
                OFFERED,
            ),
            response_cache_bytes: s.count(
                "response_cache_bytes",
                self.response_cache_bytes,
                0..=1_024 * GIB,
                0,
            ),
            max_uploaded_bytes: s.count(
                "max_uploaded_bytes",
                self.max_uploaded_bytes,
                0..=1 << 40,
                1 << 30,
            ),
            max_model_bytes: s.one(
                "max_model_bytes",
                self.max_model_bytes,
                whole_from(1),
                64 * GIB as u64,
            ),
            follow_links: s.one("follow_links", self.follow_links, Truth, false),
            max_message_bytes: s.count(
                "max_message_bytes",
                self.max_message_bytes,
                MESSAGE_BYTES,
                64 * MIB,
            ),
            max_concurrent_streams: s.count(
                "max_concurrent_streams",
                self.max_concurrent_streams,
                1..=1_000_000,
                1_024,
            ),
            max_connections: s.count("max_connections", self.max_connections, MANY, 10_000),
            max_requests: s.count("max_requests", self.max_requests, MANY, 8_192),
            max_in_flight_bytes: s.count(
                "max_in_flight_bytes",
                self.max_in_flight_bytes,
                IN_FLIGHT_BYTES,
                GIB,
            ),
            max_stream_requests: s.count(
                "max_stream_requests",
                self.max_stream_requests,
                1..=65_536,
                64,
            ),
            read_timeout: s.time("read_timeout_ms", self.read_timeout_ms, 10.0, 30 * second),
            write_timeout: s.one(
                "write_timeout_ms",
                self.write_timeout_ms,
                TimeOrOff(10.0..=3_600_000.0),
                Some(60 * second),
            ),
            max_connection_age: s.one(
                "max_connection_age_ms",
                self.max_connection_age_ms,
                TimeOrOff(100.0..=DAY_MS),
                Some(1_800 * second),
            ),
            max_connection_age_grace: s.one(
                "max_connection_age_grace_ms",
                self.max_connection_age_grace_ms,
                TimeOrOff(0.0..=DAY_MS),
                None,
            ),
            cors_origins: s.names("cors_origin", &self.cors_origin, ORIGIN),
            forward_headers: s.names("forward_headers", &self.forward_headers, FORWARDED),
            shared_memory: SharedMemoryPolicy {
                prefix: s.perhaps_path("shared_memory_prefix", self.shared_memory_prefix),
                cuda: s.one("cuda_shared_memory", self.cuda_shared_memory, Truth, false),
                max_regions: s.count(
                    "max_shared_memory_regions",
                    self.max_shared_memory_regions,
                    1..=65_536,
                    1_024,
                ),
                max_bytes: s.one(
                    "max_shared_memory_bytes",
                    self.max_shared_memory_bytes,
                    whole_from(1),
                    16 * GIB as u64,
                ),
            },
            lame_duck: s.time("lame_duck_ms", self.lame_duck_ms, 0.0, 5 * second),
            drain_timeout: s.time("drain_timeout_ms", self.drain_timeout_ms, 0.0, 30 * second),
            io_threads: s.count("io_threads", self.io_threads, 1..=1_024, cores()),
            log_settings: s.one("log_settings", self.log_settings, Truth, true),
            log: s.one("log", self.log, Text, "info".to_owned()),
            log_json: s.one("log_format", self.log_format, LOG_FORMATS, false),
            security: s.security(self.security),
        };
        s.contradictions(&config);
        config
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The file's table, with what was typed going before it.
///
/// A setting of the file is `key`; its flag and variable are `--key` and `JITNEY_KEY`.
struct Settings<'t, 'd, 'l>(&'t mut Table<'d, 'l>);

impl<'d> Settings<'_, 'd, '_> {
    fn one<R: Rule>(
        &mut self,
        key: &'d str,
        typed: Option<String>,
        rule: R,
        default: R::Output,
    ) -> R::Output {
        self.perhaps(key, typed, rule).unwrap_or(default)
    }

    fn perhaps<R: Rule>(
        &mut self,
        key: &'d str,
        typed: Option<String>,
        rule: R,
    ) -> Option<R::Output> {
        let typed = typed.and_then(|text| self.typed(key, &text, &rule));
        let filed = self.0.value(key, rule);
        typed.or(filed)
    }

    fn count<T>(
        &mut self,
        key: &'d str,
        typed: Option<String>,
        range: RangeInclusive<T>,
        default: T,
    ) -> T
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        self.one(key, typed, whole(range), default)
    }

    fn time(
        &mut self,
        key: &'d str,
        typed: Option<String>,
        low: f64,
        default: Duration,
    ) -> Duration {
        self.one(key, typed, milliseconds(low..=3_600_000.0), default)
    }

    fn repository(&mut self, typed: Option<PathBuf>) -> Location {
        const NAME: &str = "PATH or JITNEY_REPOSITORY";
        let filed = self.0.value("repository", Place);
        let Some(typed) = typed else {
            if filed.is_none() && self.0.lacks("repository") {
                let message = "missing; say which folder or URL holds the models".to_owned();
                self.0.note(Problem::loose(NAME, message));
            }
            return filed.unwrap_or_default();
        };
        // What is not text is no URL.
        let Some(text) = typed.to_str() else {
            return Location::Folder(typed);
        };
        Place.check(Written::Plain(text)).unwrap_or_else(|message| {
            self.0.note(Problem::loose(NAME, message));
            Location::default()
        })
    }

    fn cache_dir(&mut self, typed: Option<PathBuf>) -> PathBuf {
        let filed = self.0.value("cache_dir", Text).map(PathBuf::from);
        let found = || find_cache_dir(|name| std::env::var_os(name));
        typed.or(filed).unwrap_or_else(found)
    }

    fn perhaps_path(&mut self, key: &'d str, typed: Option<PathBuf>) -> Option<PathBuf> {
        let filed = self.0.value(key, Text).map(PathBuf::from);
        typed.or(filed)
    }

    fn onnxruntime(&mut self, typed: Option<PathBuf>) -> PathBuf {
        let filed = self.0.value("onnxruntime", Text).map(PathBuf::from);
        let found = || find_onnxruntime(std::env::current_exe().ok().as_deref());
        typed.or(filed).unwrap_or_else(found)
    }

    /// None without a receiver, whatever else is said.
    fn otlp(
        &mut self,
        endpoint: Option<String>,
        protocol: Option<String>,
        interval: Option<String>,
        ratio: Option<String>,
    ) -> Option<OtlpConfig> {
        let minute = Duration::from_secs(60);
        let endpoint = self.perhaps("otlp_endpoint", endpoint, RECEIVER);
        let protocol = self.perhaps("otlp_protocol", protocol, PROTOCOLS);
        let metrics_interval = self.time("otlp_metrics_interval_ms", interval, 100.0, minute);
        let trace_ratio = self.one("trace_ratio", ratio, Between(0.0..=1.0), 0.01);
        // What is set for every program is turned off for every program, too; a flag is for this one.
        let endpoint = endpoint.or_else(|| match is_off(variable) {
            true => None,
            false => self.shared("OTEL_EXPORTER_OTLP_ENDPOINT", RECEIVER),
        })?;
        let protocol = protocol.or_else(|| self.shared("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOLS));
        Some(OtlpConfig {
            http: protocol.unwrap_or_else(|| usual_protocol(&endpoint)),
            endpoint,
            headers: pairs(&variable("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default()),
            resource: resource(variable),
            trace_ratio,
            metrics_interval,
        })
    }

    /// A variable that other programs hear, too.
    fn shared<R: Rule>(&mut self, name: &str, rule: R) -> Option<R::Output> {
        let text = variable(name).filter(|text| !text.is_empty())?;
        let value = rule.check(Written::Plain(&text));
        value
            .map_err(|message| self.0.note(Problem::loose(name, message)))
            .ok()
    }

    /// A flag that may be repeated; a list in the file.
    fn names<R: Rule>(&mut self, key: &'d str, typed: &[String], rule: R) -> Vec<R::Output> {
        let mut names = Vec::new();
        for name in typed {
            names.extend(self.typed(key, name, &rule));
        }
        let filed = self.0.list(key, rule).unwrap_or_default();
        match typed.is_empty() {
            true => filed,
            false => names,
        }
    }

    fn typed<R: Rule>(&mut self, key: &str, text: &str, rule: &R) -> Option<R::Output> {
        rule.check(Written::Plain(text))
            .map_err(|message| self.0.note(Problem::loose(&typed_name(key), message)))
            .ok()
    }

    // Only between settings that are sound by themselves: a default that stands in for a mistake
    // contradicts nothing.
    fn contradictions(&mut self, config: &ServerConfig) {
        if !self.0.is_sound() {
            return;
        }
        let (message, in_flight) = (config.max_message_bytes, config.max_in_flight_bytes);
        if in_flight < message {
            let message =
                format!("found {in_flight}; allowed: at least max_message_bytes, {message}");
            self.0.note(Problem::loose("max_in_flight_bytes", message));
        }
        let mut otlp = config.otlp.iter();
        if otlp.any(|otlp| !otlp.http && otlp.endpoint.scheme() == "https") {
            let message = "is of https, which goes with otlp_protocol \"http\" only";
            let problem = Problem::loose("otlp_endpoint", message.to_owned());
            self.0.note(problem);
        }
        let remote = matches!(config.repository, Location::Store(_));
        if remote && config.cache_dir.as_os_str().is_empty() {
            let message = "missing; say where models of a URL are kept, for neither XDG_CACHE_HOME \
                           nor HOME is set";
            self.0.note(Problem::loose("cache_dir", message.to_owned()));
        }
        if !config.load_models.is_empty() && config.model_control != ModelControl::Explicit {
            let message = "names models, which only model_control \"explicit\" allows";
            self.0
                .note(Problem::loose("load_model", message.to_owned()));
        }
        let controls = config.console == ConsoleAccess::Control;
        if controls && config.model_control != ModelControl::Explicit {
            let message = "found \"control\", which only model_control \"explicit\" allows";
            self.0.note(Problem::loose("console", message.to_owned()));
        }
    }
}

// The command line and the environment reach us as one: clap has merged them.
fn typed_name(key: &str) -> String {
    let (flag, variable) = (key.replace('_', "-"), key.to_uppercase());
    format!("--{flag} or JITNEY_{variable}")
}

mod security;
#[cfg(test)]
mod tests;
