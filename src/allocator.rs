//! What was freed goes back to the system.
//! Uses mimalloc, which the program allocates with, and `clock`.
//! Never holds a thread up that has something to do.
//!
//! mimalloc gives back what has been free for a second, but looks only when it is asked for more, and only the
//! thread that took a block can put the page it was in to other uses. Of a thread that has nothing to do nobody asks
//! (`mi_collect` in its documentation is for that).

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Duration;

use crate::clock::{Clock, Moment, MonotonicClock};

/// From one look of a thread at what was freed to its next.
const PAUSE: Duration = Duration::from_secs(1);

static CLOCK: LazyLock<MonotonicClock> = LazyLock::new(MonotonicClock::start);

thread_local! {
    static NEXT: Cell<Moment> = const { Cell::new(Moment::ORIGIN) };
}

/// Gives back what has been free for a while, and what others freed of this thread's.
///
/// Takes 25 to 100 us, and some milliseconds where there is a gigabyte to give back.
pub(crate) fn release() {
    // SAFETY: it may be called at any time, and touches nothing that is in use.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// The same for a thread that rests often: however often it calls this, it looks once in [`PAUSE`].
pub(crate) fn release_at_rest() {
    let now = CLOCK.now();
    if now >= NEXT.get() {
        NEXT.set(now + PAUSE);
        release();
    }
}
