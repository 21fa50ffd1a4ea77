//! How requests that belong together are served by a model that keeps something between them.

use std::path::PathBuf;
use std::time::Duration;

/// How a stateful model's sequences are served.
#[derive(Clone, Debug, PartialEq)]
pub struct SequencePolicy {
    /// Who may be served beside whom.
    pub strategy: SequenceStrategy,
    /// A sequence without a request for this long is ended.
    pub max_idle: Duration,
    /// The most sequences at once; none for what the strategy says, else [`Self::MOST`].
    pub max_sequences: Option<usize>,
    /// The most bytes of state that one sequence may keep between its requests.
    pub max_state_bytes: usize,
    /// Inputs that tell the model where in a sequence a request stands.
    pub controls: Vec<SequenceControl>,
    /// What is kept from one request of a sequence to the next.
    pub states: Vec<SequenceState>,
}

impl SequencePolicy {
    /// The most sequences at once where nothing else is said.
    pub const MOST: usize = 1024;

    /// The most sequences at once, with so many instances.
    pub fn places(&self, instances: usize) -> usize {
        let candidates = match self.strategy {
            SequenceStrategy::Oldest {
                max_candidate_sequences: Some(candidates),
            } => Some(candidates.saturating_mul(instances)),
            _ => None,
        };
        self.max_sequences.or(candidates).unwrap_or(Self::MOST)
    }
}

impl Default for SequencePolicy {
    fn default() -> Self {
        Self {
            strategy: SequenceStrategy::Direct,
            max_idle: Duration::from_secs(1),
            max_sequences: None,
            max_state_bytes: 16 << 20,
            controls: Vec::new(),
            states: Vec::new(),
        }
    }
}

/// Who may be served beside whom, in Triton's words. The server keeps all state, so that to a client
/// both are alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SequenceStrategy {
    /// Every sequence.
    #[default]
    Direct,
    /// Those that began first.
    Oldest {
        /// How many for each instance.
        max_candidate_sequences: Option<usize>,
    },
}

/// An input that tells the model where in a sequence a request stands. Clients do not see it.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceControl {
    /// The input's name.
    pub input: String,
    /// What it tells.
    pub kind: ControlKind,
}

/// What a control input tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ControlKind {
    /// Whether the request is the first of its sequence.
    Start(Choice),
    /// Whether there is a request.
    Ready(Choice),
    /// Whether the request is the last of its sequence.
    End(Choice),
    /// The sequence's correlation id.
    CorrelationId,
}

/// The numbers that stand for no and yes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// No.
    pub no: f64,
    /// Yes.
    pub yes: f64,
}

impl Default for Choice {
    fn default() -> Self {
        Self { no: 0.0, yes: 1.0 }
    }
}

/// What is kept from one request of a sequence to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceState {
    /// The input that it goes into; clients do not see it.
    pub input: String,
    /// The output that it comes out of.
    pub output: String,
    /// Whether clients see the output.
    pub visible: bool,
    /// Its dimensions at the start, without the batch dimension, where the model lets them vary.
    pub shape: Option<Vec<i64>>,
    /// The file, from the model's folder, with what it is at the start; none for zeros.
    pub initial_file: Option<PathBuf>,
}
