//! Numbers that are made up, in memory that any element type may lie in.

use bytes::Bytes;

use crate::tensor::{Dtype, append_element};

/// Numbers between 0 and 1 that differ from element to element and from seed to seed; whole ones
/// are 0 or 1, which are valid tokens, indices and flags nearly everywhere.
pub(in crate::serving) fn values(dtype: Dtype, count: usize, seed: u64) -> Bytes {
    let mut state = seed
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(0x1234_5678_9ABC_DEF1);
    let mut data = Vec::new();
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        append_value(&mut data, dtype, state >> 40);
    }
    aligned(&data)
}

/// Appends one made-up element from 24 random bits.
fn append_value(data: &mut Vec<u8>, dtype: Dtype, bits: u64) {
    let share = bits as f32 / (1 << 24) as f32;
    match dtype {
        Dtype::Fp32 => data.extend(share.to_le_bytes()),
        Dtype::Fp64 => data.extend(f64::from(share).to_le_bytes()),
        Dtype::Fp16 => data.extend(half::f16::from_f32(share).to_le_bytes()),
        Dtype::Bf16 => data.extend(half::bf16::from_f32(share).to_le_bytes()),
        Dtype::Bytes => append_element(data, if bits & 1 == 0 { b"0" } else { b"1" }),
        whole => {
            data.push((bits & 1) as u8);
            data.extend(std::iter::repeat_n(0, whole.size().unwrap_or(1) - 1));
        }
    }
}

/// A copy that starts where any element type may.
pub(in crate::serving) fn aligned(data: &[u8]) -> Bytes {
    use crate::device::{AlignedMemory, HostMemory};

    struct Owner(AlignedMemory, usize);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_slice().get(..self.1).unwrap_or(&[])
        }
    }
    let mut memory = AlignedMemory::zeroed(data.len());
    if let Some(start) = memory.as_mut_slice().get_mut(..data.len()) {
        start.copy_from_slice(data);
    }
    Bytes::from_owner(Owner(memory, data.len()))
}
