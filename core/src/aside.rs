//! Work that stands back: it computes where others answer meanwhile, and they come first.
//!
//! A thread of low priority is not enough: between two ticks, 4 or 10 ms, a kernel takes the core from nobody, whoever waits. So such a thread offers it often.

use std::{
    cell::Cell,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

thread_local! {
    /// When this thread last offered its core, where it stands back.
    static OFFERED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What whoever waits for the core may wait for.
const BREATH: Duration = Duration::from_micros(500);

/// Does `work`, which takes no lock that those want who come first, on a thread that stands back.
pub fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(|| stand_back(work)).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// Does `work` on so many threads; the first error. Where this thread stands back so do they, and half of them are enough.
///
/// # Errors
/// Those of `work`.
pub fn on_threads<E: Send>(threads: usize, work: &(dyn Fn() -> Result<(), E> + Sync)) -> Result<(), E> {
    let stands_back = OFFERED.get().is_some();
    let threads = if stands_back { threads / 2 } else { threads }.max(1);
    let work = || if stands_back { stand_back(work) } else { work() };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Where this thread stands back, and has not done so for half a millisecond: lets those go first who wait for its core. To be called at least that often.
#[inline]
pub fn breathe() {
    if let Some(offered) = OFFERED.get() {
        let now = Instant::now();
        if now.duration_since(offered) >= BREATH {
            thread::yield_now();
            OFFERED.set(Some(Instant::now()));
        }
    }
}

/// From here on this thread stands back.
fn stand_back<T>(work: impl FnOnce() -> T) -> T {
    // Refused, it costs the others some time.
    let _ = rustix::process::nice(10);
    OFFERED.set(Some(Instant::now()));
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
    fn the_core_is_offered_where_it_was_kept_for_long() {
        let offered = aside(|| {
            let before = OFFERED.get();
            breathe();
            let at_once = OFFERED.get() == before || before.is_some_and(|before| before.elapsed() >= BREATH);
            thread::sleep(BREATH);
            breathe();
            (at_once, OFFERED.get() > before)
        });
        assert_eq!(offered, (true, true));
    }
}
