//! Files and sockets that this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What is open beside the connections of clients: models, logs, workers and their memory.
const OTHERS: u64 = 256;

/// Allows as many as the system lets this process have. It begins with fewer for the sake of programs that select(2),
/// which this one does not.
pub(super) fn raise(max_connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "no more files and sockets may be open than at first (ulimit -n)");
        }
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if most < max_connections as u64 + OTHERS {
        tracing::warn!(
            most,
            max_connections,
            "max_connections cannot be reached: fewer files and sockets may be open (ulimit -Hn)"
        );
    }
}
