//! Whether the simulation flatters: the same cases over gRPC, on simulated devices.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use jitney_load::{Arrivals, Mix, Plan, Request, Target};
use jitney_simulation::bounds::Case;
use jitney_simulation::measure::{self, Kind, Mix as Shapes};

use super::processes::jitney;
use super::requests::numbers;
use super::table::{Row, Table};

const ROUNDS: u64 = 3;
/// What an answer may be later than its deadline, for its way here and the request's way there.
const WAY: Duration = Duration::from_millis(1);
/// Slow enough for two cores that serve and send.
const CASES: [Case; 3] = [
    case(5.07, 1.05, 25.0, 1),
    case(5.07, 1.05, 25.0, 4),
    case(20.0, 2.0, 100.0, 8),
];
const DELAY: f64 = 0.08;

const fn case(fixed: f64, per_row: f64, deadline: f64, devices: usize) -> Case {
    Case {
        fixed,
        per_row,
        deadline,
        devices,
    }
}

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    for case in CASES {
        for share in [0.9, 1.5] {
            for (name, kind) in [
                ("jitney", Kind::Jitney),
                ("greedy", Kind::Greedy),
                ("delay", Kind::Delay(DELAY)),
            ] {
                let rate = share * case.staggered();
                let simulated =
                    measure::run(&case, kind, &simulated_arrivals(), Shapes::ONE, rate, 2);
                let mut measured = Vec::new();
                for seed in 0..ROUNDS {
                    measured.push(over_grpc(&case, kind, rate * 1e3, seed).await?);
                }
                let what = format!(
                    "a = {}, c = {}, D = {} ms on {} devices, Poisson arrivals at {share} of the bound, {name}: share in time",
                    case.fixed, case.per_row, case.deadline, case.devices
                );
                table.add(Row::beside(&what, measured, simulated.in_time));
            }
        }
    }
    Ok(())
}

fn simulated_arrivals() -> jitney_simulation::arrivals::Arrivals {
    jitney_simulation::arrivals::Arrivals::Poisson
}

/// The share in time at a rate, in requests a second.
async fn over_grpc(case: &Case, kind: Kind, rate: f64, seed: u64) -> anyhow::Result<f64> {
    let repository = tempfile::tempdir()?;
    serve(case, kind, repository.path())?;
    let server = jitney(repository.path())?;
    let target = Target::connect(&server.address, 2).await?;
    let deadline = Duration::from_secs_f64(case.deadline / 1e3);
    let message = numbers("m", 16);
    let request = match kind {
        Kind::Jitney => Request::with_deadline(message, deadline),
        // The others know nothing of deadlines.
        _ => Request::new(&message),
    };
    let mix = Mix::new(vec![request.worth(deadline + WAY)]);
    let arrivals = Arrivals::poisson(rate);
    let plan = Plan {
        seed,
        ..Plan::new(arrivals, Duration::from_secs(2), Duration::from_secs(5))
    };
    let recording = plan.run(&target, &mix).await?;
    Ok(recording.outcomes.ok_share())
}

fn serve(case: &Case, kind: Kind, repository: &Path) -> anyhow::Result<()> {
    let mut policy = format!(
        "max_batch_size = {}\nbatch_axis = \"first\"\nmax_queue_size = 1000000\n",
        measure::MAX_BATCH_SIZE
    );
    match kind {
        // As short as can be said, which turns the scheduler's own rules off.
        Kind::Greedy => policy += "max_queue_delay_ms = 0.001\n",
        Kind::Delay(share) => writeln!(policy, "max_queue_delay_ms = {}", share * case.deadline)?,
        Kind::Jitney | Kind::Aimd => {}
    }
    for device in 0..case.devices {
        writeln!(policy, "[[instances]]\ndevice = \"simulated:{device}\"")?;
    }
    writeln!(
        policy,
        "[simulated]\nfixed_ms = {}\nper_row_ms = {}\n\
         inputs = [{{ name = \"x\", dtype = \"FP32\", shape = [-1, -1] }}]\n\
         outputs = [{{ name = \"y\", dtype = \"FP32\", shape = [-1, -1] }}]",
        case.fixed, case.per_row
    )?;
    fs::create_dir_all(repository.join("m/1"))?;
    fs::write(repository.join("m/model.toml"), policy)?;
    Ok(())
}
