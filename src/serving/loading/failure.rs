//! Why a version does not serve.

use crate::backend::LoadError;
use crate::device::Unavailable;
use crate::serving::budget::OverBudget;
use crate::serving::limiter::TooMany;

/// Why a version does not serve.
#[derive(Debug, thiserror::Error)]
pub(in crate::serving) enum LoadFailure {
    #[error(transparent)]
    Device(#[from] Unavailable),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Memory(#[from] OverBudget),
    #[error(transparent)]
    Resource(#[from] TooMany),
    #[error("the configuration says that the first dimension counts rows (batch_axis), but {0}")]
    Axis(String),
    #[error(
        "rows of different lengths are to be padded ([padding], or allow_ragged_batch where inputs have \
         a batch dimension), but {0}"
    )]
    Padding(String),
    #[error("the configuration says that it is stateful ([sequence]), but {0}")]
    Sequence(String),
    #[error("the configuration names label files ([labels]), but {0}")]
    Labels(String),
    #[error("warm-up with what the configuration says failed: {0}")]
    WarmUp(String),
    #[error("{0}")]
    Tensors(String),
    #[error("requests are to be laid end to end ([ragged], allow_ragged_batch), but {0}")]
    Ragged(String),
    #[error("the configuration says that requests may leave inputs out (optional), but {0}")]
    Optional(String),
    #[error("no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
}
