//! Reports as JSON. docs/loadtest.md has the schema; a change of it changes `format`.

// What is missing in a JSON value is null, not a panic.
#![allow(clippy::indexing_slicing)]

mod asked;
mod comparison;
mod generators;
mod search;

use std::time::Duration;

use anyhow::{Context, bail};
use asked::{asked, read_asked};
use comparison::{comparison, read_comparison};
use generators::{generators, read_generators};
use hdrhistogram::Histogram;
use search::{read_search, search};
use serde_json::{Map, Value, json};

use super::{Environment, Report, StepReport, Usage, Verdict};
use crate::blows::Recovery;
use crate::counted::{Counted, CountedSecond};
use crate::outcome::{CODES, Outcomes, code_name};
use crate::recording::{Latencies, Recording, Second, histogram};
use crate::slo::Finding;

const FORMAT: u64 = 2;
/// The quantiles that are written out for those who do not want to read histograms.
const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// The report as JSON text.
pub fn write_report(report: &Report) -> String {
    let environment = &report.environment;
    let verdict = match report.verdict() {
        Verdict::Met => "met",
        Verdict::Missed => "missed",
        Verdict::Invalid => "invalid",
    };
    let steps: Vec<Value> = report.steps.iter().map(step).collect();
    let comparisons: Vec<Value> = report.comparisons.iter().map(comparison).collect();
    let document = json!({
        "format": FORMAT,
        "verdict": verdict,
        "environment": {
            "time": environment.time,
            "version": environment.version,
            "scenario": environment.scenario,
            "scenario_text": environment.scenario_text,
            "seed": environment.seed,
            "server": environment.server,
            "system": environment.system,
            "processor": environment.processor,
            "cores": environment.cores,
            "memory_bytes": environment.memory_bytes,
        },
        "steps": steps,
        "comparisons": comparisons,
        "search": report.found.map(search),
    });
    format!("{document}\n")
}

fn step(step: &StepReport) -> Value {
    let recording = &step.recording;
    let findings = step.findings.iter();
    let findings: Vec<Value> = findings
        .map(|finding| json!({ "text": finding.text, "met": finding.met }))
        .collect();
    let seconds: Vec<Value> = recording.seconds.iter().map(second).collect();
    let usage = step.usage.iter();
    let usage: Vec<Value> = usage
        .map(|(second, usage)| {
            json!({
                "second": second,
                "resident_bytes": usage.resident_bytes,
                "descriptors": usage.descriptors,
                "threads": usage.threads,
            })
        })
        .collect();
    json!({
        "name": step.name,
        "invalid": step.invalid,
        "asked": asked(&step.asked),
        "findings": findings,
        "seconds_measured": recording.elapsed.as_secs_f64(),
        "offered_per_second": step.offered_rate,
        "answered_per_second": recording.rate(),
        "good_per_second": recording.goodput(),
        "answers": recording.answers,
        "good_answers": recording.good_answers,
        "generators": generators(recording),
        "outcomes": outcomes(&recording.outcomes),
        "latency_ns": distribution(&recording.latency),
        "good_latency_ns": distribution(&recording.good_latency),
        "service_ns": distribution(&recording.service),
        "lag_ns": distribution(&recording.lag),
        "seconds": seconds,
        "usage": usage,
        "recoveries": recording.recoveries.iter().map(recovery).collect::<Vec<_>>(),
        "server": step.counted.iter().map(counted).collect::<Vec<_>>(),
    })
}

fn recovery(recovery: &Recovery) -> Value {
    match recovery {
        Recovery::Served(after) => json!({ "served_after_ns": after.as_nanos() as u64 }),
        Recovery::NotServed(watched) => json!({ "not_served_for_ns": watched.as_nanos() as u64 }),
    }
}

fn read_recovery(value: &Value) -> Option<Recovery> {
    let time = |key: &str| value[key].as_u64().map(Duration::from_nanos);
    let served = time("served_after_ns").map(Recovery::Served);
    served.or_else(|| time("not_served_for_ns").map(Recovery::NotServed))
}

fn counted(counted: &Counted) -> Value {
    let batches = counted.batches.iter();
    let seconds = counted.seconds.iter();
    let seconds: Vec<Value> = seconds
        .map(|one| {
            json!({
                "second": one.second,
                "queue_mean_ns": one.queue_ns,
                "batch_mean_rows": one.rows,
            })
        })
        .collect();
    json!({
        "model": counted.model,
        "version": counted.version,
        "requests": counted.requests,
        "queue_mean_ns": counted.queue_ns,
        "batches": batches.map(|(rows, runs)| json!([rows, runs])).collect::<Vec<_>>(),
        "seconds": seconds,
    })
}

fn second(second: &Second) -> Value {
    json!({
        "outcomes": outcomes(&second.outcomes),
        "latency_ns": pairs(second.latency.counts()),
    })
}

fn outcomes(outcomes: &Outcomes) -> Value {
    json!({
        "ok": outcomes.ok,
        "late": outcomes.late,
        "wrong": outcomes.wrong,
        "missing": outcomes.missing,
        "skipped": outcomes.skipped,
        "doubled": outcomes.doubled,
        "failed": outcomes.failed,
    })
}

fn distribution(histogram: &Histogram<u64>) -> Value {
    let mut fields = Map::new();
    fields.insert("mean".to_owned(), json!(histogram.mean()));
    fields.insert("max".to_owned(), json!(histogram.max()));
    for (name, share) in QUANTILES {
        let value = histogram.value_at_quantile(share);
        fields.insert(name.to_owned(), json!(value));
    }
    fields.insert("counts".to_owned(), counts(histogram));
    Value::Object(fields)
}

/// Pairs of a value and how often it was seen, to three digits.
fn counts(histogram: &Histogram<u64>) -> Value {
    let recorded = histogram.iter_recorded();
    pairs(recorded.map(|one| (one.value_iterated_to(), one.count_at_value())))
}

fn pairs(counts: impl Iterator<Item = (u64, u64)>) -> Value {
    counts.map(|(value, count)| json!([value, count])).collect()
}

/// What a report's JSON text says.
pub fn read_report(text: &str) -> anyhow::Result<Report> {
    let document: Value = serde_json::from_str(text)?;
    let format = document["format"].as_u64();
    if format != Some(FORMAT) {
        bail!("format is {format:?}, where {FORMAT} is read");
    }
    let environment = &document["environment"];
    let text = |key: &str| environment[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| environment[key].as_u64().unwrap_or_default();
    let steps = document["steps"].as_array().context("no steps")?;
    Ok(Report {
        environment: Environment {
            time: number("time"),
            version: text("version"),
            scenario: text("scenario"),
            scenario_text: text("scenario_text"),
            seed: number("seed"),
            server: text("server"),
            system: text("system"),
            processor: text("processor"),
            cores: usize::try_from(number("cores"))?,
            memory_bytes: number("memory_bytes"),
        },
        steps: steps.iter().map(read_step).collect::<Result<_, _>>()?,
        comparisons: document["comparisons"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(read_comparison)
            .collect(),
        found: read_search(&document["search"]),
    })
}

fn read_step(value: &Value) -> anyhow::Result<StepReport> {
    let findings = value["findings"].as_array().into_iter().flatten();
    let findings = findings.map(|finding| Finding {
        text: finding["text"].as_str().unwrap_or_default().to_owned(),
        met: finding["met"].as_bool().unwrap_or_default(),
    });
    let seconds = value["seconds"].as_array().into_iter().flatten();
    let seconds = seconds.map(|second| {
        anyhow::Ok(Second {
            outcomes: read_outcomes(&second["outcomes"]),
            latency: read_latencies(&second["latency_ns"])?,
        })
    });
    let elapsed = value["seconds_measured"].as_f64().unwrap_or_default();
    Ok(StepReport {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        offered_rate: value["offered_per_second"].as_f64(),
        asked: read_asked(&value["asked"]),
        findings: findings.collect(),
        invalid: value["invalid"].as_str().map(str::to_owned),
        usage: value["usage"]
            .as_array()
            .into_iter()
            .flatten()
            .map(read_usage)
            .collect(),
        counted: value["server"]
            .as_array()
            .into_iter()
            .flatten()
            .map(read_counted)
            .collect(),
        recording: Recording {
            elapsed: Duration::try_from_secs_f64(elapsed)?,
            outcomes: read_outcomes(&value["outcomes"]),
            answers: value["answers"].as_u64().unwrap_or_default(),
            good_answers: value["good_answers"].as_u64().unwrap_or_default(),
            beside: read_generators(&value["generators"])?,
            latency: read_counts(&value["latency_ns"]["counts"])?,
            good_latency: read_counts(&value["good_latency_ns"]["counts"])?,
            service: read_counts(&value["service_ns"]["counts"])?,
            lag: read_counts(&value["lag_ns"]["counts"])?,
            seconds: seconds.collect::<anyhow::Result<_>>()?,
            recoveries: value["recoveries"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(read_recovery)
                .collect(),
        },
    })
}

fn read_counted(value: &Value) -> Counted {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let batches = value["batches"].as_array().into_iter().flatten();
    let batches = batches.filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?)));
    let seconds = value["seconds"].as_array().into_iter().flatten();
    let seconds = seconds.filter_map(|one| {
        Some(CountedSecond {
            second: one["second"].as_f64()?,
            queue_ns: one["queue_mean_ns"].as_f64()?,
            rows: one["batch_mean_rows"].as_f64()?,
        })
    });
    Counted {
        model: text("model"),
        version: text("version"),
        requests: value["requests"].as_u64().unwrap_or_default(),
        queue_ns: value["queue_mean_ns"].as_f64().unwrap_or_default(),
        batches: batches.collect(),
        seconds: seconds.collect(),
    }
}

fn read_usage(value: &Value) -> (f64, Usage) {
    let count = |key: &str| value[key].as_u64().unwrap_or_default();
    let usage = Usage {
        resident_bytes: count("resident_bytes"),
        descriptors: count("descriptors"),
        threads: count("threads"),
    };
    (value["second"].as_f64().unwrap_or_default(), usage)
}

fn read_outcomes(value: &Value) -> Outcomes {
    let count = |key: &str| value[key].as_u64().unwrap_or_default();
    let failed = &value["failed"];
    let codes = CODES.map(code_name).into_iter();
    let codes = codes.filter_map(|name| Some((name, failed[name].as_u64()?)));
    Outcomes {
        ok: count("ok"),
        late: count("late"),
        wrong: count("wrong"),
        missing: count("missing"),
        skipped: count("skipped"),
        doubled: count("doubled"),
        failed: codes.collect(),
    }
}

fn read_counts(value: &Value) -> anyhow::Result<Histogram<u64>> {
    let mut read = histogram();
    for (value, count) in read_pairs(value)? {
        read.saturating_record_n(value, count);
    }
    Ok(read)
}

fn read_latencies(value: &Value) -> anyhow::Result<Latencies> {
    let mut read = Latencies::default();
    for (value, count) in read_pairs(value)? {
        read.add(value, count);
    }
    Ok(read)
}

fn read_pairs(value: &Value) -> anyhow::Result<Vec<(u64, u64)>> {
    let pairs = value.as_array().context("a histogram is missing")?.iter();
    let pairs = pairs.map(|pair| {
        let number = |index: usize| pair[index].as_u64().context("a count is no number");
        Ok((number(0)?, number(1)?))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blows::Blows;
    use crate::compare::{Call, Comparison, Metric};
    use crate::outcome::Outcome;
    use crate::recording::{Recorder, Sample};
    use crate::slo::Slo;

    fn report() -> Report {
        let mut recorder = Recorder::new(Duration::from_secs(1), Duration::from_secs(10));
        for number in 0..2_000_u64 {
            let intended = Duration::from_millis(number * 5);
            let outcome = match number % 10 {
                3 => Outcome::Late,
                5 => Outcome::Failed(tonic::Code::Unavailable),
                7 => Outcome::Missing,
                _ => Outcome::Ok,
            };
            recorder.add(&Sample {
                intended,
                sent: intended + Duration::from_micros(20),
                ended: intended + Duration::from_micros(100 * (1 + number % 100)),
                outcome,
            });
        }
        Report {
            environment: Environment::here("s.toml", "seed = 3", 3, "a server".to_owned()),
            steps: vec![StepReport {
                name: "one".to_owned(),
                offered_rate: Some(200.0),
                recording: recorder.finish(&Blows::none()),
                asked: Slo {
                    max_late: Some(200),
                    min_goodput: Some(100.0),
                    ..Slo::default()
                },
                findings: vec![Finding {
                    text: "something".to_owned(),
                    met: true,
                }],
                invalid: None,
                usage: vec![(
                    0.5,
                    Usage {
                        resident_bytes: 1,
                        descriptors: 2,
                        threads: 3,
                    },
                )],
                counted: vec![Counted {
                    model: "m".to_owned(),
                    version: "1".to_owned(),
                    requests: 5,
                    queue_ns: 2.5,
                    batches: [(1, 3), (2, 1)].into(),
                    seconds: vec![CountedSecond {
                        second: 1.0,
                        queue_ns: 2.5,
                        rows: 1.25,
                    }],
                }],
            }],
            comparisons: vec![Comparison {
                metric: Metric::P99,
                ratio: 0.9,
                interval: (0.85, 0.95),
                call: Call::Better,
            }],
            found: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let report = report();
        let read = read_report(&write_report(&report)).unwrap();
        assert_eq!(read.environment, report.environment);
        assert_eq!(read.verdict(), Verdict::Met);
        let (own, other) = (&read.steps[0].recording, &report.steps[0].recording);
        assert_eq!(own.latency, other.latency);
        assert_eq!(own.outcomes, other.outcomes);
        assert_eq!((own.answers, own.elapsed), (other.answers, other.elapsed));
        assert_eq!(own.seconds.len(), 9);
        assert_eq!(read.steps[0].usage, report.steps[0].usage);
        assert_eq!(read.steps[0].counted, report.steps[0].counted);
        assert_eq!(read.comparisons, report.comparisons);
        assert_eq!(own.seconds[3].latency, other.seconds[3].latency);
        assert_eq!(write_report(&read), write_report(&report));
    }

    #[test]
    fn two_generators_are_one_report() {
        let one = Report {
            comparisons: Vec::new(),
            ..report()
        };
        let mut both = one.clone();
        both.merge(one.clone()).unwrap();
        let (own, other) = (&both.steps[0].recording, &one.steps[0].recording);
        assert_eq!(own.latency.len(), 2 * other.latency.len());
        assert_eq!(own.quantile(0.99), other.quantile(0.99));
        assert!((own.rate() - 2.0 * other.rate()).abs() < 1e-9);
        assert_eq!(both.steps[0].offered_rate, Some(400.0));
        // What was asked of each is asked of both: twice 180 come late, where twice 200 may.
        let findings: Vec<String> = both.steps[0]
            .findings
            .iter()
            .map(Finding::to_string)
            .collect();
        assert_eq!(
            findings,
            [
                "met: 0 wrong answers, 0 allowed",
                "met: 252.2 good answers a second, 200.0 asked",
                "met: 360 answers after their deadline, 400 allowed",
            ]
        );
        assert_eq!(both.verdict(), Verdict::Met);
        let longer = Report {
            steps: vec![one.steps[0].clone(), one.steps[0].clone()],
            ..one
        };
        assert!(both.merge(longer).is_err());
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for text in ["", "{}", r#"{"format":1,"steps":[]}"#, r#"{"format":2}"#] {
            assert!(read_report(text).is_err(), "{text}");
        }
        let lies = r#"{"format":2,"environment":{},"steps":[{"seconds_measured":-1}]}"#;
        assert!(read_report(lies).is_err());
    }
}
