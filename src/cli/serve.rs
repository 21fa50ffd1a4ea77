//! `jitney serve`: start, say what is served, run until told to stop.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::descriptors;
use crate::config::RawServer;
use crate::model::{Batching, Signature, TensorSpec};
use crate::server::Server;
use crate::serving::{ModelState, Version};
use crate::wire::{Entry, Place, PlainRequest};

/// How long is waited for what runs still when everything is answered: a load cannot be given up, and may take minutes.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Flags go before environment variables, those before the configuration file.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    raw: RawServer,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.raw.resolve()?;
        super::log(&config.log, config.log_json)?;
        descriptors::raise(config.max_connections);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.io_threads)
            .thread_name("io")
            .enable_all()
            .on_thread_park(crate::allocator::release_at_rest)
            .build()
            .context("cannot start the threads that serve")?;
        let served = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let server = Server::start(config).await?;
            about(&server);
            tokio::select! {
                () = server.started() => models(&server),
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
            let (terminate, interrupt) = (
                tokio::sync::Mutex::new(terminate),
                tokio::sync::Mutex::new(interrupt),
            );
            let stop = || async {
                let (mut terminate, mut interrupt) =
                    (terminate.lock().await, interrupt.lock().await);
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            server.run(stop).await?;
            Ok(())
        });
        runtime.shutdown_timeout(LAST_WORK);
        served
    }
}

fn about(server: &Server) {
    let machine = server.machine();
    let devices: Vec<String> = machine
        .inventory
        .devices()
        .iter()
        .map(|device| format!("{} ({})", device.id(), device.name()))
        .collect();
    super::say!("jitney {}", env!("CARGO_PKG_VERSION"));
    super::say!("devices: {}", devices.join(", "));
    super::say!("ONNX Runtime from {}", machine.library.path().display());
    let (how, scheme) = match server.entry().tls.is_some() {
        true => ("TLS", "https"),
        false => ("plaintext", "http"),
    };
    super::say!("gRPC on {} ({how}), gRPC-Web too", server.address());
    if let Some(address) = server.http_address() {
        super::say!("REST on {scheme}://{address}/v2 ({how})");
        if server.has_console() {
            super::say!("console on {scheme}://{address}/console");
        }
    }
    if let Some(address) = server.metrics_address() {
        super::say!("metrics on {scheme}://{address}/metrics");
    }
}

fn models(server: &Server) {
    let serving = server.catalog().serving();
    for version in &serving {
        super::say!("serving {}", describe(version));
    }
    for entry in server.catalog().index() {
        if entry.state == ModelState::Unavailable {
            super::say!("NOT serving {}: {}", entry.model, entry.reason);
        }
    }
    match serving.first() {
        Some(version) => {
            super::say!("{}", invitation(server.entry()));
            for line in examples(server, version) {
                super::say!("  {line}");
            }
        }
        None => super::say!("no model is served; put one at <repository>/<model>/1/model.onnx"),
    }
    super::say!("ready");
}

/// What the reader has to have set where these are pasted.
fn invitation(entry: &Entry) -> String {
    let mut needs = Vec::new();
    if entry.tls.as_ref().is_some_and(|tls| tls.wants_certificate) {
        needs.push("CERT and KEY to the paths of a client's certificate");
    }
    if entry.wants_token {
        needs.push("TOKEN to a token of the role infer");
    }
    match needs.is_empty() {
        true => "try it:".to_owned(),
        false => format!("try it, with {}:", needs.join(", and ")),
    }
}

/// Ways to ask a version for the first time, to be pasted as they stand.
fn examples(server: &Server, version: &Version) -> Vec<String> {
    let grpc = server.address().to_string();
    let rest = server.http_address().map(|address| address.to_string());
    let examples = PlainRequest::first(version).examples(Place {
        grpc: &grpc,
        rest: rest.as_deref().unwrap_or_default(),
        entry: server.entry(),
        version,
        by_number: false,
    });
    let by_rest = rest.map(|_| examples.curl);
    [examples.grpcurl, examples.python]
        .into_iter()
        .chain(by_rest)
        .collect()
}

fn describe(version: &Version) -> String {
    let batching = match &version.batching {
        Batching::Rows => format!("batches of up to {} rows", version.max_batch_size()),
        Batching::Alone(reason) => format!("one request at a time ({reason})"),
    };
    format!(
        "{}: {}; {batching}; {}",
        version.id,
        signature(&version.signature),
        match &version.policy.ensemble {
            Some(ensemble) => format!("made of {}", ensemble.models().join(", ")),
            None => format!("on {}", version.devices.join(", ")),
        }
    )
}

/// Inputs, an arrow, outputs.
pub(super) fn signature(signature: &Signature) -> String {
    let list = |specs: &[TensorSpec]| {
        let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
        specs.join(", ")
    };
    format!(
        "{} -> {}",
        list(&signature.inputs),
        list(&signature.outputs)
    )
}
