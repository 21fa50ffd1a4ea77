use super::*;
use crate::clock::MonotonicClock;
use crate::model::{Dimension, PaddingPolicy};
use crate::serving::padding::Padding;

/// Notes the shapes that it runs with.
struct Notes {
    signature: Signature,
    shapes: Vec<Vec<i64>>,
}

impl Executor for Notes {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
        self.shapes.push(inputs[0].shape.to_vec());
        Ok(Vec::new())
    }
}

fn signature() -> Signature {
    let dimension = |symbol: &str| Dimension {
        size: None,
        symbol: symbol.to_owned(),
    };
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Int64,
        dimensions: vec![dimension("batch"), dimension("length")],
    };
    Signature {
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
    }
}

fn with<T>(stacking: &Stacking, look: impl FnOnce(&Trial<'_>) -> T) -> T {
    look(&Trial {
        policy: &WarmUpPolicy::default(),
        tensors: &TensorsPolicy::default(),
        stacking,
        left_out: &[],
        guess: GUESS,
        clock: &MonotonicClock::start(),
    })
}

/// The shapes that a model is warmed up with.
fn warmed(stacking: &Stacking, max_batch_size: usize) -> Vec<Vec<i64>> {
    let mut notes = Notes {
        signature: signature(),
        shapes: Vec::new(),
    };
    let count = std::cell::Cell::new(0);
    let warmed = || count.set(count.get() + 1);
    with(stacking, |trial| {
        trial.warm_up(&mut notes, max_batch_size, &warmed).unwrap();
    });
    assert_eq!(count.get(), buckets(stacking, max_batch_size).len());
    notes.shapes
}

fn buckets(stacking: &Stacking, max_batch_size: usize) -> Vec<(usize, usize)> {
    with(stacking, |trial| {
        trial.buckets(&signature(), max_batch_size).unwrap()
    })
}

fn stacking(sizes: &[usize], lengths: &[usize]) -> Stacking {
    let policy = PaddingPolicy {
        dimension: Some("length".to_owned()),
        lengths: lengths.to_vec(),
        ..PaddingPolicy::default()
    };
    let padding = Padding::resolve(&policy, &signature()).unwrap();
    Stacking {
        batched: true,
        sizes: sizes.to_vec(),
        padding: (!lengths.is_empty()).then_some(padding),
        ragged: None,
    }
}

#[test]
fn every_kind_of_batch_that_is_configured_is_warmed_up() {
    let shapes = warmed(&stacking(&[1, 2, 4], &[8, 16]), 4);
    let mut expected = Vec::new();
    for length in [8, 16] {
        for rows in [1, 2, 4] {
            // Once to do what is done once, and once to see what it takes.
            expected.extend([vec![rows, length], vec![rows, length]]);
        }
    }
    assert_eq!(shapes, expected);
    // However large they are.
    let large = buckets(&stacking(&[1, 1024], &[16_384]), 1024);
    assert_eq!(large, [(16_384, 1), (16_384, 1024)]);
}

#[test]
fn without_any_the_smallest_and_the_largest_are() {
    let shapes = warmed(&stacking(&[], &[]), 32);
    assert_eq!(shapes, [[1, 8], [1, 8], [32, 8], [32, 8]]);
    // Not if that were too much to make up: eight bytes an element.
    let large = buckets(&stacking(&[], &[16_384]), 1024);
    assert_eq!(large, [(16_384, 1), (16_384, 512)]);
}
