//! Runs a scenario against its server, step by step.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::arrivals::Arrivals;
use crate::blows::Blows;
use crate::counted::Looks;
use crate::driver::Plan;
use crate::faults::Faults;
use crate::fill::fill;
use crate::process::{Usage, Watch};
use crate::recording::Progress;
use crate::report::{Environment, Report, StepReport, lagged};
use crate::requests::Mix;
use crate::scenario::{Scenario, Step};
use crate::server::Running;
use crate::target::Target;

/// A scenario that is ready to be run: its server is there and its requests are made.
#[derive(Debug)]
pub struct Session {
    scenario: Scenario,
    server: String,
    target: Target,
    mix: Mix,
    /// Killed when the session is dropped, if it was started for it.
    running: Arc<Running>,
    /// The server's process, if it was not.
    process: Option<u32>,
}

impl Session {
    /// Finds or starts the server and makes the requests ready.
    pub async fn open(scenario: Scenario) -> anyhow::Result<Self> {
        let running = Arc::new(Running::find(&scenario.server).await?);
        let endpoint = scenario.endpoint(&running.address);
        let target = Target::connect(endpoint, scenario.connections).await?;
        let about = target.about().await?;
        let mix = Mix::new(fill(&scenario, &target).await?);
        Ok(Self {
            server: format!("{} ({about})", running.address),
            scenario,
            target,
            mix,
            running,
            process: None,
        })
    }

    /// Looks at what this process takes of the machine, if the server was not started for the session.
    pub fn watch_process(&mut self, id: u32) -> anyhow::Result<()> {
        Usage::of(id).with_context(|| format!("process {id} cannot be looked at"))?;
        self.process = Some(id);
        Ok(())
    }

    /// Whether the server's process is known.
    pub fn sees_a_process(&self) -> bool {
        self.process_id().is_some()
    }

    fn process_id(&self) -> Option<u32> {
        self.running.id().or(self.process)
    }

    /// What is run.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The server's address, name and version.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Runs every step; `watch` makes what is told how each one goes.
    pub async fn run<W: FnMut(Progress) + Send + 'static>(
        &self,
        name: &str,
        mut watch: impl FnMut(&Step) -> W,
    ) -> anyhow::Result<Report> {
        let mut steps = Vec::new();
        for step in &self.scenario.steps {
            steps.push(self.step(step, watch(step)).await?);
        }
        Ok(Report {
            environment: self.environment(name),
            steps,
            comparisons: Vec::new(),
            found: None,
        })
    }

    /// Where and when a run of this session is made.
    pub fn environment(&self, scenario: &str) -> Environment {
        Environment::here(
            scenario,
            &self.scenario.source,
            self.scenario.seed,
            self.server.clone(),
        )
    }

    /// Runs one step.
    pub async fn step(
        &self,
        step: &Step,
        watch: impl FnMut(Progress) + Send + 'static,
    ) -> anyhow::Result<StepReport> {
        let plan = Plan {
            arrivals: step.arrivals.clone(),
            seed: self.scenario.seed,
            warm_up: step.warm_up,
            duration: step.duration,
            stop: step.stop,
            timeout: self.scenario.timeout,
            max_outstanding: self.scenario.max_outstanding,
        };
        let any = self.mix.first().context("there is no request to send")?;
        let before = self.target.statistics().await;
        let looks = Looks::at(&self.target, step.warm_up, before);
        let blows = Blows::none();
        let endpoint = self.scenario.endpoint(&self.running.address);
        let faults = Faults::commit(&step.faults, &endpoint, &self.running, any, &blows);
        let usage = Watch::of(self.process_id(), step.warm_up);
        let run = plan.run_watched(&self.target, &self.mix, &blows, watch);
        let run = run.await;
        let recording = run.with_context(|| format!("step {}", step.name))?;
        let usage = usage.seen(recording.elapsed).await;
        drop(faults);
        self.running.revive().await?;
        let counted = looks.counted(&self.target.statistics().await).await;
        Ok(StepReport {
            name: step.name.clone(),
            offered_rate: offered(&step.arrivals, step.warm_up, recording.elapsed),
            asked: step.slo.clone(),
            findings: step.slo.judge(&recording, &usage),
            usage,
            counted,
            invalid: lagged(&recording, self.scenario.max_lag),
            recording,
        })
    }
}

/// Requests a second in the time that counts.
fn offered(arrivals: &Arrivals, warm_up: Duration, duration: Duration) -> Option<f64> {
    let Arrivals::Open(schedule) = arrivals else {
        return None;
    };
    let end = warm_up + duration;
    let before = schedule.mean_rate(warm_up) * warm_up.as_secs_f64();
    let all = schedule.mean_rate(end) * end.as_secs_f64();
    Some((all - before) / duration.as_secs_f64().max(f64::MIN_POSITIVE))
}
