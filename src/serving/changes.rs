//! Tells whoever watches that something about what is served has changed.

use tokio::sync::watch;

/// A sign that something has changed; what, the catalog knows.
#[derive(Clone, Debug, Default)]
pub struct Changes(watch::Sender<()>);

impl Changes {
    /// Wakes everyone who watches.
    pub fn note(&self) {
        self.0.send_replace(());
    }

    /// Watches from now on.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}
