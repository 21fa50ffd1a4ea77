//! The composition root: builds the parts, binds, runs, and leaves in good order.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::backend::Backend;
use crate::backend::ort::{GraphCache, Library, LibraryError, OrtBackend};
use crate::backend::process::{Launch, ProcessBackend, Program};
use crate::backend::simulated::SimulatedBackend;
use crate::clock::{Clock, Moment, MonotonicClock};
use crate::config::{
    ConsoleAccess, Location, ModelControl, OtlpConfig, ServerConfig, read_access,
    write_model_policy,
};
use crate::device::{Inventory, Unavailable};
use crate::frontend::{
    Api, Console, Frontend, Limits, Origins, Policy, Protocols, Readiness, Security, SecurityError,
};
use crate::repository::{FolderRules, RemoteSettings, RepositoryError, Uploads};
use crate::serving::{
    Backends, BreakerPolicy, Catalog, Containment, Control, Engine, Limiter, Loader, Logbook,
    Reconciler, Repository, ResponseCache, SharedMemory, Watchdog,
};
use crate::telemetry::otlp::{Destination, Exporter, Protocol, SendError};
use crate::telemetry::{self, Breaches, DoorCounts, Metrics, Requests, Shelf, Tracer};
use crate::wire::Entry;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// ONNX Runtime is missing.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The device asked for is missing.
    #[error(transparent)]
    Device(#[from] Unavailable),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The folder of shared memory is missing.
    #[error(
        "shared_memory_prefix: {prefix}: {source}; name a folder, or a folder and how names begin"
    )]
    SharedMemory {
        /// What was asked for.
        prefix: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was to make the server safe cannot be had.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Traces and metrics cannot be sent.
    #[error(transparent)]
    Otlp(#[from] SendError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}, which --{flag} sets")]
    Bind {
        /// What names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// How the server ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Calls were still in progress when the time to finish was up.
    #[error("calls were still in progress {0:?} after the server stopped taking new ones")]
    NotDrained(Duration),
    /// A task of ours failed.
    #[error("serving panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// What models run with on this machine.
pub struct Machine {
    /// Its devices.
    pub inventory: Arc<Inventory>,
    /// What runs models.
    pub backends: Backends,
    /// ONNX Runtime.
    pub library: Arc<Library>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Looks after executors in threads.
    pub watchdog: Arc<Watchdog>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Machine").finish_non_exhaustive()
    }
}

impl Machine {
    /// Loads ONNX Runtime and finds the devices; fails if `config` asks for one that is not there.
    pub fn open(config: &ServerConfig) -> Result<Self, StartError> {
        let library = Library::load(&config.onnxruntime)?;
        let inventory = Arc::new(Inventory::detect());
        for error in inventory.broken() {
            tracing::error!(%error, "a GPU cannot be used; the others are");
        }
        inventory.choose(&config.device, &config.device)?;
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::start());
        let apart = |backend| isolated(config, backend);
        let graphs = GraphCache::new(&config.cache_dir, config.graph_cache_bytes);
        let onnx_runtime = OrtBackend::new(Arc::clone(&library), graphs);
        let onnx_runtime = onnx_runtime.with_most_bytes(config.max_model_bytes);
        let simulated = SimulatedBackend::new(Arc::clone(&clock), inventory.simulated());
        let backends = Backends {
            onnx_runtime: apart(Arc::new(onnx_runtime)),
            simulated: apart(Arc::new(simulated)),
            about: match config.isolation.process {
                false => library.about().to_owned(),
                true => format!("{}, apart", library.about()),
            },
        };
        Ok(Self {
            inventory,
            backends,
            library,
            clock,
            watchdog: Arc::default(),
        })
    }

    /// A loader of models on this machine.
    pub fn loader(&self, config: &ServerConfig, catalog: &Catalog) -> Loader {
        Loader::new(
            self.backends.clone(),
            Arc::clone(&self.inventory),
            config.device.clone(),
            Arc::clone(&self.clock),
            catalog.changes().clone(),
            config.device_memory_bytes,
        )
        .with_limiter(
            config
                .rate_limit
                .then(|| Limiter::new(config.rate_limit_resources.clone())),
        )
        .with_containment(Containment {
            executor_timeout: config.isolation.executor_timeout,
            breaker: BreakerPolicy {
                deaths: config.isolation.max_worker_deaths,
                window: config.isolation.worker_death_window,
                rest: config.isolation.worker_rest,
            },
            watchdog: Arc::clone(&self.watchdog),
        })
    }
}

/// A backend, in processes of its own if models are to run there.
fn isolated(config: &ServerConfig, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    let isolation = &config.isolation;
    if !isolation.process {
        return backend;
    }
    // The link finds the program even when its file has been replaced.
    let own = || PathBuf::from("/proc/self/exe");
    let log_format = if config.log_json { "json" } else { "text" };
    let program = Program {
        file: isolation.worker_executable.clone().unwrap_or_else(own),
        arguments: vec![
            "worker".into(),
            "--onnxruntime".into(),
            config.onnxruntime.clone().into(),
            "--log".into(),
            config.log.clone().into(),
            "--log-format".into(),
            log_format.into(),
            "--cache-dir".into(),
            config.cache_dir.clone().into(),
            "--graph-cache-bytes".into(),
            config.graph_cache_bytes.to_string().into(),
            "--max-model-bytes".into(),
            config.max_model_bytes.to_string().into(),
        ],
    };
    let launch = Launch {
        program,
        load_timeout: isolation.worker_load_timeout,
        write: write_model_policy,
    };
    Arc::new(ProcessBackend::new(launch, backend))
}

/// One task a port.
type Frontends = JoinSet<()>;

/// A server that is bound, answers probes, and loads its models.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    http_address: Option<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    machine: Machine,
    engine: Engine,
    readiness: Arc<Readiness>,
    config: ServerConfig,
    entry: Entry,
    frontends: Frontends,
    goaway: watch::Sender<bool>,
    started: watch::Receiver<bool>,
    background: Vec<JoinHandle<()>>,
    /// Ends when this says so, and has sent what was left.
    exporter: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Server {
    /// Binds first, so that probes are answered while models load.
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        let machine = Machine::open(&config)?;
        let repository = repository(&config, &machine.clock)?;
        let catalog = Arc::new(Catalog::default());
        let responses = ResponseCache::new(config.response_cache_bytes);
        let engine = Engine::new(Arc::clone(&catalog), Arc::clone(&machine.clock));
        let reconciler = Reconciler::new(
            repository,
            Arc::clone(&catalog),
            machine
                .loader(&config, &catalog)
                .with_response_cache(responses.clone())
                .with_logbook(Logbook::open(&config.cache_dir)),
            control(config.model_control),
            config.load_threads,
            config.unload_least_used,
            Uploads::new(config.max_uploaded_bytes),
        );
        let readiness = Readiness::new(engine.clone(), Arc::clone(&reconciler));
        let (exporter, tracer) = exporter(&config, &machine)?.unzip();
        let requests = Requests::new(engine.clone()).with_tracer(tracer.clone());
        let requests = Arc::new(requests);
        let breaches = Breaches::new(engine.clone(), Arc::clone(&requests), shelf(&config));
        let api = Api {
            engine: engine.clone(),
            reconciler: Arc::clone(&reconciler),
            requests,
            readiness: Arc::clone(&readiness),
            server_name: Arc::from(config.server_name.as_str()),
            shared_memory: Arc::new(shared_memory(&config, &machine)?),
            log_settings: config.log_settings,
            trace_settings: config.trace_settings,
            forward_headers: config.forward_headers.as_slice().into(),
        };
        let devices = machine.inventory.devices();
        let told = telemetry::Settings {
            triton: config.triton_metrics,
            device_price_per_hour: config.device_price_per_hour,
        };
        let door = Arc::new(DoorCounts::default());
        let security = security(&config, &machine, &door)?;
        let metrics = Metrics::new(engine.clone(), responses, devices, told).with_tracer(tracer);
        let metrics = metrics.with_door(door);
        let bound = bind(&config).await?;
        let frontend = Frontend::new(
            api,
            metrics.clone(),
            console(&config, &bound, &breaches, security.entry()),
            limits(&config),
            Origins::new(&config.cors_origins),
            security.clone(),
            Arc::clone(&machine.clock),
        );
        let goaway = watch::Sender::new(false);
        let mut frontends = JoinSet::new();
        let mut addresses = Vec::new();
        warn_if_open(&bound, &security);
        for (listener, protocols) in bound {
            addresses.push((listener.local_addr().ok(), protocols));
            let mut leave = goaway.subscribe();
            let leave = async move {
                // A sender that is dropped means the same as one that is used.
                let _ = leave.wait_for(|leave| *leave).await;
            };
            frontends.spawn(frontend.clone().serve(listener, protocols, leave));
        }
        let exporter = exporter.map(|exporter| {
            let (end, ends) = watch::channel(false);
            let holds = Box::new(move || frontend.in_flight());
            let run = exporter.run(metrics.clone(), holds, ends);
            (end, tokio::spawn(run))
        });
        let address_of = |serves: fn(&Protocols) -> bool| {
            let mut addresses = addresses.iter();
            addresses.find_map(|(address, protocols)| address.filter(|_| serves(protocols)))
        };
        let (done, started) = watch::channel(false);
        let background = vec![
            tokio::spawn(Arc::clone(&readiness).follow()),
            tokio::spawn(metrics.watch()),
            tokio::spawn(Arc::clone(&machine.watchdog).watch(Arc::clone(&machine.clock))),
            tokio::spawn(breaches.watch()),
            tokio::spawn(security.clone().follow()),
            tokio::spawn(reconcile(
                reconciler,
                Arc::clone(&machine.clock),
                config.clone(),
                done,
            )),
        ];
        Ok(Self {
            address: address_of(|protocols| protocols.grpc).unwrap_or(config.grpc_address),
            http_address: address_of(|protocols| protocols.rest),
            metrics_address: address_of(|protocols| protocols.metrics)
                .or_else(|| address_of(|protocols| protocols.rest)),
            machine,
            engine,
            readiness,
            config,
            entry: security.entry(),
            frontends,
            goaway,
            started,
            background,
            exporter,
        })
    }

    /// Where gRPC is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client has to bring to be let in.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Where REST is served, if anywhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Whether there is a console beside REST.
    pub fn has_console(&self) -> bool {
        self.config.console != ConsoleAccess::Off
    }

    /// Where metrics are served, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// What it runs on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What it serves.
    pub fn catalog(&self) -> &Catalog {
        self.engine.catalog()
    }

    /// Completes when every model that is to be loaded at start has been tried.
    pub async fn started(&self) {
        let _ = self.started.clone().wait_for(|started| *started).await;
    }

    /// Serves until `stop` completes, then leaves: not ready but still serving for the lame-duck
    /// time, which a second `stop` cuts short; then GOAWAY, and what is in progress is finished.
    pub async fn run<S: Future<Output = ()>>(
        mut self,
        mut stop: impl FnMut() -> S,
    ) -> Result<(), RunError> {
        tokio::select! {
            Some(ended) = self.frontends.join_next() => return Ok(ended?),
            () = stop() => {}
        }
        self.readiness.leave();
        let clock = Arc::clone(&self.machine.clock);
        tracing::info!(lame_duck = ?self.config.lame_duck, "stopping: not ready, still serving");
        tokio::select! {
            () = clock.sleep_until(clock.now() + self.config.lame_duck) => {}
            () = stop() => {}
        }
        self.drain(clock.as_ref()).await
    }

    async fn drain(mut self, clock: &dyn Clock) -> Result<(), RunError> {
        tracing::info!("taking no new calls, finishing those in progress");
        for task in &self.background {
            task.abort();
        }
        self.readiness.end_streams().await;
        self.goaway.send_replace(true);
        let timeout = self.config.drain_timeout;
        let until = clock.now() + timeout;
        let ended = async {
            while let Some(ended) = self.frontends.join_next().await {
                ended?;
            }
            Ok::<(), RunError>(())
        };
        tokio::select! {
            ended = ended => ended?,
            () = clock.sleep_until(until) => {
                return Err(RunError::NotDrained(timeout));
            }
        }
        tracing::info!("drained");
        self.flush(clock, until).await;
        Ok(())
    }

    /// Sends what is left to be told, until then.
    async fn flush(&mut self, clock: &dyn Clock, until: Moment) {
        let Some((end, mut task)) = self.exporter.take() else {
            return;
        };
        end.send_replace(true);
        tokio::select! {
            _ = &mut task => {}
            () = clock.sleep_until(until) => {
                task.abort();
                tracing::warn!("the OTLP receiver did not take what was left");
            }
        }
    }
}

/// What sends traces and metrics, and who decides which, if they are sent anywhere.
fn exporter(
    config: &ServerConfig,
    machine: &Machine,
) -> Result<Option<(Exporter, Arc<Tracer>)>, StartError> {
    let Some(otlp) = &config.otlp else {
        return Ok(None);
    };
    let (exporter, tracer) = Exporter::new(&destination(otlp), Arc::clone(&machine.clock))?;
    Ok(Some((exporter, Arc::new(tracer))))
}

fn destination(otlp: &OtlpConfig) -> Destination {
    Destination {
        endpoint: otlp.endpoint.clone(),
        protocol: match otlp.http {
            true => Protocol::Http,
            false => Protocol::Grpc,
        },
        headers: otlp.headers.clone(),
        resource: otlp.resource.clone(),
        trace_ratio: otlp.trace_ratio,
        metrics_interval: otlp.metrics_interval,
    }
}

/// The repository that `config` names, in a folder or a store.
pub fn repository(
    config: &ServerConfig,
    clock: &Arc<dyn Clock>,
) -> Result<Repository, RepositoryError> {
    let settings = RemoteSettings {
        cache_dir: config.cache_dir.clone(),
        cache_bytes: config.cache_bytes,
        rest: config.repository_rest,
        max_objects: config.max_repository_objects,
    };
    match &config.repository {
        Location::Folder(root) => {
            let rules = FolderRules {
                follow_links: config.follow_links,
                max_entries: config.max_repository_objects,
            };
            Repository::open(root, rules)
        }
        Location::Store(url) => Repository::open_store(url, settings, Arc::clone(clock)),
    }
}

/// Every port, and what is served there. Those of one address are one.
async fn bind(config: &ServerConfig) -> Result<Vec<(TcpListener, Protocols)>, StartError> {
    let mut ports: Vec<(&str, SocketAddr, Protocols)> = Vec::new();
    let mut serve = |flag, address: Option<SocketAddr>, what: fn(&mut Protocols) -> &mut bool| {
        let Some(address) = address else {
            return;
        };
        let known = ports.iter().position(|(_, known, _)| *known == address);
        let place = known.unwrap_or_else(|| {
            ports.push((flag, address, Protocols::default()));
            ports.len() - 1
        });
        if let Some((_, _, protocols)) = ports.get_mut(place) {
            *what(protocols) = true;
        }
    };
    serve("grpc-address", Some(config.grpc_address), |on| &mut on.grpc);
    serve("http-address", config.http_address, |on| &mut on.rest);
    serve("metrics-address", config.metrics_address, |on| {
        &mut on.metrics
    });
    let mut bound = Vec::new();
    for (flag, address, protocols) in ports {
        bound.push((listen(flag, address).await?, protocols));
    }
    Ok(bound)
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| StartError::Bind {
        flag,
        address,
        source,
    })
}

async fn reconcile(
    reconciler: Arc<Reconciler>,
    clock: Arc<dyn Clock>,
    config: ServerConfig,
    done: watch::Sender<bool>,
) {
    let interval = config.watch_interval;
    reconciler.start(&config.load_models, interval).await;
    done.send_replace(true);
    if config.model_control == ModelControl::Watch {
        reconciler.watch(clock, interval).await;
    }
}

fn shared_memory(config: &ServerConfig, machine: &Machine) -> Result<SharedMemory, StartError> {
    let inventory = Arc::clone(&machine.inventory);
    let opened = SharedMemory::open(config.shared_memory.clone(), inventory);
    opened.map_err(|source| StartError::SharedMemory {
        prefix: config.shared_memory.prefix.clone().unwrap_or_default(),
        source,
    })
}

/// What stands before every port.
fn security(
    config: &ServerConfig,
    machine: &Machine,
    counts: &Arc<DoorCounts>,
) -> Result<Security, StartError> {
    let asked = config.security.clone();
    let policy = Policy {
        tls: asked.tls,
        handshake_timeout: asked.handshake_timeout,
        // Others have to get in while handshakes hang.
        max_handshakes: asked.max_handshakes.min(config.max_connections / 2),
        identity: asked.identity,
        read_access: |file, text| read_access(file, text).map_err(|report| report.to_string()),
        open_control: asked.open_control,
        clients: asked.clients,
    };
    let clock = Arc::clone(&machine.clock);
    Ok(Security::open(policy, clock, Arc::clone(counts))?)
}

/// Says loudly what listens beyond the machine and is not safe there.
fn warn_if_open(bound: &[(TcpListener, Protocols)], security: &Security) {
    let Some(lacks) = security.lacks() else {
        return;
    };
    for (listener, _) in bound {
        let address = listener.local_addr();
        let address = address
            .ok()
            .filter(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = address {
            tracing::warn!(
                "OPEN TO THE WORLD: {address} listens beyond this machine {lacks}; see docs/security.md"
            );
        }
    }
}

/// Where breaches are written, if anywhere.
fn shelf(config: &ServerConfig) -> Option<Shelf> {
    let folder = config.breach_dir.as_ref()?;
    Some(Shelf::new(folder, config.max_breach_files))
}

/// What the console tells beside what others know; none if there is none.
fn console(
    config: &ServerConfig,
    bound: &[(TcpListener, Protocols)],
    breaches: &Breaches,
    entry: Entry,
) -> Option<Console> {
    let mut bound = bound.iter();
    let grpc = bound.find(|(_, protocols)| protocols.grpc);
    let address = grpc.and_then(|(listener, _)| listener.local_addr().ok());
    let address = address.unwrap_or(config.grpc_address);
    (config.console != ConsoleAccess::Off).then(|| Console {
        breaches: breaches.clone(),
        controls: config.console == ConsoleAccess::Control,
        grpc_port: address.port(),
        entry,
    })
}

fn control(control: ModelControl) -> Control {
    match control {
        ModelControl::Start => Control::Start,
        ModelControl::Explicit => Control::Explicit,
        ModelControl::Watch => Control::Watch,
    }
}

fn limits(config: &ServerConfig) -> Limits {
    Limits {
        max_connections: config.max_connections,
        max_message_bytes: config.max_message_bytes,
        max_concurrent_streams: config.max_concurrent_streams,
        max_requests: config.max_requests,
        max_in_flight_bytes: config.max_in_flight_bytes,
        max_stream_requests: config.max_stream_requests,
        read_timeout: config.read_timeout,
        write_timeout: config.write_timeout,
        max_connection_age: config.max_connection_age,
        max_connection_age_grace: config.max_connection_age_grace,
        orca_trailers: config.orca_trailers,
    }
}
