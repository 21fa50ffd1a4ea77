//! `make sim`: Jitney beside other rules and the bounds, in virtual time. Prints tables, and draws
//! what docs/scheduling.md shows into the folder given.

use std::path::PathBuf;
use std::{env, fs, thread};

use anyhow::Context;
use jitney_simulation::arrivals::Arrivals;
use jitney_simulation::bounds::Case;
use jitney_simulation::lengths::{self, Together};
use jitney_simulation::measure::{Figures, Kind, Mix, bears, run};
use jitney_simulation::plot::{Line, Panel, svg};

/// `a`, `c` and `D` in milliseconds.
const TIMES: [(f64, f64, f64); 4] = [
    (5.07, 1.05, 25.0),
    (2.0, 0.1, 10.0),
    (2.0, 0.1, 20.0),
    (0.2, 0.02, 5.0),
];
const DEVICES: [usize; 5] = [1, 2, 4, 8, 64];
/// Shares of the deadline that the fixed delay is tried with; the best one counts.
const DELAYS: [f64; 5] = [0.005, 0.02, 0.08, 0.2, 0.4];
const SEED: u64 = 1;

/// What one case showed.
struct Row {
    case: Case,
    /// Largest rates with 99 % in time, over the staggered bound: Jitney, greedy, the best fixed
    /// delay, AIMD.
    bears: [f64; 4],
    /// Jitney at the bound, at 1.5 and at 3 times the bound.
    at_bound: Figures,
    over: Figures,
    far_over: Figures,
    /// Mean latency at 30 % of the bound over greedy's.
    latency: f64,
}

fn main() -> anyhow::Result<()> {
    let folder = env::args().nth(1).map(PathBuf::from);
    for (name, arrivals) in [("Poisson", Arrivals::Poisson), ("Bursty", Arrivals::Bursty)] {
        let rows = measure(&arrivals);
        println!("\n### {name} arrivals\n");
        print(&rows);
        if let Some(folder) = &folder {
            draw(folder, name, &rows)?;
        }
    }
    shapes();
    mixed_lengths();
    if let Some(folder) = &folder {
        overload(folder)?;
    }
    Ok(())
}

/// Every case, on as many threads as there are cores.
fn measure(arrivals: &Arrivals) -> Vec<Row> {
    let cases: Vec<Case> = TIMES
        .iter()
        .flat_map(|(fixed, per_row, deadline)| {
            DEVICES.map(|devices| Case {
                fixed: *fixed,
                per_row: *per_row,
                deadline: *deadline,
                devices,
            })
        })
        .collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut rows: Vec<Option<Row>> = cases.iter().map(|_| None).collect();
    thread::scope(|scope| {
        // Cases with many devices take longest, and come at every fifth place.
        let mut shares: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
        for (index, place) in rows.iter_mut().zip(&cases).enumerate() {
            if let Some(share) = shares.get_mut((index / DEVICES.len()) % cores) {
                share.push(place);
            }
        }
        for share in shares {
            scope.spawn(move || {
                for (row, case) in share {
                    *row = Some(row_of(case, arrivals));
                }
            });
        }
    });
    rows.into_iter().flatten().collect()
}

fn row_of(case: &Case, arrivals: &Arrivals) -> Row {
    let bound = case.staggered();
    let share = |kind| bears(case, kind, arrivals, bound, SEED);
    let at = |kind, share: f64| run(case, kind, arrivals, Mix::ONE, share * bound, SEED + 1);
    let delays = DELAYS.map(|delay| share(Kind::Delay(delay)));
    Row {
        case: *case,
        bears: [
            share(Kind::Jitney),
            share(Kind::Greedy),
            delays.into_iter().fold(0.0, f64::max),
            share(Kind::Aimd),
        ],
        at_bound: at(Kind::Jitney, 1.0),
        over: at(Kind::Jitney, 1.5),
        far_over: at(Kind::Jitney, 3.0),
        latency: at(Kind::Jitney, 0.3).mean / at(Kind::Greedy, 0.3).mean,
    }
}

fn print(rows: &[Row]) {
    println!(
        "| a, c, D (ms) | devices | bound (1/ms) | Jitney | greedy | best delay | AIMD | goodput at 1.5, 3 | late | latency at 30 % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        let Case {
            fixed,
            per_row,
            deadline,
            devices,
        } = row.case;
        let [jitney, greedy, delay, aimd] = row.bears;
        let base = row.at_bound.goodput;
        println!(
            "| {fixed}, {per_row}, {deadline} | {devices} | {:.2} | {jitney:.2} | {greedy:.2} | {delay:.2} | {aimd:.2} | {:.2}, {:.2} | {} | {:.2} |",
            row.case.staggered(),
            row.over.goodput / base,
            row.far_over.goodput / base,
            row.at_bound.late_answers + row.over.late_answers + row.far_over.late_answers,
            row.latency,
        );
    }
}

fn draw(folder: &PathBuf, name: &str, rows: &[Row]) -> anyhow::Result<()> {
    let panels: Vec<Panel> = TIMES
        .iter()
        .map(|(fixed, per_row, deadline)| {
            let mine = || {
                rows.iter().filter(|row| {
                    (row.case.fixed, row.case.per_row, row.case.deadline)
                        == (*fixed, *per_row, *deadline)
                })
            };
            let line = |name: &str, value: fn(&Row) -> f64| Line {
                name: name.to_owned(),
                points: mine()
                    .map(|row| ((row.case.devices as f64).log2(), value(row)))
                    .collect(),
            };
            Panel {
                title: format!("a = {fixed}, c = {per_row}, D = {deadline} ms"),
                x: "devices".to_owned(),
                ticks: DEVICES
                    .map(|devices| ((devices as f64).log2(), devices.to_string()))
                    .to_vec(),
                lines: vec![
                    line("Jitney", |row| row.bears[0]),
                    line("greedy FIFO", |row| row.bears[1]),
                    line("best fixed delay", |row| row.bears[2]),
                    line("AIMD", |row| row.bears[3]),
                ],
            }
        })
        .collect();
    let title = format!(
        "Largest rate with 99 % in time, as a share of the staggered bound: {name} arrivals"
    );
    write(
        folder,
        &format!("rates-{}.svg", name.to_lowercase()),
        &svg(&title, "share of the bound", 1.0, &panels),
    )
}

/// What is answered in time, from a tenth of the bound to three times it.
fn overload(folder: &PathBuf) -> anyhow::Result<()> {
    let loads: Vec<f64> = (1..=15).map(|step| f64::from(step) * 0.2).collect();
    let panel = |devices: usize| {
        let case = Case {
            fixed: 2.0,
            per_row: 0.1,
            deadline: 10.0,
            devices,
        };
        let bound = case.staggered();
        let line = |name: &str, kind: Kind| Line {
            name: name.to_owned(),
            points: loads
                .iter()
                .map(|load| {
                    let figures = run(
                        &case,
                        kind,
                        &Arrivals::Poisson,
                        Mix::ONE,
                        load * bound,
                        SEED,
                    );
                    (*load, figures.goodput / bound)
                })
                .collect(),
        };
        Panel {
            title: format!("a = 2, c = 0.1, D = 10 ms, {devices} devices"),
            x: "offered load, as a share of the staggered bound".to_owned(),
            ticks: (0..=6)
                .map(|tick| {
                    (
                        f64::from(tick) * 0.5,
                        format!("{:.1}", f64::from(tick) * 0.5),
                    )
                })
                .collect(),
            lines: vec![
                line("Jitney", Kind::Jitney),
                line("greedy FIFO", Kind::Greedy),
                line("delay of D/10", Kind::Delay(0.1)),
                line("AIMD", Kind::Aimd),
            ],
        }
    };
    let title = "Answers in time, as a share of the staggered bound: Poisson arrivals";
    write(
        folder,
        "overload.svg",
        &svg(title, "goodput", 1.2, &[panel(2), panel(8)]),
    )
}

/// One shape against eight equally likely ones at the same load.
fn shapes() {
    println!("\n### Eight shapes instead of one\n");
    println!("| a, c, D (ms) | devices | load | goodput of one shape | of eight, over that |");
    println!("|---|---|---|---|---|");
    for (fixed, per_row, deadline) in TIMES {
        for devices in [1, 4, 8] {
            let case = Case {
                fixed,
                per_row,
                deadline,
                devices,
            };
            let load = 0.7 * case.staggered();
            let one = run(
                &case,
                Kind::Jitney,
                &Arrivals::Poisson,
                Mix::ONE,
                load,
                SEED,
            );
            let eight = run(
                &case,
                Kind::Jitney,
                &Arrivals::Poisson,
                Mix { classes: 8 },
                load,
                SEED,
            );
            println!(
                "| {fixed}, {per_row}, {deadline} | {devices} | 0.7 of the bound | {:.2}/ms | {:.2} |",
                one.goodput,
                eight.goodput / one.goodput
            );
        }
    }
}

/// Rows of different lengths, with as many waiting as may.
fn mixed_lengths() {
    println!("\n### Mixed lengths at saturation\n");
    println!(
        "| devices | waiting | rule | requests/ms | over an oracle's | padding | rows in a batch |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (devices, waiting) in [(1, 64), (1, 1024), (4, 256), (4, 1024)] {
        let oracle = lengths::oracle(devices, SEED);
        for (name, together) in [
            ("Jitney", Together::Jitney),
            ("Jitney, padded to powers of two", Together::Powers),
            ("equal lengths only", Together::Equal),
            ("first come first served", Together::Fifo),
        ] {
            let figures = lengths::run(together, devices, waiting, SEED);
            println!(
                "| {devices} | {waiting} | {name} | {:.2} | {:.2} | {:.0} % | {:.1} |",
                figures.rate,
                figures.rate / oracle,
                figures.waste * 1e2,
                figures.rows
            );
        }
    }
}

fn write(folder: &PathBuf, name: &str, text: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
