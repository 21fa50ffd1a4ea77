//! The composition root: builds the parts, binds, runs, and leaves in good order.

mod error;
mod machine;
mod parts;
mod ports;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use self::error::{RunError, StartError};
pub use self::machine::Machine;
pub use self::parts::repository;
use self::parts::{console, control, exporter, limits, security, shared_memory, shelf};
use self::ports::{bind, warn_if_open};
use crate::clock::{Clock, Moment};
use crate::config::{ConsoleAccess, ModelControl, ServerConfig};
use crate::frontend::{Api, Frontend, Origins, Protocols, Readiness};
use crate::repository::Uploads;
use crate::serving::{Catalog, Engine, Logbook, Reconciler, ResponseCache};
use crate::telemetry::{self, Breaches, DoorCounts, Metrics, Requests};
use crate::wire::Entry;

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
        let bound = bind(&config)?;
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
                Arc::clone(&readiness),
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

async fn reconcile(
    reconciler: Arc<Reconciler>,
    clock: Arc<dyn Clock>,
    config: ServerConfig,
    readiness: Arc<Readiness>,
    done: watch::Sender<bool>,
) {
    let interval = config.watch_interval;
    reconciler.start(&config.load_models, interval).await;
    // Who is told that it has started finds that health says so, too.
    readiness.report().await;
    done.send_replace(true);
    if config.model_control == ModelControl::Watch {
        reconciler.watch(clock, interval).await;
    }
}
