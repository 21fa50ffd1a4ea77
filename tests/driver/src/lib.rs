//! An NVIDIA driver that is not one: the few entry points of `libcuda.so.1` that Jitney calls, with files
//! behind the memory of as many GPUs as are wanted, and faults on command.
//!
//! Built as a library to be loaded in the driver's place, and as one for tests, who install it
//! ([`Installed`]). `JITNEY_DRIVER` names a folder: the file `control` in it says what the driver is like
//! and what it does wrong, and is read at every call, so that it can change while a server runs; the other
//! files there are the GPUs' memory, which is thus shared by processes as a GPU's is.
//!
//! Lines of `control`, each `key = value`; what is not said is as in the brackets:
//!
//! | key | meaning |
//! |---|---|
//! | `devices` | GPUs that there are, when the process starts the driver (1) |
//! | `version` | CUDA's version, as cuDriverGetVersion tells it (13000) |
//! | `memory_bytes` | of each GPU (1 GiB) |
//! | `context_bytes` | what a process that uses a GPU takes of it by that (0) |
//! | `pinned_bytes` | page-locked memory that each process may have (no bound) |
//! | `fail.NAME` | the error with which calls of this entry point fail, such as `fail.cuInit = 100` |
//! | `lost.N` | the error with which GPU N is lost: whoever meets it meets it for the rest of its life |
//! | `after.N` | calls to GPU N that a process may make before that (0) |
//!
//! What it knows of the real one's rules is what the documentation says: calls fail before cuInit and
//! without a context, a GPU's memory cannot be read but by copying, a copy to it is there only when the stream
//! is synchronized or the next copy begins, a handle cannot be opened by the
//! process that made it, opening one twice gives the same memory. It computes nothing.

mod code;
mod control;
mod entry;
mod installed;
mod memory;
mod process;

pub use installed::{Installed, Shared};
