//! What a step has to show, and whether it does.

use std::fmt;
use std::time::Duration;

use crate::blows::Recovery;
use crate::confidence::sureness;
use crate::growth::Trend;
use crate::process::Usage;
use crate::recording::Recording;

/// What a step has to show. What is not said is not asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slo {
    /// A share of all requests, 0 to 1, and the latency that so many must not exceed. A request
    /// without a good answer exceeds every latency.
    pub latency: Option<(f64, Duration)>,
    /// The largest share of requests, 0 to 1, that may end otherwise than well.
    pub max_error_share: Option<f64>,
    /// The least good answers a second.
    pub min_goodput: Option<f64>,
    /// The most answers that came after their requests' deadlines.
    pub max_late: Option<u64>,
    /// The longest time from a blow that the server is dealt to the first good answer of a request
    /// that is sent after it.
    pub max_recovery: Option<Duration>,
    /// The most answers that are not what they should be; none is allowed where it is not said.
    pub max_wrong: u64,
    /// What may grow while the step lasts.
    pub max_growth: Growth,
}

/// The largest growth in an hour, as a share of the mean, of what a server takes that was started for
/// the run, and of latency. A line is laid through the values of each second, and it counts what it
/// grows with 99 % confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Growth {
    /// Resident memory.
    pub memory: Option<f64>,
    /// Open file descriptors.
    pub descriptors: Option<f64>,
    /// Threads.
    pub threads: Option<f64>,
    /// The median latency of each second's answers, good or not: what comes late is not to hide growth.
    pub latency: Option<f64>,
}

impl Growth {
    /// What may grow in hours under a load that does not: nothing but for noise. What a server's
    /// process takes is asked only where that can be seen.
    pub fn of_a_soak(sees_a_process: bool) -> Self {
        let taken = sees_a_process.then_some(0.02);
        Self {
            memory: taken,
            descriptors: taken,
            threads: taken,
            latency: Some(0.1),
        }
    }

    fn judge(&self, recording: &Recording, usage: &[(f64, Usage)]) -> Vec<Finding> {
        let used = |what: fn(&Usage) -> u64| -> Vec<(f64, f64)> {
            let values = usage.iter();
            values
                .map(|(second, usage)| (*second, what(usage) as f64))
                .collect()
        };
        let seconds = (0..).zip(&recording.seconds);
        let latency = seconds.filter(|(_, second)| !second.latency.is_empty());
        let latency: Vec<(f64, f64)> = latency
            .map(|(at, second)| (f64::from(at), second.latency.value_at_quantile(0.5) as f64))
            .collect();
        let asked = [
            ("memory", self.memory, used(|usage| usage.resident_bytes)),
            (
                "file descriptors",
                self.descriptors,
                used(|usage| usage.descriptors),
            ),
            ("threads", self.threads, used(|usage| usage.threads)),
            ("median latency", self.latency, latency),
        ];
        let asked = asked.into_iter();
        asked
            .filter_map(|(name, most, values)| Some(growth(name, most?, &values)))
            .collect()
    }
}

fn growth(name: &str, most: f64, values: &[(f64, f64)]) -> Finding {
    let Some(trend) = Trend::through(values) else {
        return Finding {
            text: format!("{name}: {} values are too few for a trend", values.len()),
            met: false,
        };
    };
    let an_hour = |slope: f64| slope * 3_600.0 / trend.mean.abs().max(f64::MIN_POSITIVE) * 1e2;
    let (slope, margin, allowed) = (an_hour(trend.slope), an_hour(trend.margin), most * 1e2);
    let met = trend.sure_growth_an_hour() <= most;
    // What is not seen is not ruled out.
    let doubt = match met && slope + margin > allowed {
        true => ", and more than that cannot be ruled out in so short a time",
        false => "",
    };
    Finding {
        text: format!(
            "growth of {name}: {slope:.1} % of the mean an hour, give or take {margin:.1} (99 % sure); \
             {allowed:.1} % allowed{doubt}"
        ),
        met,
    }
}

/// One thing that was asked and how it turned out.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// In words: what was asked and what was seen.
    pub text: String,
    /// Whether it holds.
    pub met: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.met { "met" } else { "MISSED" };
        write!(formatter, "{mark}: {}", self.text)
    }
}

impl Slo {
    /// What is asked of two generators together: counts and rates of each add up, and what else was
    /// asked of this one.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let both = |one: Option<u64>, two: Option<u64>| one.zip(two).map(|(one, two)| one + two);
        let rates = self.min_goodput.zip(other.min_goodput);
        Self {
            min_goodput: rates.map(|(one, two)| one + two),
            max_late: both(self.max_late, other.max_late),
            max_wrong: self.max_wrong + other.max_wrong,
            ..self.clone()
        }
    }

    /// Whether both ask the same but for what adds up.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let asks = |slo: &Self| (slo.min_goodput.is_some(), slo.max_late.is_some());
        let same = Self {
            min_goodput: self.min_goodput,
            max_late: self.max_late,
            max_wrong: self.max_wrong,
            ..other.clone()
        };
        asks(self) == asks(other) && *self == same
    }

    /// How each thing that was asked turned out.
    pub fn judge(&self, recording: &Recording, usage: &[(f64, Usage)]) -> Vec<Finding> {
        let outcomes = &recording.outcomes;
        let mut findings = vec![Finding {
            text: format!(
                "{} wrong answers, {} allowed",
                outcomes.wrong, self.max_wrong
            ),
            met: outcomes.wrong <= self.max_wrong,
        }];
        if outcomes.doubled > 0 {
            findings.push(Finding {
                text: format!("{} answers that nobody waited for", outcomes.doubled),
                met: false,
            });
        }
        if let Some((share, bound)) = self.latency {
            findings.push(latency(recording, share, bound));
        }
        if let Some(most) = self.max_error_share {
            let share = 1.0 - outcomes.ok_share();
            findings.push(Finding {
                text: format!(
                    "{:.3} % of requests failed, {:.3} % allowed",
                    share * 1e2,
                    most * 1e2
                ),
                met: share <= most,
            });
        }
        if let Some(least) = self.min_goodput {
            let goodput = recording.goodput();
            findings.push(Finding {
                text: format!("{goodput:.1} good answers a second, {least:.1} asked"),
                met: goodput >= least,
            });
        }
        if let Some(most) = self.max_late {
            findings.push(Finding {
                text: format!(
                    "{} answers after their deadline, {most} allowed",
                    outcomes.late
                ),
                met: outcomes.late <= most,
            });
        }
        findings.extend(self.max_recovery.map(|most| recovery(recording, most)));
        findings.extend(self.max_growth.judge(recording, usage));
        findings
    }
}

/// A blow so near the end that the time allowed was not over has shown nothing.
fn recovery(recording: &Recording, most: Duration) -> Finding {
    let known = |recovery: &Recovery| match *recovery {
        Recovery::Served(after) => Some(after),
        Recovery::NotServed(watched) => (watched > most).then_some(Duration::MAX),
    };
    let recoveries: Vec<Duration> = recording.recoveries.iter().filter_map(known).collect();
    let longest = recoveries.iter().max().copied();
    let seen = match longest {
        None => "nothing to recover from".to_owned(),
        Some(Duration::MAX) => "not served again after a blow".to_owned(),
        Some(longest) => format!("served again within {:.0} ms", longest.as_secs_f64() * 1e3),
    };
    Finding {
        text: format!(
            "{seen}, {} blows, {:.0} ms allowed",
            recoveries.len(),
            most.as_secs_f64() * 1e3
        ),
        // A step whose blow was never dealt has shown nothing.
        met: longest.is_some_and(|longest| longest <= most),
    }
}

/// What got no good answer took longer than any bound: in what is told, in the verdict, and in how sure it is.
fn latency(recording: &Recording, share: f64, bound: Duration) -> Finding {
    let seen = recording.quantile_of_all(share);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let percent = share * 1e2;
    let told = match seen {
        None => format!("fewer than {percent} % of requests were answered well"),
        Some(seen) => format!(
            "{percent} % of requests answered well within {:.2} ms",
            milliseconds(seen)
        ),
    };
    let met = seen.is_some_and(|seen| seen <= bound);
    let (holds, fails) = sureness(share, recording.outcomes.all(), recording.over(bound));
    let sure = 1e2 * if met { holds } else { fails };
    Finding {
        text: format!(
            "{told}, {:.2} ms asked ({} % sure)",
            milliseconds(bound),
            floored(sure)
        ),
        met,
    }
}

/// A percentage to two digits, never more than it is.
fn floored(percent: f64) -> f64 {
    ((percent * 1e2).floor() / 1e2).min(99.99)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;
    use crate::recording::{Recorder, Sample};

    /// 200 requests that are all answered after 5 ms, of which so many end otherwise than well.
    fn quick(ending: Outcome, unwell: u64) -> Recording {
        let mut recorder = Recorder::new(Duration::ZERO, Duration::from_secs(1));
        for number in 0..200 {
            let intended = Duration::from_millis(number);
            recorder.add(&Sample {
                intended,
                sent: intended,
                ended: intended + Duration::from_millis(5),
                outcome: if number < unwell { ending } else { Outcome::Ok },
            });
        }
        recorder.finish(&crate::blows::Blows::none())
    }

    #[test]
    fn quick_answers_that_are_of_no_use_keep_no_bound() {
        let bound = Duration::from_millis(500);
        for ending in [Outcome::Late, Outcome::Wrong, Outcome::Skipped] {
            let none = latency(&quick(ending, 200), 0.99, bound);
            assert_eq!(
                none.to_string(),
                "MISSED: fewer than 99 % of requests were answered well, 500.00 ms asked (99.99 % sure)"
            );
            // Two of two hundred may, and no more.
            let few = latency(&quick(ending, 2), 0.99, bound);
            assert!(few.met && few.text.contains("within 5.0"), "{few}");
            assert!(!latency(&quick(ending, 3), 0.99, bound).met);
        }
    }

    #[test]
    fn it_is_as_sure_as_the_count_of_good_answers_makes_it() {
        let bound = Duration::from_millis(500);
        let said = |unwell| latency(&quick(Outcome::Late, unwell), 0.9, bound).text;
        // One in ten of two hundred would be twenty.
        for (unwell, holds) in [(0, true), (10, true), (30, false), (60, false)] {
            let (met, missed) = sureness(0.9, 200, unwell);
            let sure = floored(1e2 * if holds { met } else { missed });
            let text = said(unwell);
            assert!(text.ends_with(&format!("({sure} % sure)")), "{text}");
        }
    }

    #[test]
    fn a_short_look_rules_out_little() {
        let values = |seconds: u32, slope: f64| -> Vec<(f64, f64)> {
            let values = (0..seconds).map(|second| {
                let wave = f64::from(second % 7) - 3.0;
                (f64::from(second), 100.0 + wave + slope * f64::from(second))
            });
            values.collect()
        };
        let short = growth("memory", 0.02, &values(30, 0.0));
        assert!(
            short.met && short.text.contains("cannot be ruled out"),
            "{short}"
        );
        let long = growth("memory", 0.02, &values(40_000, 0.0));
        assert!(long.met && long.text.ends_with("2.0 % allowed"), "{long}");
        let leak = growth("memory", 0.02, &values(3_600, 0.01));
        assert!(!leak.met && leak.text.ends_with("2.0 % allowed"), "{leak}");
    }

    #[test]
    fn a_blow_near_the_end_shows_nothing() {
        let second = Duration::from_secs(1);
        let slo = Slo {
            max_recovery: Some(2 * second),
            ..Slo::default()
        };
        let met = |recoveries: &[Recovery]| {
            let recorder = Recorder::new(Duration::ZERO, second);
            let mut recording = recorder.finish(&crate::blows::Blows::none());
            recording.recoveries = recoveries.to_vec();
            slo.judge(&recording, &[]).iter().all(|finding| finding.met)
        };
        let (served, lost) = (Recovery::Served(second), Recovery::NotServed(3 * second));
        let near = Recovery::NotServed(second);
        assert!(met(&[served, near]));
        assert!(!met(&[served, lost]));
        assert!(!met(&[near]));
        assert!(!met(&[Recovery::Served(3 * second)]));
    }
}
