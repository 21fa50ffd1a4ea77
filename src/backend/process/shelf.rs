//! Memory that outputs are put into for the server, used again when it has read them.

use std::io;
use std::os::fd::OwnedFd;

use super::message::{Part, Ran, number};
use crate::backend::Outline;
use crate::device::{HostMemory, MappedMemory};
use crate::tensor::{Dtype, Tensor};

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
    /// The memory that the last answer was about, if any, and what that told the server to forget.
    last: Option<u64>,
    told: Vec<u64>,
}

impl Shelf {
    /// The server has read these, and has the last answer.
    pub(super) fn take_back(&mut self, returned: &[u64]) {
        self.last = None;
        self.told.clear();
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

    /// The last answer did not arrive: nobody will read its memory, and the server may not have it.
    pub(super) fn take_back_last(&mut self) {
        self.dropped.append(&mut self.told);
        if let Some(last) = self.last.take() {
            self.out.retain(|memory| memory.mapping().id() != last);
            self.dropped.push(last);
        }
    }

    /// What the next answer tells the server to forget.
    fn dropped(&mut self) -> Vec<u64> {
        self.told = std::mem::take(&mut self.dropped);
        self.told.clone()
    }

    /// Room for outputs of these sizes; none if the message is to carry them.
    pub(super) fn room(&mut self, sizes: Vec<usize>) -> io::Result<Option<Room>> {
        let lines = sizes.iter().try_fold(0_usize, |sum, size| {
            sum.checked_add(size.checked_next_multiple_of(LINE)?)
        });
        let needed = lines.and_then(usize::checked_next_power_of_two);
        let needed = needed.ok_or(io::ErrorKind::OutOfMemory)?;
        if lines.is_some_and(|lines| lines <= MOST_INLINE) {
            return Ok(None);
        }
        let enough = |memory: &MappedMemory| Some(memory.as_slice().len()) >= lines;
        let known = self.free.iter().position(enough);
        let memory = match known {
            Some(place) => self.free.swap_remove(place),
            None => MappedMemory::zeroed(needed)?,
        };
        Ok(Some(Room {
            memory,
            is_new: known.is_none(),
            sizes,
        }))
    }

    /// Takes back room that was not needed.
    pub(super) fn refuse(&mut self, room: Room) {
        // Of new memory the server does not know.
        if !room.is_new {
            self.free.push(room.memory);
        }
    }

    /// What the server is told of outputs that are in the room, which are these. With the file of the
    /// memory, if that is new: it is the server's alone from then on, for outputs that nobody fetches may be
    /// more than a process may have files.
    pub(super) fn hand_out(
        &mut self,
        mut room: Room,
        outlines: &[Outline],
    ) -> (Ran, Option<OwnedFd>) {
        let mut offset = 0;
        let mapping = room.memory.mapping().id();
        let outputs = outlines.iter().zip(&room.sizes).map(|(outline, size)| {
            let part = Part {
                mapping,
                offset: offset as u64,
                length: *size as u64,
                ..part(outline.dtype, &outline.shape)
            };
            offset += size.next_multiple_of(LINE);
            part
        });
        let ran = Ran {
            outputs: outputs.collect(),
            dropped: self.dropped(),
        };
        let file = room.memory.take_file();
        self.last = Some(mapping);
        self.out.push(room.memory);
        (ran, file)
    }

    /// Puts outputs that lie elsewhere where the server finds them: a copy.
    pub(super) fn put(&mut self, tensors: &[Tensor]) -> io::Result<(Ran, Option<OwnedFd>)> {
        let sizes = tensors.iter().map(|tensor| tensor.data.len());
        let Some(mut room) = self.room(sizes.collect())? else {
            let ran = Ran {
                outputs: tensors.iter().map(here).collect(),
                dropped: self.dropped(),
            };
            return Ok((ran, None));
        };
        for (place, tensor) in room.places().into_iter().zip(tensors) {
            place.copy_from_slice(&tensor.data);
        }
        let outlines = tensors.iter().map(|tensor| Outline {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        });
        Ok(self.hand_out(room, &outlines.collect::<Vec<_>>()))
    }
}

/// Memory for the outputs of a batch, on its way to the server.
pub(super) struct Room {
    memory: MappedMemory,
    /// Whether the server has still to be given it.
    is_new: bool,
    /// Of the outputs, each of which begins a line.
    sizes: Vec<usize>,
}

impl Room {
    /// A place for each output.
    pub(super) fn places(&mut self) -> Vec<&mut [u8]> {
        let mut rest = self.memory.as_mut_slice();
        let mut places = Vec::with_capacity(self.sizes.len());
        for size in &self.sizes {
            let lines = size.next_multiple_of(LINE);
            let Some((place, after)) = rest.split_at_mut_checked(lines) else {
                break;
            };
            places.extend(place.get_mut(..*size));
            rest = after;
        }
        places
    }
}

fn here(tensor: &Tensor) -> Part {
    Part {
        length: tensor.data.len() as u64,
        here: tensor.data.clone(),
        ..part(tensor.dtype, &tensor.shape)
    }
}

fn part(dtype: Dtype, shape: &[i64]) -> Part {
    Part {
        dtype: number(dtype),
        shape: shape.to_vec(),
        ..Part::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::outputs::Outputs;
    use super::*;
    use crate::tensor::Shape;

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
    fn what_is_out_holds_no_file() {
        let mut shelf = Shelf::default();
        let (_, file) = shelf.put(&[tensor(20_001, 1)]).unwrap();
        assert!(file.is_some() && shelf.out[0].mapping().file().is_none());
    }

    #[test]
    fn memory_of_an_answer_that_did_not_arrive_is_not_used_again() {
        let (mut shelf, mut outputs) = (Shelf::default(), Outputs::default());
        let tensors = [tensor(20_001, 1)];
        let (read, _) = pass(&mut shelf, &mut outputs, &tensors);
        let (lost, file) = shelf.put(&tensors).unwrap();
        drop((lost, file));
        shelf.take_back_last();
        assert_eq!(shelf.out.len(), 1);
        // The server is given new memory, and that of the answer that it has is its own still.
        let (again, new) = pass(&mut shelf, &mut outputs, &[tensor(20_001, 2)]);
        assert!(new && shelf.dropped.is_empty());
        assert_eq!(
            (&read[..], &again[..]),
            (&tensors[..], &[tensor(20_001, 2)][..])
        );
        // The same of memory that the server knows.
        drop(read);
        shelf.take_back(&outputs.returned());
        let (lost, file) = shelf.put(&tensors).unwrap();
        assert!(file.is_none());
        drop(lost);
        shelf.take_back_last();
        assert!(pass(&mut shelf, &mut outputs, &tensors).1);
        // An answer without memory has none to be taken back, and what it said is said again.
        shelf.take_back(&outputs.returned());
        shelf.dropped.push(7);
        assert_eq!(shelf.put(&[tensor(7, 1)]).unwrap().0.dropped, [7]);
        shelf.take_back_last();
        assert_eq!((shelf.out.len(), &shelf.dropped[..]), (1, &[7][..]));
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

    #[test]
    fn what_is_put_into_a_room_is_not_copied() {
        let (mut shelf, mut outputs) = (Shelf::default(), Outputs::default());
        let outlines = [20_001, 0, 7].map(|bytes| Outline {
            dtype: Dtype::Uint8,
            shape: Shape::new(&[bytes]),
        });
        let sizes = || vec![20_001, 0, 7];
        // One that nobody was told of leaves nothing behind.
        let unused = shelf.room(sizes()).unwrap().unwrap();
        shelf.refuse(unused);
        for value in 1..=2 {
            shelf.take_back(&outputs.returned());
            let mut room = shelf.room(sizes()).unwrap().unwrap();
            for (place, size) in room.places().into_iter().zip(sizes()) {
                assert_eq!(place.len(), size);
                assert_eq!(place.as_ptr().align_offset(LINE), 0);
                place.fill(value);
            }
            let (ran, file) = shelf.hand_out(room, &outlines);
            assert_eq!(file.is_some(), value == 1);
            let taken = outputs.take(ran, file.into_iter().collect()).unwrap();
            assert_eq!(taken, [20_001, 0, 7].map(|bytes| tensor(bytes, value)));
        }
        // The server knows this one, and it is used again.
        shelf.take_back(&outputs.returned());
        let known = shelf.room(sizes()).unwrap().unwrap();
        shelf.refuse(known);
        assert_eq!(shelf.free.len(), 1);
    }

    #[test]
    fn room_that_nobody_has_is_refused() {
        let mut shelf = Shelf::default();
        assert!(shelf.room(vec![usize::MAX]).is_err());
        assert!(shelf.room(vec![1 << 62, 1 << 62]).is_err());
        assert!(shelf.room(vec![7, MOST_INLINE - LINE]).unwrap().is_none());
    }
}
