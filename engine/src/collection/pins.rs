//! Which snapshots may still be searched: a slot is emptied, and filled again, only when nobody can see what was in it.

use super::{CollectionError, Inner, Snapshot, commit::Writer, locked};
use std::{
    sync::{Arc, Mutex, Weak},
    thread,
    time::{Duration, Instant},
};

/// Between two looks at whether they are gone.
const LOOK: Duration = Duration::from_micros(200);

/// Snapshots that were published, in their order, as long as somebody holds them.
#[derive(Default)]
pub(super) struct Pins(Mutex<Vec<Weak<Snapshot>>>);

impl Pins {
    pub(super) fn add(&self, snapshot: &Arc<Snapshot>) {
        let mut all = locked(&self.0);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(snapshot));
    }

    /// Those that somebody holds, in their order.
    pub(super) fn held(&self) -> Vec<Arc<Snapshot>> {
        locked(&self.0).iter().filter_map(Weak::upgrade).collect()
    }

    /// Waits until all are gone that were published before `snapshot`; false when some are not within `limit`.
    pub(super) fn wait_for_older(&self, snapshot: &Arc<Snapshot>, limit: Duration) -> bool {
        let this = Arc::downgrade(snapshot);
        let begin = Instant::now();
        loop {
            let older = locked(&self.0).iter().take_while(|one| !one.ptr_eq(&this)).any(|one| one.strong_count() > 0);
            if !older || begin.elapsed() >= limit {
                return !older;
            }
            thread::sleep(LOOK);
        }
    }
}

impl Inner {
    /// The same as is seen, as another snapshot.
    pub(super) fn publish_again(&self) -> Result<(), CollectionError> {
        let writer = locked(&self.writer);
        writer.check(&self.path)?;
        self.publish(&writer);
        Ok(())
    }

    /// Searches that begin from now on see what the writer has.
    pub(super) fn publish(&self, writer: &Writer) {
        let snapshot = Arc::new(writer.snapshot());
        // Known before anybody can hold it.
        self.pins.add(&snapshot);
        self.snapshot.store(snapshot);
    }
}
