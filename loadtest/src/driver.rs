//! The one loop that drives a server: arrivals, a target and a stop are values that it is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fastrand::Rng;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::arrivals::{Arrival, Arrivals, Schedule};
use crate::blows::Blows;
use crate::clock::{block_until, now};
use crate::confidence::Sequential;
use crate::outcome::Outcome;
use crate::recording::{Progress, Recorder, Recording, Sample};
use crate::requests::{Mix, Request};
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
    /// What counts after that, at most.
    pub duration: Duration,
    /// Whether the run ends sooner.
    pub stop: Stop,
    /// The longest wait for an answer.
    pub timeout: Duration,
    /// Requests sent and not answered. One more is skipped, and counted as that.
    pub max_outstanding: usize,
}

/// Whether a run ends before its time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Stop {
    /// It does not.
    #[default]
    AtTheEnd,
    /// As soon as it is known whether such a share of all requests, 0 to 1, is answered well within
    /// this time.
    WhenKnown(f64, Duration),
}

impl Plan {
    /// These arrivals for so long after so much warm-up, with the usual bounds.
    pub fn new(arrivals: Arrivals, warm_up: Duration, duration: Duration) -> Self {
        Self {
            arrivals,
            seed: 1,
            warm_up,
            duration,
            stop: Stop::default(),
            timeout: Duration::from_secs(10),
            max_outstanding: 16_384,
        }
    }

    /// Drives the target, and gives what that showed.
    pub async fn run(&self, target: &Target, mix: &Mix) -> anyhow::Result<Recording> {
        let blows = Blows::none();
        self.run_watched(target, mix, &blows, |_| {}).await
    }

    /// The same with what the server is dealt meanwhile; every second `watch` is told how it goes.
    pub(crate) async fn run_watched(
        &self,
        target: &Target,
        mix: &Mix,
        blows: &Blows,
        watch: impl FnMut(Progress) + Send + 'static,
    ) -> anyhow::Result<Recording> {
        let (samples, ended) = unbounded_channel();
        let end = self.warm_up + self.duration;
        let run = Run {
            start: blows.start(),
            end: Arc::new(End(AtomicU64::new(nanoseconds(end)))),
            outstanding: Arc::default(),
            timeout: self.timeout,
            target: target.clone(),
            mix: mix.clone(),
            samples,
        };
        let recording = Record {
            recorder: Recorder::new(self.warm_up, self.duration),
            question: self.stop.question(),
            outstanding: Arc::clone(&run.outstanding),
            end: Arc::clone(&run.end),
            blows: blows.clone(),
        };
        let strays = target.strays();
        let recording = tokio::spawn(recording.record(ended, watch));
        match &self.arrivals {
            Arrivals::Closed { in_flight } => run.closed(*in_flight, self.seed),
            Arrivals::Open(schedule) => run.open(schedule, self.seed, self.max_outstanding)?,
        }
        let mut recording = recording.await.context("recording failed")?;
        recording.outcomes.doubled = target.strays() - strays;
        if recording.outcomes.all() == 0 {
            bail!("no request was sent within {:?}", self.duration);
        }
        Ok(recording)
    }
}

impl Stop {
    fn question(self) -> Option<(Sequential, Duration)> {
        match self {
            Self::AtTheEnd => None,
            Self::WhenKnown(share, bound) => Some((Sequential::new(share), bound)),
        }
    }
}

/// Writes down what is told, and ends the run when enough is known.
struct Record {
    recorder: Recorder,
    question: Option<(Sequential, Duration)>,
    outstanding: Arc<AtomicUsize>,
    end: Arc<End>,
    blows: Blows,
}

impl Record {
    /// Samples come until the last request has ended; there are never more than requests outstanding.
    async fn record(
        mut self,
        mut ended: UnboundedReceiver<Sample>,
        mut watch: impl FnMut(Progress),
    ) -> Recording {
        let mut looks = tokio::time::interval(LOOKS);
        looks.tick().await;
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => {
                    watch(self.recorder.look(self.blows.start().elapsed_now()));
                    self.stop_if_known();
                }
                sample = ended.recv() => match sample {
                    Some(sample) => self.add(&sample),
                    None => return self.recorder.finish(&self.blows),
                },
            }
        }
    }

    fn add(&mut self, sample: &Sample) {
        if sample.outcome == Outcome::Ok {
            self.blows.answered(sample.intended, sample.ended);
        }
        self.recorder.add(sample);
    }

    /// Requests that are not answered yet count for whichever side makes it harder to tell.
    fn stop_if_known(&mut self) {
        let now = self.blows.start().elapsed_now();
        let Some((question, bound)) = self.question.as_mut().filter(|_| now < self.end.get())
        else {
            return;
        };
        let recording = self.recorder.so_far();
        let over = recording.over(*bound);
        let open = self.outstanding.load(Ordering::Relaxed) as u64;
        if question.look(recording.outcomes.all() + open, over..=over + open) {
            self.end.set(now);
            self.recorder.stop_at(now);
        }
    }
}

/// When the last request is sent, counted from the start.
struct End(AtomicU64);

impl End {
    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, end: Duration) {
        self.0.store(nanoseconds(end), Ordering::Relaxed);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A run under way.
#[derive(Clone)]
struct Run {
    start: Instant,
    end: Arc<End>,
    /// Requests sent and not answered.
    outstanding: Arc<AtomicUsize>,
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
                    if intended >= run.end.get() {
                        return;
                    }
                    let arrival = Arrival {
                        offset: intended,
                        rows: None,
                    };
                    run.outstanding.fetch_add(1, Ordering::Relaxed);
                    run.one(number, arrival, &mut random).await;
                    number += step;
                }
            });
        }
    }

    /// A thread that wakes when a request is due, because the runtime's timers are too coarse.
    fn open(self, schedule: &Schedule, seed: u64, max_outstanding: usize) -> anyhow::Result<()> {
        let arrivals = schedule.arrivals(seed);
        let runtime = Handle::current();
        let mut random = Rng::with_seed(seed);
        let pace = move || {
            for (number, arrival) in (0..).zip(arrivals) {
                if arrival.offset >= self.end.get() {
                    return;
                }
                block_until(self.start + arrival.offset);
                if self.outstanding.load(Ordering::Relaxed) >= max_outstanding {
                    self.skip(arrival.offset);
                    continue;
                }
                self.outstanding.fetch_add(1, Ordering::Relaxed);
                let (run, mut random) = (self.clone(), random.fork());
                runtime.spawn(async move { run.one(number, arrival, &mut random).await });
            }
        };
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(pace)
            .context("no thread could be started")?;
        Ok(())
    }

    async fn one(&self, number: u64, arrival: Arrival, random: &mut Rng) {
        if let Some(request) = self.mix.pick(number, arrival.rows, random) {
            self.send(number, arrival.offset, request).await;
        }
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    async fn send(&self, number: u64, intended: Duration, request: &Request) {
        let sent = self.start.elapsed_now();
        let mut outcome = self.target.send(request, number, self.timeout).await;
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
