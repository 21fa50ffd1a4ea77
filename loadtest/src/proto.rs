//! Code made from the server's `proto/`: messages and client.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

tonic::include_proto!("inference");
