//! A loaded version: what it is, what is asked of it, and what it has done.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{Batching, ModelPolicy, Signature, VersionId};
use crate::scheduler::Learned;
use crate::serving::breaker::Casualties;
use crate::serving::cache::Cached;
use crate::serving::ensemble::Ensemble;
use crate::serving::graph::Interface;
use crate::serving::inputs::InputCheck;
use crate::serving::journey::Trip;
use crate::serving::lane::Demand;
use crate::serving::profile::{Profile, profile};
use crate::serving::runner::Runner;
use crate::serving::sequences::Sequences;
use crate::serving::site::Site;
use crate::serving::statistics::{Ledger, Statistics};
use crate::status::{Code, Status};

/// Where nobody says within what time requests are to be answered.
const DEFAULT_OBJECTIVE: Duration = Duration::from_secs(1);

/// A loaded version.
#[derive(Debug)]
pub struct Version {
    /// Which version this is.
    pub id: VersionId,
    /// What clients send and see.
    pub signature: Signature,
    /// What the model itself takes and gives: more, if it is stateful.
    pub whole: Signature,
    /// Whether requests share runs, and why not.
    pub batching: Batching,
    /// How it is served.
    pub policy: ModelPolicy,
    /// Where its instances are.
    pub devices: Vec<String>,
    /// Wall-clock nanoseconds since the Unix epoch when it was made ready.
    pub loaded_wall_nanoseconds: u64,
    /// Memory that it was found to take, by device; empty if that was not measured.
    pub memory: Vec<(String, u64)>,
    /// Models that run for one request: 1, but for ensembles.
    pub(in crate::serving) runs: usize,
    pub(in crate::serving) runner: Runner,
    /// Where its first instance is; an ensemble is nowhere.
    pub(in crate::serving) site: Option<Arc<Site>>,
    pub(in crate::serving) output_names: Vec<Arc<str>>,
    pub(in crate::serving) check: InputCheck,
    /// Its sequences, if it is stateful.
    pub(in crate::serving) sequences: Option<Arc<Sequences>>,
    pub(in crate::serving) ledger: Arc<Ledger>,
    /// Its answers that are given again, if it has them cached.
    pub(in crate::serving) cached: Option<Cached>,
}

impl Version {
    /// The most rows that one request, and one batch, may have; 1 if requests run alone.
    pub fn max_batch_size(&self) -> usize {
        match self.batching {
            Batching::Rows => self.policy.batch.max_batch_size,
            Batching::Alone(_) => 1,
        }
    }

    /// What was learned of its batches on each device that has run one.
    pub fn service_times(&self) -> impl Iterator<Item = (String, Learned)> {
        let mut names: Vec<String> = Vec::new();
        for device in &self.devices {
            if !names.contains(device) {
                names.push(device.clone());
            }
        }
        let learned = self.runner.learned();
        let known = names.into_iter().zip(learned);
        known.filter_map(|(device, learned)| Some((device, learned?)))
    }

    /// The last batches, oldest first; of an ensemble there are none.
    pub fn recent(&self) -> Vec<Arc<Trip>> {
        self.ledger.recent()
    }

    /// What is asked of it and what it can do; none of an ensemble, whose models' that is.
    pub fn demand(&self) -> Option<Demand> {
        match &self.runner {
            Runner::Lane(lane) => Some(lane.demand(self.objective())),
            Runner::Ensemble(_) => None,
        }
    }

    /// The time within which its requests are to be answered.
    pub fn objective(&self) -> Duration {
        let queue = &self.policy.queue;
        let stated = queue.latency_objective.or(queue.default_deadline);
        stated.unwrap_or(DEFAULT_OBJECTIVE)
    }

    /// Requests waiting for an executor; those of an ensemble wait for its models'.
    pub fn queued(&self) -> usize {
        match &self.runner {
            Runner::Lane(lane) => lane.queued(),
            Runner::Ensemble(_) => 0,
        }
    }

    /// Executors that can run a batch; an ensemble has none of its own.
    pub fn executors_alive(&self) -> usize {
        match &self.runner {
            Runner::Lane(lane) => lane.executors_alive(),
            Runner::Ensemble(_) => 0,
        }
    }

    /// Why none of its executors can run a batch, if that is so.
    pub fn down(&self) -> Option<String> {
        match &self.runner {
            Runner::Lane(lane) => lane.down(),
            Runner::Ensemble(_) => None,
        }
    }

    /// What went wrong with its executors.
    pub fn casualties(&self) -> Casualties {
        match &self.runner {
            Runner::Lane(lane) => lane.breaker.casualties(),
            Runner::Ensemble(_) => Casualties::default(),
        }
    }

    /// Whether it is left alone because its workers die.
    pub(in crate::serving) fn is_taken_out(&self) -> bool {
        match &self.runner {
            Runner::Lane(lane) => lane.breaker.taken_out().is_some(),
            Runner::Ensemble(_) => false,
        }
    }

    /// Its graph, if it is an ensemble.
    pub fn ensemble(&self) -> Option<&Ensemble> {
        match &self.runner {
            Runner::Lane(_) => None,
            Runner::Ensemble(ensemble) => Some(ensemble),
        }
    }

    /// What a client sees of it.
    pub(in crate::serving) fn interface(&self) -> Interface {
        Interface {
            signature: self.signature.clone(),
            batching: self.batching.clone(),
            max_batch_size: self.max_batch_size(),
            spare: self.policy.spare().map(str::to_owned).collect(),
            together: None,
            runs: self.runs,
        }
    }

    /// Sequences that are going on; 0 if it is not stateful.
    pub fn live_sequences(&self) -> usize {
        let sequences = self.sequences.as_ref();
        sequences.map_or(0, |sequences| sequences.live())
    }

    /// Takes no more requests, and ends its sequences.
    pub(super) fn close(&self) {
        self.runner.close();
        if let Some(sequences) = &self.sequences {
            sequences.close();
        }
    }

    /// Where its time goes, operator by operator: of up to so many batches of real requests, those that
    /// come within `patience`. Fails if it has no operators, or none run, or a profile is being made.
    pub async fn profile(
        &self,
        clock: &dyn Clock,
        batches: usize,
        patience: Duration,
    ) -> Result<Profile, Status> {
        let (Runner::Lane(lane), Some(site)) = (&self.runner, &self.site) else {
            let message = format!(
                "{} is an ensemble; profile the models of its steps",
                self.id
            );
            return Err(Status::new(Code::FailedPrecondition, message));
        };
        let profile = profile(lane, Arc::clone(site), clock, batches, patience);
        profile.await.map_err(|status| status.about(&self.id))
    }

    /// What it has done so far.
    pub fn statistics(&self) -> Statistics {
        self.ledger.read()
    }
}

impl Drop for Version {
    /// The last one who knew this version lets its executors end.
    fn drop(&mut self) {
        self.close();
    }
}
