use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use super::*;
use crate::clock::Sleep;
use crate::model::{Dimension, SequenceState, Signature, TensorSpec};
use crate::serving::request::CorrelationId;
use crate::status::Code;
use crate::tensor::Dtype;

/// A clock that stands where it is put; whoever sleeps looks at it when it is polled.
#[derive(Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, moment: Moment) -> Sleep {
        let now = Arc::clone(&self.0);
        Box::pin(std::future::poll_fn(move |_| {
            match now.load(Ordering::Relaxed) >= moment.as_nanos() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }))
    }
}

fn milliseconds(count: u64) -> Moment {
    Moment::from_nanos(count * 1_000_000)
}

/// Room for one sequence, and its clock.
fn one_place() -> (Arc<Sequences>, Arc<AtomicU64>) {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Fp32,
        dimensions: vec![Dimension::varying("batch"), Dimension::fixed(1)],
    };
    let signature = Signature {
        inputs: vec![spec("x"), spec("h")],
        outputs: vec![spec("y"), spec("hn")],
    };
    let policy = SequencePolicy {
        max_sequences: Some(1),
        max_idle: Duration::from_mins(1),
        states: vec![SequenceState {
            input: "h".to_owned(),
            output: "hn".to_owned(),
            ..SequenceState::default()
        }],
        ..SequencePolicy::default()
    };
    let stateful = Stateful::resolve(&policy, &signature, true, Path::new("nowhere")).unwrap();
    let clock = Hand::default();
    let now = Arc::clone(&clock.0);
    let id = VersionId {
        model: "m".into(),
        version: 1,
    };
    let sequences = Sequences::new(id, Arc::new(stateful), &policy, 1, 8, Arc::new(clock));
    (Arc::new(sequences), now)
}

fn polled<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What a request is told by `then` that waits for a place, with this deadline and this limit.
fn waiting(
    deadline: Option<Moment>,
    limit: Option<(Moment, TimeoutAction)>,
    then: Moment,
) -> Option<Status> {
    let (sequences, now) = one_place();
    let begins = |id| InSequence {
        id: CorrelationId::Number(id),
        start: true,
        end: false,
    };
    let first = pin!(sequences.leg(Some(begins(1)), Moment::ORIGIN, None, None));
    let Poll::Ready(Ok(_leg)) = polled(first) else {
        panic!("there is a place");
    };
    let mut second = pin!(sequences.leg(Some(begins(2)), Moment::ORIGIN, deadline, limit));
    assert!(polled(second.as_mut()).is_pending());
    now.store(then.as_nanos(), Ordering::Relaxed);
    match polled(second) {
        Poll::Pending => None,
        Poll::Ready(leg) => Some(leg.unwrap_err()),
    }
}

#[test]
fn whoever_waits_for_a_sequence_waits_in_the_queue() {
    let (soon, later) = (milliseconds(200), milliseconds(900));
    let reject = Some((soon, TimeoutAction::Reject));
    assert_eq!(waiting(None, reject, milliseconds(199)), None);
    let told = waiting(Some(later), reject, soon).unwrap();
    assert_eq!(told.code, Code::DeadlineExceeded);
    assert_eq!(
        told.message,
        "m version 1: sequence 2: the queue's timeout passed after 200.0 ms in the queue"
    );
    let told = waiting(Some(soon), Some((later, TimeoutAction::Reject)), soon).unwrap();
    assert!(told.message.contains("the deadline passed"), "{told:?}");
    // One that may wait on does.
    let delay = Some((soon, TimeoutAction::Delay));
    assert_eq!(waiting(None, delay, later), None);
}
