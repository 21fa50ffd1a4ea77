//! Code made from `proto/`: messages, client and server of the wire protocol.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

tonic::include_proto!("inference");

/// Load reports for those who balance. Where its messages look for each other is decided by the code that
/// is made, and so are these names.
pub mod xds {
    pub mod data {
        pub mod orca {
            pub mod v3 {
                tonic::include_proto!("xds.data.orca.v3");
            }
        }
    }
    pub mod service {
        pub mod orca {
            pub mod v3 {
                tonic::include_proto!("xds.service.orca.v3");
            }
        }
    }
}

/// The compiled descriptors of `proto/`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// What those describe, to read and write messages by the names of their fields.
pub static MESSAGES: std::sync::LazyLock<prost_reflect::DescriptorPool> =
    std::sync::LazyLock::new(|| {
        prost_reflect::DescriptorPool::decode(DESCRIPTORS)
            .unwrap_or_else(|error| unreachable!("our own descriptors are sound: {error}"))
    });
