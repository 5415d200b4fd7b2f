//! The threads behind an open collection. The keeper brings new vectors into the delta's graph, and starts the delta over when most of it is dead; the
//! merger moves what gathers into the base, where that is changed in place.

use super::{
    Collection, Inner, MergeLimits, Snapshot,
    delta::{Delta, LinkScratch, SCANNED},
    follow::BETWEEN_LOOKS,
    locked,
};
use crate::bits::Bits;
use std::{
    io,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Points that are worth a first base.
const FIRST_BASE: u64 = 50_000;
/// Until a build that failed is tried again.
const AFTER_A_FAILURE: Duration = Duration::from_secs(60);
/// Between two times that files of the store are removed that are needed no more.
const BETWEEN_REMOVALS: Duration = Duration::from_secs(1);
/// Slots that are linked between two looks at what else there is to do.
const AT_ONCE: u32 = 256;

/// The thread's handle and what is said to it.
#[derive(Default)]
pub(super) struct Keeper {
    told: Mutex<Told>,
    changed: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Tells a build that it shall stop.
    stopping: Arc<AtomicBool>,
}

#[derive(Default)]
struct Told {
    stop: bool,
    /// There may be something to do for the keeper, and for the merger.
    wake: bool,
    wake_merger: bool,
    /// It found nothing more to do when it last looked.
    idle: bool,
}

impl Keeper {
    /// Something was written.
    pub(super) fn wake(&self) {
        let mut told = locked(&self.told);
        (told.wake, told.wake_merger, told.idle) = (true, true, false);
        self.changed.notify_all();
    }

    /// Ends the threads.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        locked(&self.told).stop = true;
        self.changed.notify_all();
        let threads = std::mem::take(&mut *locked(&self.threads));
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != thread::current().id()) {
            // It has nothing to say that its snapshots do not.
            let _ = thread.join();
        }
    }

    /// Waits until nothing is left to do, or the thread has ended.
    pub(super) fn settle(&self) {
        let mut told = locked(&self.told);
        while !(told.idle || told.stop) {
            told = self.changed.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for something to do; false when the thread shall end.
    fn wait(&self) -> bool {
        let mut told = locked(&self.told);
        loop {
            if told.stop {
                return false;
            }
            if std::mem::take(&mut told.wake) {
                return true;
            }
            told.idle = true;
            self.changed.notify_all();
            told = self.changed.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for something that may be worth a merge; false when the thread shall end.
    fn wait_to_merge(&self) -> bool {
        let mut told = locked(&self.told);
        let begin = Instant::now();
        // What failed is tried again although nobody writes, as when all are refused.
        while !told.stop && !std::mem::take(&mut told.wake_merger) && begin.elapsed() < AFTER_A_FAILURE {
            told = self.changed.wait_timeout(told, AFTER_A_FAILURE).unwrap_or_else(PoisonError::into_inner).0;
        }
        !told.stop
    }

    /// Waits so long; false when the thread shall end.
    fn rest(&self, pause: Duration) -> bool {
        let (told, begin) = (locked(&self.told), Instant::now());
        let left = || pause.checked_sub(begin.elapsed());
        let mut told = told;
        while let Some(left) = left().filter(|_| !told.stop) {
            told = self.changed.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !told.stop
    }

    fn is_stopped(&self) -> bool {
        locked(&self.told).stop
    }
}

/// Starts the threads of a collection that was opened.
pub(super) fn start(inner: &Arc<Inner>) -> io::Result<()> {
    inner.keeper.wake();
    let start = |name: &str, run: fn(&Weak<Inner>)| {
        let of = Arc::downgrade(inner);
        let thread = thread::Builder::new().name(name.to_string()).spawn(move || run(&of))?;
        locked(&inner.keeper.threads).push(thread);
        Ok(())
    };
    start("roxanne-keeper", run)?;
    if inner.follower.is_some() {
        start("roxanne-follower", follow)?;
    }
    if inner.options.merges && !inner.options.read_only { start("roxanne-merger", merge) } else { Ok(()) }
}

/// Follows the writer.
fn follow(of: &Weak<Inner>) {
    while let Some(inner) = of.upgrade() {
        let outcome = unwound(|| inner.follow().and_then(|()| inner.say_what_is_seen()));
        *locked(&inner.trouble) = outcome.and_then(|outcome| outcome.map_err(|error| error.to_string())).err();
        if !inner.keeper.rest(BETWEEN_LOOKS) {
            return;
        }
    }
}

/// Merges while there is enough of it.
fn merge(of: &Weak<Inner>) {
    let mut failed: Option<Instant> = None;
    while let Some(inner) = of.upgrade() {
        if !inner.keeper.wait_to_merge() {
            return;
        }
        while !inner.keeper.is_stopped() {
            if let Some(rebuild) = inner.options.rebuild.as_ref().filter(|_| is_worth_a_build(&inner))
                && failed.is_none_or(|at| at.elapsed() > AFTER_A_FAILURE)
            {
                let build = || rebuild(&Collection::behind(&inner), &inner.keeper.stopping);
                let outcome = unwound(build).and_then(|outcome| outcome.map_err(|error| error.to_string()));
                failed = outcome.is_err().then(Instant::now);
                *locked(&inner.trouble) = outcome.err();
                continue;
            }
            if !is_worth_a_merge(&inner) {
                break;
            }
            let outcome = unwound(|| inner.merge(&MergeLimits::default())).and_then(|outcome| outcome.map_err(|error| error.to_string()));
            let has_done = outcome.as_ref().is_ok_and(|report| report.inserted + report.removed > 0);
            // A build that failed stays the trouble until one succeeds.
            if outcome.is_err() || failed.is_none() {
                *locked(&inner.trouble) = outcome.err();
            }
            // Nothing can be done, or others read it: the next write asks again. What failed at the disk is told to who writes.
            if !has_done {
                break;
            }
        }
    }
}

/// What `work` gives; a panic in it is a failure as others are.
fn unwound<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| "it panicked; stderr says where".to_string())
}

/// There is no base that can be changed in place and enough for one, or no room in it, or as much waits as building takes less time for: a build takes a
/// fortieth of what merging takes a vector, and all of them.
fn is_worth_a_build(inner: &Inner) -> bool {
    let snapshot = inner.snapshot.load();
    let waiting = u64::from(snapshot.len) - snapshot.delta_dead.len();
    let in_base = snapshot.hidden.from - snapshot.hidden.dead.len();
    let much = waiting >= FIRST_BASE.max(in_base / 4);
    let free = snapshot.hidden.dead.len() - snapshot.hidden.linked;
    match snapshot.base.as_ref().map(|base| &base.base).filter(|base| base.live.is_some()) {
        None => much || (waiting > 0 && snapshot.delta_bytes > inner.options.delta_bytes / 2),
        Some(base) => much || (waiting > 0 && base.room() + free <= base.n()),
    }
}

/// A round's worth has gathered, or a part of the memory that is allowed.
fn is_worth_a_merge(inner: &Inner) -> bool {
    let snapshot = inner.snapshot.load();
    let in_place = snapshot.base.as_ref().is_some_and(|base| base.base.live.is_some());
    let waiting = u64::from(snapshot.len) - snapshot.delta_dead.len();
    let MergeLimits { inserts, removals, .. } = MergeLimits::default();
    in_place && (waiting >= inserts as u64 || snapshot.gone >= removals as u64 || snapshot.delta_bytes > inner.options.delta_bytes / 4)
}

/// However the thread ends, nobody waits for it.
struct Ended<'a>(&'a Weak<Inner>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            locked(&inner.keeper.told).idle = true;
            inner.keeper.changed.notify_all();
        }
    }
}

fn run(of: &Weak<Inner>) {
    let _ended = Ended(of);
    let (mut scratch, mut removed) = (LinkScratch::default(), Instant::now());
    while let Some(inner) = of.upgrade() {
        if !inner.keeper.wait() {
            return;
        }
        if !inner.options.read_only && removed.elapsed() > BETWEEN_REMOVALS {
            removed = Instant::now();
            // What cannot be removed now can be later.
            let _ = inner.store.remove_old_files();
        }
        while !inner.keeper.is_stopped() {
            let snapshot = inner.snapshot.load_full();
            let (delta, len, dead) = (Arc::clone(&snapshot.delta), snapshot.len, Arc::clone(&snapshot.delta_dead));
            let mostly_dead = is_mostly_dead(&inner, &snapshot);
            // The merger waits for whoever holds a snapshot.
            drop(snapshot);
            if mostly_dead {
                if !start_over(&inner, &delta, len, &dead, &mut scratch) {
                    break;
                }
            } else if !link(&delta, len, &mut scratch) {
                break;
            }
        }
    }
}

/// Links a few slots below `len`; false when there is nothing to link.
fn link(delta: &Delta, len: u32, scratch: &mut LinkScratch) -> bool {
    let linked = delta.linked();
    if len <= SCANNED || linked >= len || !delta.has_graph() {
        return false;
    }
    (linked..len.min(linked + AT_ONCE)).for_each(|_| delta.link_next(scratch));
    true
}

/// Half of it is dead, and it is large, by what a scan takes or by the memory that is allowed.
fn is_mostly_dead(inner: &Inner, snapshot: &Snapshot) -> bool {
    let large = snapshot.len > 2 * SCANNED || snapshot.delta_bytes > inner.options.delta_bytes / 2;
    large && snapshot.delta_dead.len() * 2 > u64::from(snapshot.len)
}

/// Brings what lives of the delta into a new one, linked before anybody sees it, and puts that in its place; false when nothing is written any
/// more.
fn start_over(inner: &Inner, delta: &Arc<Delta>, old_len: u32, dead: &Bits, scratch: &mut LinkScratch) -> bool {
    let fresh = Arc::new(Delta::new(inner.distance, inner.config.metric));
    // Slots of the fresh delta by slots of the old one, as far as they lived when this began.
    let mut places = vec![u32::MAX; old_len as usize];
    let mut len = 0;
    for slot in (0..old_len).filter(|&slot| !dead.contains(slot)) {
        fresh.set(len, Arc::clone(delta.slot(slot)));
        places[slot as usize] = len;
        len += 1;
    }
    while link(&fresh, len, scratch) {
        if inner.keeper.is_stopped() {
            return false;
        }
    }
    let mut writer = locked(&inner.writer);
    // After a write that failed the writer is ahead of what may be seen.
    if writer.check(&inner.path).is_err() || writer.is_torn {
        return false;
    }
    if Arc::ptr_eq(&writer.delta, delta) {
        writer.move_to(fresh, len, &places);
        inner.publish(&writer);
    }
    true
}
