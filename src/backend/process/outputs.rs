//! Memory that a worker puts outputs into, as its server reads it.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::message::{Part, Ran, dtype};
use crate::device::MappedBytes;
use crate::tensor::{Shape, Tensor};

/// What a worker has put outputs into for one executor.
#[derive(Default)]
pub(super) struct Outputs {
    /// By the worker's numbers.
    mapped: HashMap<u64, Arc<MappedBytes>>,
    returned: Arc<Mutex<Vec<u64>>>,
}

/// Memory with a batch's outputs, which the worker may write again when the last of them is dropped.
struct Lease {
    number: u64,
    memory: Arc<MappedBytes>,
    returned: Arc<Mutex<Vec<u64>>>,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_ref().as_ref()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.push(self.number);
    }
}

impl Outputs {
    /// Numbers of memory that has been read.
    pub(super) fn returned(&self) -> Vec<u64> {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *returned)
    }

    /// What a batch gave, without a copy of what lies in memory.
    pub(super) fn take(&mut self, ran: Ran, files: Vec<OwnedFd>) -> io::Result<Vec<Tensor>> {
        let number = ran.outputs.iter().map(|part| part.mapping).max();
        let number = number.unwrap_or(0);
        if let Some(file) = files.into_iter().next() {
            let memory = Arc::new(MappedBytes::open(file)?);
            self.mapped.insert(number, memory);
        }
        for number in &ran.dropped {
            self.mapped.remove(number);
        }
        let memory = self.mapped.get(&number).map(|memory| {
            Bytes::from_owner(Lease {
                number,
                memory: Arc::clone(memory),
                returned: Arc::clone(&self.returned),
            })
        });
        let outputs = ran.outputs.into_iter();
        let outputs = outputs.map(|part| tensor(part, memory.as_ref()));
        outputs
            .collect::<Option<_>>()
            .ok_or_else(|| io::Error::other("outputs that are nowhere"))
    }
}

fn tensor(part: Part, memory: Option<&Bytes>) -> Option<Tensor> {
    let range = part.range()?;
    let data = match part.mapping {
        0 => part.here,
        _ => {
            let memory = memory.filter(|memory| range.end <= memory.len())?;
            memory.slice(range)
        }
    };
    Some(Tensor {
        dtype: dtype(part.dtype)?,
        shape: Shape::new(&part.shape),
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{HostMemory, MappedMemory};

    fn part(mapping: u64, length: u64) -> Part {
        Part {
            dtype: 1,
            shape: vec![length as i64],
            mapping,
            offset: 2,
            length,
            here: Bytes::new(),
        }
    }

    fn ran(parts: &[Part]) -> Ran {
        Ran {
            outputs: parts.to_vec(),
            dropped: Vec::new(),
        }
    }

    #[test]
    fn memory_is_returned_when_the_last_tensor_is_dropped() {
        let mut memory = MappedMemory::zeroed(8).unwrap();
        memory.as_mut_slice()[2] = 7;
        let file = memory.take_file().unwrap();
        let mut outputs = Outputs::default();
        let parts = [part(5, 1), part(5, 6)];
        let mut tensors = outputs.take(ran(&parts), vec![file]).unwrap();
        assert_eq!(tensors[0].data[..], [7]);
        let last = tensors.pop();
        drop(tensors);
        assert!(outputs.returned().is_empty());
        drop(last);
        assert_eq!(outputs.returned(), [5]);
        // It is known now, and comes without a file.
        assert!(outputs.take(ran(&parts), Vec::new()).is_ok());
    }

    #[test]
    fn what_lies_outside_the_memory_is_refused() {
        let mut memory = MappedMemory::zeroed(8).unwrap();
        let file = memory.take_file().unwrap();
        let mut outputs = Outputs::default();
        assert!(outputs.take(ran(&[part(5, 7)]), vec![file]).is_err());
        assert!(outputs.take(ran(&[part(6, 1)]), Vec::new()).is_err());
        assert!(outputs.take(ran(&[part(5, u64::MAX)]), Vec::new()).is_err());
    }
}
