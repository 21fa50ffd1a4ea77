//! Rows of different lengths, padded and not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jitney_load::proto::ModelInferRequest;

use super::direct::oracle_rates;
use super::drive::ClosedLoop;
use super::processes::{Process, jitney};
use super::requests::{embedding, numbers};
use super::table::{Row, Table};
use super::{closed, folder};

const ROUNDS: usize = 3;
const COUNT: u32 = 512;
const SHORTEST: f64 = 8.0;
const LONGEST: f64 = 256.0;

/// Lengths whose logarithms are normal around that of 48, the same at every call.
pub(crate) fn lengths() -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..COUNT)
        .map(|index| {
            // Every quantile once.
            let share = (f64::from(index) + 0.5) / f64::from(COUNT);
            let length = 48.0 * (0.7 * normal_quantile(share)).exp();
            length.clamp(SHORTEST, LONGEST) as usize
        })
        .collect();
    // In an order that has nothing to do with length.
    let mut state = 1_u64;
    for index in (1..lengths.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        lengths.swap(index, (state >> 33) as usize % (index + 1));
    }
    lengths
}

/// Of the standard normal distribution, by bisection of its integral.
fn normal_quantile(share: f64) -> f64 {
    let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let mut below = 0.0;
    let mut x = -6.0;
    while below < share {
        below += density(x) * 1e-3;
        x += 1e-3;
    }
    x
}

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    simulated(table).await?;
    minilm(table).await
}

/// 2 ms a batch and 0.1 ms for each 32 tokens.
async fn simulated(table: &mut Table) -> anyhow::Result<()> {
    let repository = tempfile::tempdir()?;
    for (name, padding) in [
        ("padded", "[padding]\naxes = { x = 1, y = 1 }\n"),
        ("equal", ""),
    ] {
        let policy = format!(
            "max_batch_size = 64\nbatch_axis = \"first\"\n{padding}\
             [[instances]]\ndevice = \"simulated:0\"\n\
             [simulated]\nfixed_ms = 2\nper_element_ms = 0.003125\n\
             inputs = [{{ name = \"x\", dtype = \"FP32\", shape = [-1, -1] }}]\n\
             outputs = [{{ name = \"y\", dtype = \"FP32\", shape = [-1, -1] }}]\n"
        );
        add(repository.path(), name, &policy)?;
    }
    let server = jitney(repository.path())?;
    let requests = |model| -> Vec<_> {
        let lengths = lengths().into_iter();
        lengths.map(|length| numbers(model, length)).collect()
    };
    let (padded, equal) = (requests("padded"), requests("equal"));
    let (mut shares, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let equal = rate(&server, &equal).await?;
        let padded = rate(&server, &padded).await?;
        shares.push(padded / equal);
        rates.push((equal, padded));
    }
    table.add(Row::shares(
        "8 to 256 tokens, 64 in flight, simulated (2 ms + 0.1 ms for each 32 tokens): padded over equal lengths only",
        shares,
        &rates,
        "4",
    ));
    Ok(())
}

async fn minilm(table: &mut Table) -> anyhow::Result<()> {
    let model = folder("examples/models/minilm/1/model.onnx");
    if !model.exists() {
        table.add(Row::note("MiniLM: not measured, `make minilm` builds it"));
        return Ok(());
    }
    let repository = tempfile::tempdir()?;
    add(repository.path(), "minilm", "")?;
    fs::copy(&model, repository.path().join("minilm/1/model.onnx"))?;
    let padded = jitney(&folder("examples/models"))?;
    let equal = jitney(repository.path())?;
    let requests: Vec<_> = lengths().into_iter().map(embedding).collect();
    let (mut of_oracle, mut of_equal) = (Vec::new(), Vec::new());
    let (mut oracles, mut equals) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let oracle = oracle_rates(&model)?;
        let oracle = oracle.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let equal = rate(&equal, &requests).await?;
        let padded = rate(&padded, &requests).await?;
        of_oracle.push(padded / oracle);
        of_equal.push(padded / equal);
        oracles.push((oracle, padded));
        equals.push((equal, padded));
    }
    table.add(Row::shares(
        "MiniLM, 8 to 256 tokens, 64 in flight: padded, as a share of ONNX Runtime called directly on all sentences sorted by length",
        of_oracle,
        &oracles,
        "0.9",
    ));
    table.add(Row::shares(
        "the same: padded over equal lengths only",
        of_equal,
        &equals,
        "1",
    ));
    Ok(())
}

fn add(repository: &Path, model: &str, policy: &str) -> anyhow::Result<()> {
    fs::create_dir_all(repository.join(model).join("1"))?;
    fs::write(repository.join(model).join("model.toml"), policy)?;
    Ok(())
}

async fn rate(server: &Process, requests: &[ModelInferRequest]) -> anyhow::Result<f64> {
    let run = ClosedLoop {
        warm_up: Duration::from_secs(2),
        duration: Duration::from_secs(10),
        ..closed(&server.address, 1, 64)
    };
    Ok(run.run(requests).await?.rate())
}
