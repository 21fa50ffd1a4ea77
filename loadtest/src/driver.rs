//! The one loop that drives a server: arrivals, a target and a stop are values that it is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fastrand::Rng;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::arrivals::{Arrivals, Schedule};
use crate::clock::{block_until, now};
use crate::outcome::Outcome;
use crate::recording::{Progress, Recorder, Recording, Sample};
use crate::requests::Mix;
use crate::target::Target;

/// From one look at a run under way to the next.
const LOOKS: Duration = Duration::from_secs(1);

/// How a server is driven.
#[derive(Clone, Debug)]
pub struct Plan {
    /// When requests are sent.
    pub arrivals: Arrivals,
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// What is left out of the figures at the start.
    pub warm_up: Duration,
    /// What counts after that.
    pub duration: Duration,
    /// The longest wait for an answer.
    pub timeout: Duration,
    /// Requests sent and not answered. One more is skipped, and counted as that.
    pub max_outstanding: usize,
}

impl Plan {
    /// These arrivals for so long after so much warm-up, with the usual bounds.
    pub fn new(arrivals: Arrivals, warm_up: Duration, duration: Duration) -> Self {
        Self {
            arrivals,
            seed: 1,
            warm_up,
            duration,
            timeout: Duration::from_secs(10),
            max_outstanding: 16_384,
        }
    }

    /// Drives the target, and gives what that showed.
    pub async fn run(&self, target: &Target, mix: &Mix) -> anyhow::Result<Recording> {
        self.run_watched(target, mix, |_| {}).await
    }

    /// The same; every second `watch` is told how it goes.
    pub async fn run_watched(
        &self,
        target: &Target,
        mix: &Mix,
        watch: impl FnMut(Progress) + Send + 'static,
    ) -> anyhow::Result<Recording> {
        let (samples, ended) = unbounded_channel();
        let run = Run {
            start: now(),
            end: self.warm_up + self.duration,
            timeout: self.timeout,
            target: target.clone(),
            mix: mix.clone(),
            samples,
        };
        let recorder = Recorder::new(self.warm_up, self.duration);
        let recording = tokio::spawn(record(ended, recorder, run.start, watch));
        match &self.arrivals {
            Arrivals::Closed { in_flight } => run.closed(*in_flight, self.seed),
            Arrivals::Open(schedule) => run.open(schedule, self.seed, self.max_outstanding)?,
        }
        let recording = recording.await.context("recording failed")?;
        if recording.outcomes.all() == 0 {
            bail!("no request was sent within {:?}", self.duration);
        }
        Ok(recording)
    }
}

/// Samples come until the last request has ended; there are never more than requests outstanding.
async fn record(
    mut ended: UnboundedReceiver<Sample>,
    mut recorder: Recorder,
    start: Instant,
    mut watch: impl FnMut(Progress),
) -> Recording {
    let mut looks = tokio::time::interval(LOOKS);
    looks.tick().await;
    loop {
        tokio::select! {
            biased;
            _ = looks.tick() => watch(recorder.look(start.elapsed_now())),
            sample = ended.recv() => match sample {
                Some(sample) => recorder.add(&sample),
                None => return recorder.finish(),
            },
        }
    }
}

/// A run under way.
#[derive(Clone)]
struct Run {
    start: Instant,
    /// Counted from the start.
    end: Duration,
    timeout: Duration,
    target: Target,
    mix: Mix,
    samples: UnboundedSender<Sample>,
}

impl Run {
    /// As many loops as requests in flight, each of which sends when it has been answered.
    fn closed(self, in_flight: usize, seed: u64) {
        let step = in_flight.max(1) as u64;
        for first in 0..step {
            let run = self.clone();
            tokio::spawn(async move {
                let mut random = Rng::with_seed(seed ^ first);
                let mut number = first;
                loop {
                    let intended = run.start.elapsed_now();
                    if intended >= run.end {
                        return;
                    }
                    run.one(number, intended, &mut random).await;
                    number += step;
                }
            });
        }
    }

    /// A thread that wakes when a request is due, because the runtime's timers are too coarse.
    fn open(self, schedule: &Schedule, seed: u64, max_outstanding: usize) -> anyhow::Result<()> {
        let arrivals = schedule.arrivals(seed);
        let outstanding = Arc::new(AtomicUsize::new(0));
        let runtime = Handle::current();
        let mut random = Rng::with_seed(seed);
        let pace = move || {
            for (number, arrival) in (0..).zip(arrivals) {
                if arrival.offset >= self.end {
                    return;
                }
                block_until(self.start + arrival.offset);
                if outstanding.load(Ordering::Relaxed) >= max_outstanding {
                    self.skip(arrival.offset);
                    continue;
                }
                outstanding.fetch_add(1, Ordering::Relaxed);
                let (run, outstanding) = (self.clone(), Arc::clone(&outstanding));
                let mut random = random.fork();
                runtime.spawn(async move {
                    run.one(number, arrival.offset, &mut random).await;
                    outstanding.fetch_sub(1, Ordering::Relaxed);
                });
            }
        };
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(pace)
            .context("no thread could be started")?;
        Ok(())
    }

    async fn one(&self, number: u64, intended: Duration, random: &mut Rng) {
        let Some(mut client) = self.target.client(number) else {
            return;
        };
        let Some(request) = self.mix.pick(number, random) else {
            return;
        };
        let sent = self.start.elapsed_now();
        let mut outcome = client.send(request, number, self.timeout).await;
        let ended = self.start.elapsed_now();
        let too_late = |deadline| ended.saturating_sub(intended) > deadline;
        if outcome == Outcome::Ok && request.deadline.is_some_and(too_late) {
            outcome = Outcome::Late;
        }
        self.tell(Sample {
            intended,
            sent,
            ended,
            outcome,
        });
    }

    fn skip(&self, intended: Duration) {
        self.tell(Sample {
            intended,
            sent: intended,
            ended: intended,
            outcome: Outcome::Skipped,
        });
    }

    fn tell(&self, sample: Sample) {
        // If the run was given up, nobody listens.
        let _ = self.samples.send(sample);
    }
}

trait ElapsedNow {
    fn elapsed_now(&self) -> Duration;
}

impl ElapsedNow for Instant {
    fn elapsed_now(&self) -> Duration {
        now().saturating_duration_since(*self)
    }
}
