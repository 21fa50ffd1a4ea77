//! Whether twice as many devices do twice as much: simulated ones, over gRPC.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use super::closed;
use super::drive::ClosedLoop;
use super::processes::jitney;
use super::requests::numbers;
use super::table::{Row, Table};

const ROUNDS: usize = 3;
const ROWS: usize = 8;

/// A batch takes 5 ms and 0.5 ms a row, so that the cores have time for eight devices.
pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let repository = tempfile::tempdir()?;
    for devices in [1, 2, 4, 8] {
        let folder = repository.path().join(format!("on{devices}"));
        fs::create_dir_all(folder.join("1"))?;
        let mut policy = format!("max_batch_size = {ROWS}\nbatch_axis = \"first\"\n");
        for device in 0..devices {
            write!(policy, "[[instances]]\ndevice = \"simulated:{device}\"\n")?;
        }
        policy += "[simulated]\nfixed_ms = 5\nper_row_ms = 0.5\n\
                   inputs = [{ name = \"x\", dtype = \"FP32\", shape = [-1, -1] }]\n\
                   outputs = [{ name = \"y\", dtype = \"FP32\", shape = [-1, -1] }]\n";
        fs::write(folder.join("model.toml"), policy)?;
    }
    let server = jitney(repository.path())?;
    for devices in [2, 4, 8] {
        let (mut shares, mut rates) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let one = rate(&server.address, 1).await?;
            let several = rate(&server.address, devices).await?;
            shares.push(several / one / devices as f64);
            rates.push((one * devices as f64, several));
        }
        table.add(Row::shares(
            &format!(
                "{devices} simulated devices: requests/s as a share of {devices} times one device's"
            ),
            shares,
            &rates,
            "0.95",
        ));
    }
    Ok(())
}

/// With three batches for each device: one that runs, one that waits, and one on its way.
async fn rate(address: &str, devices: usize) -> anyhow::Result<f64> {
    let run = ClosedLoop {
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(4),
        ..closed(address, 1, 3 * ROWS * devices)
    };
    let request = numbers(&format!("on{devices}"), 16);
    Ok(run.run(&[request]).await?.rate())
}
