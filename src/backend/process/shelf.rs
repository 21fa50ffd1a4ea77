//! Memory that outputs are put into for the server, used again when it has read them.

use std::io;
use std::os::fd::BorrowedFd;

use bytes::Bytes;

use super::message::{Part, Ran, number};
use crate::device::{HostMemory, MappedMemory};
use crate::tensor::Tensor;

/// Outputs of a batch that are no larger together travel in the message.
const MOST_INLINE: usize = 16 << 10;
/// Where the next output in the same memory begins: aligned for every element type.
const LINE: usize = 64;
/// Memory that is kept for the next batches: so many pieces, none of them larger.
const MOST_FREE: usize = 4;
const MOST_KEPT: usize = 64 << 20;

/// Memory for the outputs of one executor.
#[derive(Default)]
pub(super) struct Shelf {
    free: Vec<MappedMemory>,
    /// What the server reads.
    out: Vec<MappedMemory>,
    /// What the server has to forget, and has not been told of.
    dropped: Vec<u64>,
}

impl Shelf {
    /// The server has read these.
    pub(super) fn take_back(&mut self, returned: &[u64]) {
        let back = |memory: &mut MappedMemory| returned.contains(&memory.mapping().id());
        self.free.extend(self.out.extract_if(.., back));
        let dropped = &mut self.dropped;
        self.free.retain(|memory| {
            let kept = memory.as_slice().len() <= MOST_KEPT;
            if !kept {
                dropped.push(memory.mapping().id());
            }
            kept
        });
        while self.free.len() > MOST_FREE {
            let oldest = self.free.remove(0);
            self.dropped.push(oldest.mapping().id());
        }
    }

    /// Puts outputs where the server finds them. With the file of the memory, if that is new.
    pub(super) fn put(&mut self, tensors: &[Tensor]) -> io::Result<(Ran, Option<BorrowedFd<'_>>)> {
        let size = |tensor: &Tensor| tensor.data.len().next_multiple_of(LINE);
        let needed: usize = tensors.iter().map(size).sum();
        let dropped = std::mem::take(&mut self.dropped);
        if needed <= MOST_INLINE {
            let outputs = tensors.iter().map(here).collect();
            return Ok((Ran { outputs, dropped }, None));
        }
        let enough = |memory: &MappedMemory| memory.as_slice().len() >= needed;
        let known = self.free.iter().position(enough);
        let mut memory = match known {
            Some(place) => self.free.swap_remove(place),
            None => MappedMemory::zeroed(needed.next_power_of_two())?,
        };
        let mut outputs = Vec::with_capacity(tensors.len());
        let mut offset = 0;
        for tensor in tensors {
            let end = offset + tensor.data.len();
            if let Some(place) = memory.as_mut_slice().get_mut(offset..end) {
                place.copy_from_slice(&tensor.data);
            }
            outputs.push(Part {
                mapping: memory.mapping().id(),
                offset: offset as u64,
                here: Bytes::new(),
                ..here(tensor)
            });
            offset += size(tensor);
        }
        self.out.push(memory);
        let new = self.out.last().filter(|_| known.is_none());
        let file = new.map(|memory| memory.mapping().file());
        Ok((Ran { outputs, dropped }, file))
    }
}

fn here(tensor: &Tensor) -> Part {
    Part {
        dtype: number(tensor.dtype),
        shape: tensor.shape.to_vec(),
        mapping: 0,
        offset: 0,
        length: tensor.data.len() as u64,
        here: tensor.data.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outputs::Outputs;
    use super::*;
    use crate::tensor::{Dtype, Shape};

    fn tensor(bytes: usize, value: u8) -> Tensor {
        Tensor {
            dtype: Dtype::Uint8,
            shape: Shape::new(&[bytes as i64]),
            data: vec![value; bytes].into(),
        }
    }

    /// Through the shelf and out of it again.
    fn pass(shelf: &mut Shelf, outputs: &mut Outputs, tensors: &[Tensor]) -> (Vec<Tensor>, bool) {
        shelf.take_back(&outputs.returned());
        let (ran, file) = shelf.put(tensors).unwrap();
        let file = file.map(|file| file.try_clone_to_owned().unwrap());
        let new = file.is_some();
        let taken = outputs.take(ran, file.into_iter().collect()).unwrap();
        (taken, new)
    }

    #[test]
    fn memory_is_used_again_once_it_was_read() {
        let (mut shelf, mut outputs) = (Shelf::default(), Outputs::default());
        let tensors = [tensor(20_001, 1), tensor(0, 0), tensor(7, 2)];
        let (first, new) = pass(&mut shelf, &mut outputs, &tensors);
        assert!(new);
        assert_eq!(first, tensors);
        let others = [tensor(20_001, 3), tensor(0, 0), tensor(7, 4)];
        let (second, new) = pass(&mut shelf, &mut outputs, &others);
        assert!(new, "the first is still read");
        assert_eq!((&first[..], &second[..]), (&tensors[..], &others[..]));
        drop(first);
        let (third, new) = pass(&mut shelf, &mut outputs, &tensors);
        assert!(!new);
        assert_eq!((&third[..], &second[..]), (&tensors[..], &others[..]));
    }

    #[test]
    fn small_outputs_need_no_memory() {
        let (mut shelf, mut outputs) = (Shelf::default(), Outputs::default());
        let tensors = [tensor(7, 1), tensor(0, 0)];
        let (taken, new) = pass(&mut shelf, &mut outputs, &tensors);
        assert_eq!(taken, tensors);
        assert!(!new && shelf.out.is_empty());
    }

    #[test]
    fn little_is_kept() {
        let (mut shelf, mut outputs) = (Shelf::default(), Outputs::default());
        let tensors = [tensor(20_001, 1)];
        let all: Vec<_> = (0..9)
            .map(|_| pass(&mut shelf, &mut outputs, &tensors).0)
            .collect();
        assert_eq!(shelf.out.len(), 9);
        drop(all);
        drop(pass(&mut shelf, &mut outputs, &tensors));
        assert_eq!((shelf.out.len(), shelf.free.len()), (1, MOST_FREE - 1));
        assert!(shelf.dropped.is_empty());
    }
}
