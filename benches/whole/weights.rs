//! What it saves and costs that instances run one session: MiniLM, two instances on the CPU.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::drive::ClosedLoop;
use super::processes::{Process, jitney};
use super::requests::embedding;
use super::table::{Row, Table};
use super::{closed, folder};

const ROUNDS: usize = 5;

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let model = folder("examples/models/minilm/1/model.onnx");
    if !model.exists() {
        table.add(Row::note("MiniLM: not measured, `make minilm` builds it"));
        return Ok(());
    }
    let repository = tempfile::tempdir()?;
    let apart = serve(&repository.path().join("apart"), &model, false)?;
    let shared = serve(&repository.path().join("shared"), &model, true)?;
    let (mut shares, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let own = rate(&apart).await?;
        let one = rate(&shared).await?;
        shares.push(one / own);
        rates.push((own, one));
    }
    table.add(Row::shares(
        "MiniLM, 2 instances of 1 thread: rows/s with one session as a share of rows/s with two",
        shares,
        &rates,
        "1",
    ));
    let memory = (mebibytes(&apart)?, mebibytes(&shared)?);
    table.add(Row::shares(
        "The same: resident MiB with one session as a share of those with two",
        vec![memory.1 / memory.0],
        &[memory],
        "-",
    ));
    Ok(())
}

fn serve(repository: &Path, model: &Path, share: bool) -> anyhow::Result<Process> {
    let version = repository.join("minilm/1");
    fs::create_dir_all(&version)?;
    fs::copy(model, version.join("model.onnx"))?;
    let policy =
        format!("[[instances]]\ncount = 2\nthreads = 1\n[onnxruntime]\nshare_weights = {share}\n");
    fs::write(repository.join("minilm/model.toml"), policy)?;
    jitney(repository)
}

async fn rate(server: &Process) -> anyhow::Result<f64> {
    let run = ClosedLoop {
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(5),
        ..closed(&server.address, 1, 64)
    };
    Ok(run.run(&[embedding(32)]).await?.rate())
}

fn mebibytes(server: &Process) -> anyhow::Result<f64> {
    Ok(server.resident_kibibytes()? as f64 / 1024.0)
}
