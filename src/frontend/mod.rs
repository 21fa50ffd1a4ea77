//! Protocols: what clients connect to.
//! Uses `wire` to translate and `serving`'s engine and reconciler to act.
//! Never decides: a frontend that thinks is one that the next frontend has to copy.

mod age;
mod api;
mod connections;
mod console;
mod contents;
mod deadline;
mod delivery;
mod grpc;
mod headers;
mod holding;
mod identity;
mod limits;
mod messages;
mod metered;
mod metrics;
mod origins;
mod patience;
mod places;
mod probe;
mod purpose;
mod readiness;
mod rest;
mod security;
mod settings;
mod shared_memory;
mod tls;
mod trace_settings;
mod traces;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tower::ServiceBuilder;

pub use api::Api;
pub use console::Console;
pub use identity::ReadAccess;
pub use limits::Limits;
pub use origins::Origins;
pub use probe::{ProbeError, probe};
pub use readiness::{LIVE, Readiness};
pub use security::{Policy, Security, SecurityError};

use crate::clock::Clock;
use crate::telemetry::{InFlight, Metrics};
use age::Age;
use connections::Door;
use grpc::orca::ReportLayer;
use grpc::web::WebLayer;
use limits::LimitLayer;
use patience::Patience;
use places::Places;

/// What is served on one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// gRPC and gRPC-Web: the V2 service, health and reflection.
    pub grpc: bool,
    /// REST: the V2 routes and health; metrics, and the console.
    pub rest: bool,
    /// Metrics.
    pub metrics: bool,
}

/// Every protocol on any number of ports, with one set of limits for all of them.
#[derive(Clone, Debug)]
pub struct Frontend {
    api: Api,
    metrics: Arc<Metrics>,
    console: Option<Console>,
    limits: Limits,
    layer: LimitLayer,
    origins: Origins,
    security: Security,
    patience: Patience,
    places: Arc<Places>,
}

impl Frontend {
    /// A frontend that serves nothing yet.
    pub fn new(
        api: Api,
        metrics: Metrics,
        console: Option<Console>,
        limits: Limits,
        origins: Origins,
        security: Security,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let patience = Patience::new(clock, limits.read_timeout);
        let places = Places::new(limits.max_connections, security.counts());
        Self {
            api,
            metrics: Arc::new(metrics),
            console,
            limits,
            layer: LimitLayer::new(limits, patience.clone()),
            origins,
            security,
            patience,
            places,
        }
    }

    /// What it holds at this moment.
    pub fn in_flight(&self) -> InFlight {
        self.layer.in_flight()
    }

    /// Serves until `shutdown` completes; then tells the clients (GOAWAY), finishes what is in
    /// progress and returns.
    pub async fn serve(
        self,
        listener: TcpListener,
        protocols: Protocols,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let reports = self.limits.orca_trailers;
        let reports = reports.then(|| ReportLayer(Arc::clone(&self.metrics)));
        let address = listener.local_addr();
        let is_loopback = address.is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let service = ServiceBuilder::new()
            .option_layer(self.origins.layer())
            .layer(self.security.guard(self.origins.clone(), is_loopback))
            .layer(self.layer.clone())
            .layer(WebLayer)
            .option_layer(reports)
            .service(self.routes(protocols));
        let door = Door {
            places: self.places,
            age: Age {
                clock: self.patience.clock(),
                most: self.limits.max_connection_age,
                grace: self.limits.max_connection_age_grace,
                readiness: Arc::clone(&self.api.readiness),
            },
            delivery: self.limits.write_timeout.map(|limit| {
                let clock = self.patience.clock();
                Patience::new(clock, limit)
            }),
            counts: self.security.counts(),
            patience: self.patience,
            max_concurrent_streams: self.limits.max_concurrent_streams,
            security: self.security.clone(),
        };
        connections::serve(listener, door, service, shutdown).await;
    }

    fn routes(&self, protocols: Protocols) -> Routes {
        let grpc = || {
            let metrics = Arc::clone(&self.metrics);
            grpc::routes(self.api.clone(), self.limits, metrics)
        };
        let mut routes = Router::new();
        if protocols.rest || protocols.metrics {
            let metrics = Arc::clone(&self.metrics);
            routes = routes.merge(metrics::routes(metrics, self.layer.clone()));
        } else {
            return grpc();
        }
        if protocols.rest {
            let tells_all = !self.security.knows_callers();
            let rest = rest::routes(self.api.clone(), self.limits, tells_all);
            routes = routes.merge(rest);
            if let Some(console) = self.console.clone() {
                routes = routes.merge(self.console_routes(console));
            }
        }
        if protocols.grpc {
            let grpc = grpc().into_axum_router();
            // Who knows no path says so in REST's words, if REST is there.
            routes = match protocols.rest {
                true => routes.merge(grpc.reset_fallback()),
                false => routes.merge(grpc),
            };
        }
        Routes::from(routes)
    }

    fn console_routes(&self, console: Console) -> Router {
        let (api, metrics) = (self.api.clone(), Metrics::clone(&self.metrics));
        console::routes(console, api, metrics, self.layer.clone(), self.limits)
    }
}
