//! Whether the server and its models can answer: grpc.health.v1 and the V2 readiness calls.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, watch};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

use crate::serving::{Engine, Reconciler};

/// The name under which health speaks of the V2 service; the empty name speaks of the server.
const SERVICES: [&str; 2] = ["", "inference.GRPCInferenceService"];

/// The name under which health says that the process answers, whatever it has loaded, as ServerLive
/// does; no model can have it.
pub const LIVE: &str = "inference.GRPCInferenceService/ServerLive";

/// Whether the server and its models can answer.
pub struct Readiness {
    engine: Engine,
    reconciler: Arc<Reconciler>,
    reporter: HealthReporter,
    /// The models that health speaks of; held while it is told.
    told: Mutex<HashSet<Arc<str>>>,
    leaving: AtomicBool,
    /// Set when streams are to end.
    ending: watch::Sender<bool>,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Readiness").finish_non_exhaustive()
    }
}

impl Readiness {
    /// Not ready until the reconciler has finished its start.
    pub fn new(engine: Engine, reconciler: Arc<Reconciler>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            reconciler,
            reporter: HealthReporter::new(),
            told: Mutex::default(),
            leaving: AtomicBool::new(false),
            ending: watch::Sender::new(false),
        })
    }

    /// The health service over this.
    pub fn service(&self) -> HealthServer<impl Health + use<>> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Whether the server is ready: everything that was there at start serves, and it is not
    /// about to stop.
    pub fn is_ready(&self) -> bool {
        !self.is_leaving() && self.reconciler.is_ready()
    }

    /// Whether the server is about to stop.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Keeps health in step with the catalog, for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut changes = self.engine.catalog().changes().subscribe();
        self.set(LIVE, true).await;
        loop {
            changes.mark_unchanged();
            self.report().await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The server is about to stop: not ready from now on, though it still answers.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.engine.catalog().changes().note();
    }

    /// Ends streams that would otherwise last for ever, those that watch health among them.
    pub async fn end_streams(&self) {
        self.ending.send_replace(true);
        let mut told = self.told.lock().await;
        for name in SERVICES.into_iter().chain([LIVE]) {
            self.reporter.clone().clear_service_status(name).await;
        }
        for model in told.drain() {
            self.reporter.clone().clear_service_status(&model).await;
        }
    }

    /// Completes when streams are to end.
    pub fn ends(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    fn ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Has health say what is so now, until its streams end.
    pub async fn report(&self) {
        let mut told = self.told.lock().await;
        if self.ending() {
            return;
        }
        for name in SERVICES {
            self.set(name, self.is_ready()).await;
        }
        let models: HashSet<Arc<str>> = self.engine.catalog().models().into_iter().collect();
        for gone in told.difference(&models) {
            self.reporter.clone().clear_service_status(gone).await;
        }
        for model in &models {
            let ready = !self.is_leaving() && self.engine.catalog().is_ready(model, "");
            self.set(model, ready).await;
        }
        *told = models;
    }

    async fn set(&self, name: &str, ready: bool) {
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.reporter.set_service_status(name, status).await;
    }
}
