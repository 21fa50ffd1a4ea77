//! Metrics under our own names.

mod load;
mod requests;
mod server;
mod versions;

use super::family::{Told, gauge};

/// What is told of the build.
static BUILD: &[Told] = &[gauge(
    "jitney_build_info",
    &["server_version"],
    "1, with the version of the server",
    |_, family| family.add(&[env!("CARGO_PKG_VERSION")], 1.0),
)];

/// Those that are told, in this order.
pub(super) fn metrics() -> impl Iterator<Item = &'static Told> {
    let tables = [
        BUILD,
        requests::METRICS,
        load::METRICS,
        versions::METRICS,
        server::METRICS,
    ];
    tables.into_iter().flatten()
}
