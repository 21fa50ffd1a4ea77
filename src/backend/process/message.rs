//! What a server and its workers say to each other. Tensors that are large stay out of it: they lie in
//! memory that both map.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::device::DeviceId;
use crate::model::{Dimension, Signature, TensorSpec, VersionId};
use crate::tensor::Dtype;

/// What the server wants.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Order {
    #[prost(oneof = "OrderKind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(super) kind: Option<OrderKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OrderKind {
    /// Goes on over the socket that comes with it; not answered.
    #[prost(bool, tag = "1")]
    Open(bool),
    /// Load a version, for everybody.
    #[prost(message, tag = "2")]
    Load(Load),
    /// One more executor, for this socket.
    #[prost(bool, tag = "3")]
    Make(bool),
    /// One that writes down where its time goes.
    #[prost(message, tag = "4")]
    Profile(Profile),
    /// Numbers of memory to read from, which comes with it; not answered.
    #[prost(message, tag = "5")]
    Map(Numbers),
    /// Run a batch.
    #[prost(message, tag = "6")]
    Run(Run),
    /// Say where the time went.
    #[prost(bool, tag = "7")]
    EndProfile(bool),
}

/// What the worker says to that.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Reply {
    #[prost(oneof = "ReplyKind", tags = "1, 2, 3, 4, 5")]
    pub(super) kind: Option<ReplyKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum ReplyKind {
    #[prost(bool, tag = "1")]
    Loaded(bool),
    #[prost(message, tag = "2")]
    Made(Specs),
    #[prost(message, tag = "3")]
    Ran(Ran),
    /// The file of a profile.
    #[prost(bytes = "vec", tag = "4")]
    Profiled(Vec<u8>),
    #[prost(message, tag = "5")]
    Failed(Failed),
}

/// A version, and where it goes.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Load {
    #[prost(string, tag = "1")]
    pub(super) model: String,
    #[prost(uint64, tag = "2")]
    pub(super) version: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) folder: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) file: Vec<u8>,
    /// Its `model.toml`.
    #[prost(string, tag = "5")]
    pub(super) policy: String,
    #[prost(message, optional, tag = "6")]
    pub(super) device: Option<Place>,
    #[prost(uint64, optional, tag = "7")]
    pub(super) threads: Option<u64>,
}

impl Load {
    pub(super) fn id(&self) -> VersionId {
        VersionId {
            model: self.model.as_str().into(),
            version: self.version,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Profile {
    #[prost(message, optional, tag = "1")]
    pub(super) load: Option<Load>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) prefix: Vec<u8>,
}

/// A device.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Place {
    #[prost(uint32, tag = "1")]
    pub(super) kind: u32,
    #[prost(uint32, tag = "2")]
    pub(super) number: u32,
}

impl From<DeviceId> for Place {
    fn from(id: DeviceId) -> Self {
        let (kind, number) = match id {
            DeviceId::Cpu => (0, 0),
            DeviceId::Cuda(number) => (1, number),
            DeviceId::Simulated(number) => (2, number),
        };
        Self { kind, number }
    }
}

impl From<Place> for DeviceId {
    fn from(place: Place) -> Self {
        match place.kind {
            1 => Self::Cuda(place.number),
            2 => Self::Simulated(place.number),
            _ => Self::Cpu,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Numbers {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) numbers: Vec<u64>,
}

/// A batch.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Run {
    #[prost(message, repeated, tag = "1")]
    pub(super) inputs: Vec<Part>,
    /// Memory that will not be read from again.
    #[prost(uint64, repeated, tag = "2")]
    pub(super) dropped: Vec<u64>,
    /// Memory of outputs that has been read, to be written again.
    #[prost(uint64, repeated, tag = "3")]
    pub(super) returned: Vec<u64>,
    /// Whether the answer to the last batch did not arrive.
    #[prost(bool, tag = "4")]
    pub(super) unheard: bool,
}

/// What came of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ran {
    #[prost(message, repeated, tag = "1")]
    pub(super) outputs: Vec<Part>,
    /// Memory of outputs that will not be written again.
    #[prost(uint64, repeated, tag = "2")]
    pub(super) dropped: Vec<u64>,
}

/// A tensor, and where its elements are.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Part {
    #[prost(uint32, tag = "1")]
    pub(super) dtype: u32,
    #[prost(int64, repeated, tag = "2")]
    pub(super) shape: Vec<i64>,
    /// The number of the memory; 0: the elements are here.
    #[prost(uint64, tag = "3")]
    pub(super) mapping: u64,
    #[prost(uint64, tag = "4")]
    pub(super) offset: u64,
    #[prost(uint64, tag = "5")]
    pub(super) length: u64,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) here: Bytes,
}

impl Part {
    /// Where it is in its memory.
    pub(super) fn range(&self) -> Option<std::ops::Range<usize>> {
        let offset = usize::try_from(self.offset).ok()?;
        let length = usize::try_from(self.length).ok()?;
        Some(offset..offset.checked_add(length)?)
    }
}

/// Why something failed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Failed {
    #[prost(enumeration = "Failure", tag = "1")]
    pub(super) kind: i32,
    #[prost(string, tag = "2")]
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Failure {
    /// These inputs, or this model.
    Failed = 0,
    OutOfMemory = 1,
    DeviceLost = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Specs {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<Spec>,
    #[prost(message, repeated, tag = "2")]
    outputs: Vec<Spec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Spec {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    dtype: u32,
    #[prost(message, repeated, tag = "3")]
    dimensions: Vec<Size>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Size {
    #[prost(uint64, optional, tag = "1")]
    size: Option<u64>,
    #[prost(string, tag = "2")]
    symbol: String,
}

impl From<&Signature> for Specs {
    fn from(signature: &Signature) -> Self {
        Self {
            inputs: signature.inputs.iter().map(spec).collect(),
            outputs: signature.outputs.iter().map(spec).collect(),
        }
    }
}

impl Specs {
    /// None if it names no element type.
    pub(super) fn signature(self) -> Option<Signature> {
        let read = |specs: Vec<Spec>| specs.into_iter().map(tensor).collect::<Option<Vec<_>>>();
        Some(Signature {
            inputs: read(self.inputs)?,
            outputs: read(self.outputs)?,
        })
    }
}

fn spec(spec: &TensorSpec) -> Spec {
    let size = |one: &Dimension| Size {
        size: one.size.map(|size| size as u64),
        symbol: one.symbol.clone(),
    };
    Spec {
        name: spec.name.clone(),
        dtype: number(spec.dtype),
        dimensions: spec.dimensions.iter().map(size).collect(),
    }
}

fn tensor(spec: Spec) -> Option<TensorSpec> {
    let dimension = |one: Size| {
        let size = one.size.map(usize::try_from).transpose().ok()?;
        Some(Dimension {
            size,
            symbol: one.symbol,
        })
    };
    Some(TensorSpec {
        name: spec.name,
        dtype: dtype(spec.dtype)?,
        dimensions: spec
            .dimensions
            .into_iter()
            .map(dimension)
            .collect::<Option<_>>()?,
    })
}

/// The number of an element type: its place in [`Dtype::ALL`].
pub(super) fn number(dtype: Dtype) -> u32 {
    let place = Dtype::ALL.iter().position(|one| *one == dtype);
    u32::try_from(place.unwrap_or(usize::MAX)).unwrap_or(u32::MAX)
}

pub(super) fn dtype(number: u32) -> Option<Dtype> {
    Dtype::ALL.get(usize::try_from(number).ok()?).copied()
}

pub(super) fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

pub(super) fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_and_devices_come_back_as_they_were() {
        let signature = Signature {
            inputs: vec![TensorSpec {
                name: "x".to_owned(),
                dtype: Dtype::Bf16,
                dimensions: vec![Dimension::varying("n"), Dimension::fixed(0)],
            }],
            outputs: Vec::new(),
        };
        assert_eq!(Specs::from(&signature).signature(), Some(signature));
        for id in [DeviceId::Cpu, DeviceId::Cuda(3), DeviceId::Simulated(0)] {
            assert_eq!(DeviceId::from(Place::from(id)), id);
        }
        for own in Dtype::ALL {
            assert_eq!(dtype(number(own)), Some(own));
        }
        assert_eq!(dtype(14), None);
    }
}
