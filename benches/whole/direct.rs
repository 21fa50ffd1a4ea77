//! ONNX Runtime called directly, in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ort::session::Session;
use ort::value::Tensor;

const TOKENS: usize = 32;
const DURATION: Duration = Duration::from_secs(3);

/// Rows a second at several batch sizes, each with every core.
pub(crate) fn direct_rates(model: &Path) -> anyhow::Result<Vec<(usize, f64)>> {
    let output = Command::new(std::env::current_exe()?)
        .arg("direct")
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
    let shape = [rows, TOKENS];
    let count = rows * TOKENS;
    let ids = Tensor::from_array((
        shape,
        (0..count as i64).map(|n| 1000 + n % 32).collect::<Vec<_>>(),
    ))?;
    let mask = Tensor::from_array((shape, vec![1_i64; count]))?;
    let types = Tensor::from_array((shape, vec![0_i64; count]))?;
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
