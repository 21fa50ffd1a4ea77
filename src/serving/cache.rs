//! Answers that are given again: what a version gave for the same inputs before.
//!
//! A question is known by a keyed BLAKE3 hash of 256 bits, under a random key of this process. Nobody
//! knows two questions of one hash, whether he knows the key or not, so that no client can have
//! another's answer changed; and nobody who does not know the key can tell which answers are there.
//! The parts that are hashed say how long they are, so that no two questions read the same.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blake3::Hasher;
use bytes::Bytes;

use super::inputs::Checked;
use super::request::OutputTensor;
use crate::model::Signature;
use crate::tensor::Tensor;

/// What an entry, and each output of it, takes beside the outputs' bytes.
const ENTRY_BYTES: usize = 256;
const OUTPUT_BYTES: usize = 192;

/// What the cache holds, and how much it has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// Answers that are there.
    pub entries: usize,
    /// Bytes that they take.
    pub bytes: usize,
    /// Answers that had to go for others.
    pub evictions: u64,
}

/// The answers of every version that has them cached, over which one bound holds; the least recently
/// used go first.
///
/// There is one lock, held for a look into two maps: hashing and copying are done outside it.
#[derive(Debug)]
pub struct ResponseCache {
    key: [u8; blake3::KEY_LEN],
    max_bytes: usize,
    generations: AtomicU64,
    entries: Mutex<Entries>,
}

/// The hash of a version's generation, its inputs and the outputs wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question([u8; blake3::OUT_LEN]);

impl ResponseCache {
    /// An empty cache that takes so many bytes; none if that is none.
    pub fn new(max_bytes: usize) -> Option<Arc<Self>> {
        let random: Vec<u8> = (0_u64..4)
            .flat_map(|part| RandomState::new().hash_one(part).to_le_bytes())
            .collect();
        let cache = || Self {
            key: blake3::derive_key("jitney response cache", &random),
            max_bytes,
            generations: AtomicU64::new(0),
            entries: Mutex::default(),
        };
        (max_bytes > 0).then(|| Arc::new(cache()))
    }

    /// What it holds.
    pub fn usage(&self) -> CacheUsage {
        let entries = self.entries();
        CacheUsage {
            entries: entries.by_question.len(),
            bytes: entries.bytes,
            evictions: entries.evictions,
        }
    }

    /// The most that it holds.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A loaded version's answers in the cache. Another that is loaded from the same files has its own.
#[derive(Debug)]
pub(super) struct Cached {
    cache: Arc<ResponseCache>,
    generation: u64,
}

impl Cached {
    pub(super) fn new(cache: &Arc<ResponseCache>) -> Self {
        Self {
            cache: Arc::clone(cache),
            generation: cache.generations.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// What a request that was found to fit asks.
    pub(super) fn question(&self, signature: &Signature, checked: &Checked) -> Question {
        let mut hasher = Hasher::new_keyed(&self.cache.key);
        number(&mut hasher, self.generation);
        number(&mut hasher, checked.inputs.len() as u64);
        for (spec, tensor) in signature.inputs.iter().zip(&checked.inputs) {
            part(&mut hasher, spec.name.as_bytes());
            tensor_parts(&mut hasher, tensor);
        }
        for position in &checked.outputs {
            number(&mut hasher, *position as u64);
        }
        Question(*hasher.finalize().as_bytes())
    }

    /// The outputs that were kept for it.
    pub(super) fn find(&self, question: &Question) -> Option<Vec<OutputTensor>> {
        let found = self.cache.entries().find(question);
        found.map(|outputs| outputs.to_vec())
    }

    /// Keeps a copy of the outputs, which share the memory of their whole batch.
    pub(super) fn keep(&self, question: Question, outputs: &[OutputTensor]) {
        let bytes = size(outputs);
        if bytes > self.cache.max_bytes {
            return;
        }
        let outputs = outputs.iter().map(copied).collect();
        let entry = Entry {
            generation: self.generation,
            outputs,
            bytes,
            used: 0,
        };
        let gone = self
            .cache
            .entries()
            .keep(question, entry, self.cache.max_bytes);
        // Freed without the lock.
        drop(gone);
    }
}

impl Drop for Cached {
    /// Nobody asks for the answers of a version that is gone.
    fn drop(&mut self) {
        let gone = self.cache.entries().forget(self.generation);
        drop(gone);
    }
}

fn number(hasher: &mut Hasher, number: u64) {
    hasher.update(&number.to_le_bytes());
}

fn part(hasher: &mut Hasher, bytes: &[u8]) {
    number(hasher, bytes.len() as u64);
    hasher.update(bytes);
}

fn tensor_parts(hasher: &mut Hasher, tensor: &Tensor) {
    part(hasher, tensor.dtype.name().as_bytes());
    number(hasher, tensor.shape.len() as u64);
    for size in tensor.shape.iter() {
        hasher.update(&size.to_le_bytes());
    }
    part(hasher, &tensor.data);
}

fn size(outputs: &[OutputTensor]) -> usize {
    let sizes = outputs
        .iter()
        .map(|output| OUTPUT_BYTES + output.tensor.data.len());
    ENTRY_BYTES + sizes.sum::<usize>()
}

fn copied(output: &OutputTensor) -> OutputTensor {
    let mut copy = output.clone();
    copy.tensor.data = Bytes::copy_from_slice(&output.tensor.data);
    copy
}

#[derive(Debug)]
struct Entry {
    generation: u64,
    outputs: Arc<[OutputTensor]>,
    bytes: usize,
    /// When it was used last, counted in uses of the cache.
    used: u64,
}

#[derive(Debug, Default)]
struct Entries {
    by_question: HashMap<Question, Entry>,
    by_use: BTreeMap<u64, Question>,
    uses: u64,
    bytes: usize,
    evictions: u64,
}

impl Entries {
    fn find(&mut self, question: &Question) -> Option<Arc<[OutputTensor]>> {
        let entry = self.by_question.get_mut(question)?;
        self.by_use.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(self.uses, *question);
        Some(Arc::clone(&entry.outputs))
    }

    /// Takes an entry in, and gives those that have to go for it.
    fn keep(&mut self, question: Question, mut entry: Entry, max_bytes: usize) -> Vec<Entry> {
        // Two that asked the same at once have both run: the later answer stays.
        let mut gone = Vec::from_iter(self.remove(&question));
        while self.bytes + entry.bytes > max_bytes {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.evictions += 1;
            gone.extend(self.remove(&oldest));
        }
        self.uses += 1;
        entry.used = self.uses;
        self.bytes += entry.bytes;
        self.by_use.insert(entry.used, question);
        self.by_question.insert(question, entry);
        gone
    }

    fn remove(&mut self, question: &Question) -> Option<Entry> {
        let entry = self.by_question.remove(question)?;
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn forget(&mut self, generation: u64) -> Vec<Entry> {
        let entries = self.by_question.iter();
        let theirs = entries.filter(|(_, entry)| entry.generation == generation);
        let questions: Vec<Question> = theirs.map(|(question, _)| *question).collect();
        let gone = questions.iter().filter_map(|one| self.remove(one));
        gone.collect()
    }
}

#[cfg(test)]
mod tests;
