//! ONNX Runtime called directly, in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ort::session::Session;
use ort::value::Tensor;

use crate::lengths::lengths;

const TOKENS: usize = 32;
const DURATION: Duration = Duration::from_secs(3);

/// Rows a second at several batch sizes, each with every core.
pub(crate) fn direct_rates(model: &Path) -> anyhow::Result<Vec<(usize, f64)>> {
    rates("direct", model)
}

fn rates(role: &str, model: &Path) -> anyhow::Result<Vec<(usize, f64)>> {
    let output = Command::new(std::env::current_exe()?)
        .arg(role)
        .arg(model)
        .output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .map(|line| {
            let (rows, rate) = line.split_once(' ').context("not a line of two numbers")?;
            Ok((rows.parse()?, rate.parse()?))
        })
        .collect()
}

fn session(model: &str) -> anyhow::Result<Session> {
    let library = std::env::var("JITNEY_ONNXRUNTIME").context("JITNEY_ONNXRUNTIME is not set")?;
    let environment = ort::init_from(library)?.with_telemetry(false).build()?;
    environment.set_log_level(ort::logging::LogLevel::Warning);
    Ok(Session::builder(&environment)?.commit_from_file(model)?)
}

/// Rows a second of sentences of different lengths, sorted by length, at several batch sizes.
pub(crate) fn oracle_rates(model: &Path) -> anyhow::Result<Vec<(usize, f64)>> {
    rates("oracle", model)
}

/// Prints `rows rate` for each batch size, as whoever knows every sentence before the first would
/// put them together: next to those of nearly the same length.
pub(crate) fn oracle(model: &str) -> anyhow::Result<()> {
    let mut session = session(model)?;
    let mut lengths = lengths();
    lengths.sort_unstable();
    for rows in [4, 8, 16, 32] {
        println!("{rows} {}", sorted_rate(&mut session, &lengths, rows)?);
    }
    Ok(())
}

#[allow(clippy::disallowed_methods)] // measures how long it takes
fn sorted_rate(session: &mut Session, lengths: &[usize], rows: usize) -> anyhow::Result<f64> {
    let batches: Vec<_> = lengths
        .chunks(rows)
        .map(|lengths| inputs(lengths.len(), lengths.iter().copied().max().unwrap_or(1)))
        .collect::<anyhow::Result<_>>()?;
    let mut took = Duration::ZERO;
    // Once to warm up.
    for _ in 0..2 {
        let began = Instant::now();
        for [ids, mask, types] in &batches {
            session.run(ort::inputs![
                "input_ids" => ids, "attention_mask" => mask, "token_type_ids" => types
            ])?;
        }
        took = began.elapsed();
    }
    Ok(lengths.len() as f64 / took.as_secs_f64())
}

fn inputs(rows: usize, tokens: usize) -> anyhow::Result<[Tensor<i64>; 3]> {
    let shape = [rows, tokens];
    let count = rows * tokens;
    let ids: Vec<i64> = (0..count as i64).map(|n| 1000 + n % 32).collect();
    Ok([
        Tensor::from_array((shape, ids))?,
        Tensor::from_array((shape, vec![1_i64; count]))?,
        Tensor::from_array((shape, vec![0_i64; count]))?,
    ])
}

/// Prints `rows rate` for each batch size.
pub(crate) fn run(model: &str) -> anyhow::Result<()> {
    let mut session = session(model)?;
    for rows in [1, 8, 16, 32] {
        println!("{rows} {}", rate(&mut session, rows)?);
    }
    Ok(())
}

#[allow(clippy::disallowed_methods)] // measures how long it takes
fn rate(session: &mut Session, rows: usize) -> anyhow::Result<f64> {
    let [ids, mask, types] = inputs(rows, TOKENS)?;
    let mut run = || -> anyhow::Result<()> {
        session.run(ort::inputs![
            "input_ids" => &ids, "attention_mask" => &mask, "token_type_ids" => &types
        ])?;
        Ok(())
    };
    run()?;
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < DURATION {
        run()?;
        done += rows;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// Loads a model and waits to be killed, so that its memory can be read.
pub(crate) fn bare(model: &str) -> anyhow::Result<()> {
    let _session = session(model)?;
    println!("ready");
    loop {
        std::thread::park();
    }
}
