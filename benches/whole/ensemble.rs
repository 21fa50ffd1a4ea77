//! What it costs to ask two tiny models in one request: an ensemble beside the slower of them alone.

use std::fs;
use std::path::Path;

use super::drive::ClosedLoop;
use super::processes::jitney;
use super::requests::{numbers, tiny};
use super::table::{Row, Table};
use super::{ROUNDS, closed, folder};

const IN_FLIGHT: usize = 64;
const CONNECTIONS: usize = 4;

/// Sixteen numbers through a small network, whose four are then doubled and summed.
const ENSEMBLE: &str = r#"
[ensemble]
inputs = [{ name = "x", dtype = "FP32", shape = [-1, 16] }]
outputs = [{ name = "y", dtype = "FP32", shape = [-1, 4] }, { name = "sum", dtype = "FP32", shape = [-1] }]
[[ensemble.steps]]
model = "tiny_mlp"
inputs = { x = "x" }
outputs = { y = "four" }
[[ensemble.steps]]
model = "variable_shape"
inputs = { x = "four" }
outputs = { y = "y", sum = "sum" }
"#;

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let repository = tempfile::tempdir()?;
    for model in ["tiny_mlp", "variable_shape"] {
        add(repository.path(), model)?;
    }
    fs::create_dir_all(repository.path().join("both/1"))?;
    fs::write(repository.path().join("both/model.toml"), ENSEMBLE)?;
    let server = jitney(repository.path())?;
    let (mut shares, mut rates) = (Vec::new(), Vec::new());
    let alone = [tiny(), numbers("variable_shape", 4)];
    let mut both = tiny();
    "both".clone_into(&mut both.model_name);
    for _ in 0..ROUNDS {
        let run = || -> ClosedLoop { closed(&server.address, CONNECTIONS, IN_FLIGHT) };
        let mut slower = f64::INFINITY;
        for request in &alone {
            let rate = run().run(std::slice::from_ref(request)).await?.rate();
            slower = slower.min(rate);
        }
        let ours = run().run(std::slice::from_ref(&both)).await?.rate();
        shares.push(ours / slower);
        rates.push((slower, ours));
    }
    table.add(Row::shares(
        &format!(
            "ensemble of two tiny models, {IN_FLIGHT} in flight over {CONNECTIONS} connections: \
             requests/s as a share of the slower one's alone"
        ),
        shares,
        &rates,
        "0.77",
    ));
    Ok(())
}

fn add(repository: &Path, model: &str) -> anyhow::Result<()> {
    let version = repository.join(model).join("1");
    fs::create_dir_all(&version)?;
    let made = folder("tests/models").join(model).join("1/model.onnx");
    fs::copy(made, version.join("model.onnx"))?;
    Ok(())
}
