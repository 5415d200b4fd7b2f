//! Work that stands back: it computes where others answer meanwhile, and they come first.
//!
//! A thread of low priority is not enough: between two ticks, 4 or 10 ms, a kernel takes the core from nobody, whoever waits. So such a thread offers it often.

use rustix::time::{ClockId, clock_gettime};
use std::{
    cell::Cell,
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

thread_local! {
    /// Where this thread stands back: when it last looked at whether to offer its core, and what it had computed when it last did so.
    static OFFERED: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// What whoever waits for the core may wait for.
const BREATH: Duration = Duration::from_micros(500);

/// What this thread has computed in all.
fn computed() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Does `work`, which takes no lock that those want who come first, on a thread that stands back.
pub fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // Without a thread of its own it is done here, at the cost of the others.
    let work = Mutex::new(Some(work));
    let taken = || work.lock().unwrap_or_else(PoisonError::into_inner).take();
    thread::scope(|scope| match thread::Builder::new().spawn_scoped(scope, || taken().map(stand_back)) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
        Err(_) => taken().map(|work| work()),
    })
    .unwrap_or_else(|| unreachable!("the work is taken once"))
}

/// Does `work` on so many threads; the first error. Where this thread stands back so do they, and half of them are enough.
///
/// # Errors
/// Those of `work`.
pub fn on_threads<E: Send>(threads: usize, work: &(dyn Fn() -> Result<(), E> + Sync)) -> Result<(), E> {
    let stands_back = OFFERED.get().is_some();
    let threads = if stands_back { threads / 2 } else { threads }.max(1);
    let work = || {
        if stands_back {
            // They have the low priority already of the thread that begins them.
            OFFERED.set(Some((Instant::now(), computed())));
        }
        work()
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Where this thread stands back, and has computed for half a millisecond since it last did so: lets those go first who wait for its core. To be called at least that
/// often. Time in which it waited itself does not count, or it would come to nothing where there is always somebody.
#[inline]
pub fn breathe() {
    if let Some((looked, offered)) = OFFERED.get()
        && looked.elapsed() >= BREATH
    {
        let now = computed();
        let is_due = now.saturating_sub(offered) >= BREATH;
        if is_due {
            thread::yield_now();
        }
        OFFERED.set(Some((Instant::now(), if is_due { now } else { offered })));
    }
}

/// From here on this thread stands back.
fn stand_back<T>(work: impl FnOnce() -> T) -> T {
    // Refused, it costs the others some time.
    let _ = rustix::process::nice(10);
    OFFERED.set(Some((Instant::now(), computed())));
    work()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn threads_of_one_that_stands_back_stand_back_and_nobody_else_does() {
        let count = |threads| {
            let (all, aside) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = || {
                all.fetch_add(1, Ordering::Relaxed);
                aside.fetch_add(usize::from(OFFERED.get().is_some()), Ordering::Relaxed);
                breathe();
                Ok::<_, ()>(())
            };
            on_threads(threads, &work).unwrap();
            (all.into_inner(), aside.into_inner())
        };
        assert_eq!((count(1), count(4)), ((1, 0), (4, 0)));
        assert_eq!(aside(|| (count(1), count(4))), ((1, 1), (2, 2)));
        assert_eq!(count(2), (2, 0));
        assert_eq!(on_threads(3, &|| Err(7)), Err(7));
    }

    #[test]
    fn a_panic_of_the_work_is_the_caller_s() {
        assert!(std::panic::catch_unwind(|| aside(|| panic!("as asked"))).is_err());
    }

    #[test]
    fn the_core_is_offered_for_what_was_computed_and_not_for_what_was_waited() {
        let (after_waiting, after_work) = aside(|| {
            let offered = || OFFERED.get().map(|(_, offered)| offered);
            let before = offered();
            thread::sleep(2 * BREATH);
            breathe();
            let after_waiting = offered() > before;
            let begin = computed();
            while computed() - begin < 2 * BREATH {}
            breathe();
            (after_waiting, offered() > before)
        });
        assert_eq!((after_waiting, after_work), (false, true));
    }
}
