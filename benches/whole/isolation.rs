//! What it costs that models run in processes of their own.

use super::processes::{jitney, jitney_with};
use super::requests::{identity, tiny};
use super::table::{Row, Table};
use super::{ROUNDS, closed, folder};

const WHAT: [&str; 3] = [
    "tiny model, 64 in flight over 4 connections: requests/s in a process as a share of those in threads",
    "600 KiB identity, 8 in flight over 4 connections: requests/s in a process as a share of those in threads",
    "tiny model, 1 in flight: p50 in a process over that in threads",
];

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let models = folder("tests/models");
    let threads = jitney(&models)?;
    let processes = jitney_with(&models, &["--isolation", "process"])?;
    let kinds = [
        (tiny(), 4, 64),
        (identity(600 * 1024 / 4), 4, 8),
        (tiny(), 1, 1),
    ];
    for (what, (request, connections, in_flight)) in WHAT.into_iter().zip(kinds) {
        let requests = std::slice::from_ref(&request);
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let here = closed(&threads.address, connections, in_flight);
            let apart = closed(&processes.address, connections, in_flight);
            pairs.push((here.run(requests).await?, apart.run(requests).await?));
        }
        table.add(match in_flight {
            1 => Row::added_median(what, &pairs, "-"),
            _ => Row::share(what, &pairs, "-"),
        });
    }
    Ok(())
}
