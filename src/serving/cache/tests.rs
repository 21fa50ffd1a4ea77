use proptest::prelude::*;
use smallvec::SmallVec;

use super::*;
use crate::model::{Dimension, TensorSpec};
use crate::scheduler::ShapeClass;
use crate::tensor::{Dtype, Shape};

fn signature(names: &[&str]) -> Signature {
    let spec = |name: &&str| TensorSpec {
        name: (*name).to_owned(),
        dtype: Dtype::Uint8,
        dimensions: vec![Dimension::varying("")],
    };
    Signature {
        inputs: names.iter().map(spec).collect(),
        outputs: Vec::new(),
    }
}

fn tensor(data: &[u8]) -> Tensor {
    Tensor {
        dtype: Dtype::Uint8,
        shape: Shape::new(&[data.len() as i64]),
        data: Bytes::copy_from_slice(data),
    }
}

fn checked(inputs: Vec<Tensor>, outputs: &[usize]) -> Checked {
    Checked {
        inputs,
        rows: 1,
        length: 1,
        class: ShapeClass(0),
        outputs: SmallVec::from_slice(outputs),
        made: Vec::new(),
    }
}

fn ask(cached: &Cached, data: &[u8]) -> Question {
    let checked = checked(vec![tensor(data)], &[0]);
    cached.question(&signature(&["x"]), &checked)
}

fn outputs(bytes: usize) -> Vec<OutputTensor> {
    vec![OutputTensor {
        name: "y".into(),
        tensor: tensor(&vec![7; bytes]),
        region: None,
    }]
}

/// A cache with room for so many entries of 1000 bytes.
fn room_for(entries: usize) -> (Arc<ResponseCache>, Cached) {
    let cache = ResponseCache::new(entries * 1_000).unwrap();
    let cached = Cached::new(&cache);
    (cache, cached)
}

const OWN: usize = 1_000 - ENTRY_BYTES - OUTPUT_BYTES;

#[test]
fn none_where_there_is_no_room() {
    assert!(ResponseCache::new(0).is_none());
}

#[test]
fn the_least_recently_used_goes_first_and_the_bound_holds() {
    let (cache, cached) = room_for(3);
    let questions: Vec<Question> = (0..4).map(|one| ask(&cached, &[one])).collect();
    for question in &questions[..3] {
        cached.keep(*question, &outputs(OWN));
    }
    assert!(cached.find(&questions[0]).is_some());
    cached.keep(questions[3], &outputs(OWN));
    let there: Vec<bool> = questions
        .iter()
        .map(|question| cached.find(question).is_some())
        .collect();
    assert_eq!(there, [true, false, true, true]);
    let usage = CacheUsage {
        entries: 3,
        bytes: 3_000,
        evictions: 1,
    };
    assert_eq!(cache.usage(), usage);
    // One that is larger makes room for itself; one that is too large drives nobody out.
    cached.keep(ask(&cached, b"two"), &outputs(OWN + 1_000));
    cached.keep(ask(&cached, b"four"), &outputs(OWN + 2_001));
    assert_eq!((cache.usage().entries, cache.usage().bytes), (2, 3_000));
}

#[test]
fn an_answer_kept_twice_is_there_once() {
    let (cache, cached) = room_for(3);
    for _ in 0..2 {
        cached.keep(ask(&cached, b"same"), &outputs(OWN));
    }
    assert_eq!((cache.usage().entries, cache.usage().bytes), (1, 1_000));
}

#[test]
fn what_is_kept_does_not_hold_its_batch() {
    let (_cache, cached) = room_for(3);
    let batch = Bytes::from(vec![7; 1 << 20]);
    let mut slice = outputs(1);
    slice[0].tensor.data = batch.slice(0..1);
    cached.keep(ask(&cached, b"row"), &slice);
    drop(slice);
    assert!(batch.is_unique());
    let kept = cached.find(&ask(&cached, b"row")).unwrap();
    assert_eq!(kept[0].tensor, tensor(&[7]));
}

#[test]
fn a_version_has_its_own_answers_and_takes_them_along() {
    let (cache, first) = room_for(3);
    let second = Cached::new(&cache);
    first.keep(ask(&first, b"same"), &outputs(OWN));
    assert!(second.find(&ask(&second, b"same")).is_none());
    second.keep(ask(&second, b"same"), &outputs(OWN));
    drop(first);
    assert_eq!((cache.usage().entries, cache.usage().bytes), (1, 1_000));
    assert!(second.find(&ask(&second, b"same")).is_some());
}

#[test]
fn a_process_has_a_key_of_its_own() {
    let (_one, first) = room_for(1);
    let (_other, second) = room_for(1);
    assert_eq!((first.generation, second.generation), (0, 0));
    assert_ne!(ask(&first, b"same"), ask(&second, b"same"));
}

/// What a client can choose.
type Asked = (Vec<(Vec<u8>, Vec<i64>, bool)>, Vec<usize>);

fn question(cached: &Cached, (inputs, wanted): &Asked) -> Question {
    let tensors = inputs.iter().map(|(data, shape, signed)| Tensor {
        dtype: if *signed { Dtype::Int8 } else { Dtype::Uint8 },
        shape: Shape::new(shape),
        data: Bytes::copy_from_slice(data),
    });
    let names = ["x", "y", "z"];
    let checked = checked(tensors.collect(), wanted);
    cached.question(&signature(&names[..inputs.len()]), &checked)
}

fn asked() -> impl Strategy<Value = Asked> {
    // Few values, so that parts often agree and only their limits differ.
    let bytes = prop::collection::vec(0..2_u8, 0..4);
    let shape = prop::collection::vec(0..2_i64, 0..3);
    let inputs = prop::collection::vec((bytes, shape, any::<bool>()), 0..3);
    (inputs, prop::collection::vec(0..2_usize, 0..3))
}

#[test]
fn no_part_of_a_question_reads_as_another() {
    let (_cache, cached) = room_for(1);
    let input = |data: &[u8]| (data.to_vec(), vec![1], false);
    let ask = |inputs: &[&[u8]], wanted: &[usize]| {
        let inputs = inputs.iter().map(|data| input(data)).collect();
        question(&cached, &(inputs, wanted.to_vec()))
    };
    // What comes between the bytes of x and those of y, were it not for the lengths.
    let between = [&b"yUINT8"[..], &1_u64.to_le_bytes(), &1_i64.to_le_bytes()].concat();
    let joined = [b"a", &between[..], b"b"].concat();
    let moved = [b"b", &between[..], b"c"].concat();
    assert_ne!(ask(&[&joined, b"c"], &[]), ask(&[b"a", &moved], &[]));
    // An output that is wanted, as bytes of an input.
    let wanted = [&b"a"[..], &0_u64.to_le_bytes()].concat();
    assert_ne!(ask(&[&wanted], &[]), ask(&[b"a"], &[0]));
}

proptest! {
    #[test]
    fn two_questions_share_an_answer_only_if_they_are_the_same(one in asked(), other in asked()) {
        let (_cache, cached) = room_for(1);
        let same = question(&cached, &one) == question(&cached, &other);
        prop_assert_eq!(same, one == other);
    }
}
