//! One table of what was measured: medians, and the range they come from.

use std::time::Duration;

use jitney_load::Recording;

pub(crate) struct Row {
    what: String,
    figure: String,
    aim: String,
    detail: String,
}

#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        eprintln!("{}: {} ({})", row.what, row.figure, row.detail);
        self.0.push(row);
    }

    pub(crate) fn print(&self) {
        println!("| what | median | aim | detail |\n|---|---|---|---|");
        for row in &self.0 {
            println!(
                "| {} | {} | {} | {} |",
                row.what, row.figure, row.aim, row.detail
            );
        }
    }
}

impl Row {
    pub(crate) fn note(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            figure: "-".to_owned(),
            aim: "-".to_owned(),
            detail: String::new(),
        }
    }

    /// Our rate over the other's, pair by pair.
    pub(crate) fn share(what: &str, pairs: &[(Recording, Recording)], aim: &str) -> Self {
        let shares = pairs.iter().map(|(bare, ours)| ours.rate() / bare.rate());
        let rates: Vec<_> = pairs
            .iter()
            .map(|(bare, ours)| (bare.rate(), ours.rate()))
            .collect();
        Self::shares(what, shares.collect(), &rates, aim)
    }

    pub(crate) fn shares(what: &str, shares: Vec<f64>, rates: &[(f64, f64)], aim: &str) -> Self {
        let (low, median, high) = spread(shares);
        let bare = spread(rates.iter().map(|rates| rates.0).collect()).1;
        let ours = spread(rates.iter().map(|rates| rates.1).collect()).1;
        Self {
            what: what.to_owned(),
            figure: format!("{median:.2}"),
            aim: aim.to_owned(),
            detail: format!("{low:.2} to {high:.2}; {ours:.0}/s of {bare:.0}/s"),
        }
    }

    /// How much more something takes.
    pub(crate) fn percent(what: &str, percents: Vec<f64>, aim: &str) -> Self {
        let mean = percents.iter().sum::<f64>() / percents.len() as f64;
        let (low, median, high) = spread(percents);
        Self {
            what: what.to_owned(),
            figure: format!("{median:+.1} %"),
            aim: format!("under {aim} %"),
            detail: format!("{low:+.1} to {high:+.1} %, mean {mean:+.1} %"),
        }
    }

    /// A share that was measured, beside the one that the simulation says.
    pub(crate) fn beside(what: &str, measured: Vec<f64>, simulated: f64) -> Self {
        let (low, median, high) = spread(measured);
        Self {
            what: what.to_owned(),
            figure: format!("{median:.3}"),
            aim: format!("simulated {simulated:.3}"),
            detail: format!("{low:.3} to {high:.3}"),
        }
    }

    /// How much later our median answer comes.
    pub(crate) fn added_median(what: &str, pairs: &[(Recording, Recording)], aim: &str) -> Self {
        let microseconds = |duration: Duration| duration.as_secs_f64() * 1e6;
        let added = pairs.iter().map(|(bare, ours)| {
            microseconds(ours.quantile(0.5)) - microseconds(bare.quantile(0.5))
        });
        let (low, median, high) = spread(added.collect());
        let bare = spread(
            pairs
                .iter()
                .map(|pair| microseconds(pair.0.quantile(0.5)))
                .collect(),
        )
        .1;
        Self {
            what: what.to_owned(),
            figure: format!("+{median:.0} us"),
            aim: aim.to_owned(),
            detail: format!("{low:.0} to {high:.0} us on top of {bare:.0} us"),
        }
    }

    /// From process start to ready, and resident memory beside that of ONNX Runtime alone.
    pub(crate) fn start(times: Vec<Duration>, memory: Vec<(u64, u64)>) -> Self {
        let (low, median, high) =
            spread(times.iter().map(|time| time.as_secs_f64() * 1e3).collect());
        let own = memory
            .iter()
            .map(|(server, _)| *server as f64 / 1024.0)
            .collect();
        let over = memory
            .iter()
            .map(|(server, bare)| (*server as f64 - *bare as f64) / 1024.0);
        Self {
            what: "digits model: process start to ready".to_owned(),
            figure: format!("{median:.0} ms"),
            aim: "-".to_owned(),
            detail: format!(
                "{low:.0} to {high:.0} ms; {:.0} MiB resident, {:.0} MiB over ONNX Runtime with the model alone",
                spread(own).1,
                spread(over.collect()).1
            ),
        }
    }
}

/// Least, median, most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (
        at(0),
        at(values.len() / 2),
        at(values.len().saturating_sub(1)),
    )
}
