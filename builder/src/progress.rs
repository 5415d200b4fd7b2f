//! What a build says while it works. The library never prints: a door that wants a bar gives an [`Observer`].

use crate::BuildError;
use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Hears of phases and of work done in them; from any thread of the build, one at a time or several.
pub trait Observer: Send + Sync {
    /// A phase begins that will take `total` units.
    fn phase(&self, name: &'static str, total: u64, unit: &'static str);
    /// `units` more are done.
    fn advance(&self, units: u64);
    /// The build writes into this directory, and nowhere else.
    fn directory(&self, _: &Path) {}
    /// The build holds so much of a device's memory.
    fn device_bytes(&self, _: u64) {}
}

/// Says nothing.
pub struct Silent;

impl Observer for Silent {
    fn phase(&self, _: &'static str, _: u64, _: &'static str) {}
    fn advance(&self, _: u64) {}
}

/// One phase of a build, as the report has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// Wall time.
    pub seconds: f64,
    /// Units done.
    pub units: u64,
    /// What they are.
    pub unit: &'static str,
}

/// Passes progress on, keeps the times, and stops the build when asked to.
pub struct Watch<'a> {
    observer: &'a dyn Observer,
    stop: &'a AtomicBool,
    phases: Mutex<Vec<(Phase, Instant)>>,
}

impl<'a> Watch<'a> {
    /// Watches on behalf of `observer`; a true `stop` ends the build at its next step.
    pub fn new(observer: &'a dyn Observer, stop: &'a AtomicBool) -> Watch<'a> {
        Watch { observer, stop, phases: Mutex::new(Vec::new()) }
    }

    /// A watch that tells phases of work inside a phase as parts of that one, each worth `units`, and hears the same stop.
    pub fn inside<'s>(&'s self, share: &'s Share<'a>) -> Watch<'s> {
        Watch::new(share, self.stop)
    }

    /// What [`Watch::inside`] needs.
    pub fn share(&self, units: u64) -> Share<'a> {
        Share { outer: self.observer, units, now: Mutex::default() }
    }

    /// A watch that says nothing and hears the same stop: for work inside a phase.
    pub fn quiet(&self) -> Watch<'a> {
        Watch::new(&Silent, self.stop)
    }

    fn phases(&self) -> std::sync::MutexGuard<'_, Vec<(Phase, Instant)>> {
        self.phases.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends the phase before and begins one.
    pub fn phase(&self, name: &'static str, total: u64, unit: &'static str) {
        let mut phases = self.phases();
        end_last(&mut phases);
        phases.push((Phase { name, seconds: 0.0, units: total, unit }, Instant::now()));
        self.observer.phase(name, total, unit);
    }

    /// Notes work done by a stage that cannot be stopped.
    pub fn heard(&self, units: u64) {
        self.observer.advance(units);
    }

    /// Notes work done.
    ///
    /// # Errors
    /// `Stopped` when a stop was asked for.
    pub fn advance(&self, units: u64) -> Result<(), BuildError> {
        self.heard(units);
        if self.stop.load(Ordering::Relaxed) { Err(BuildError::Stopped) } else { Ok(()) }
    }

    /// All phases with their times.
    pub fn finish(&self) -> Vec<Phase> {
        let mut phases = self.phases();
        end_last(&mut phases);
        phases.drain(..).map(|(phase, _)| phase).collect()
    }
}

/// Phases within a phase: whatever a part's own units are, all of it is worth a fixed number of the outer phase's.
pub struct Share<'a> {
    outer: &'a dyn Observer,
    units: u64,
    now: Mutex<Part>,
}

/// Of the part that runs: its own units, all and done, and what the outer phase was told of it.
#[derive(Default)]
struct Part {
    total: u64,
    done: u64,
    told: u64,
}

impl Observer for Share<'_> {
    fn phase(&self, _: &'static str, total: u64, _: &'static str) {
        *self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Part { total, ..Part::default() };
    }

    fn advance(&self, units: u64) {
        let mut part = self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        part.done = part.total.min(part.done + units);
        let worth = (u128::from(self.units) * u128::from(part.done) / u128::from(part.total.max(1))) as u64;
        let more = worth - part.told;
        part.told = worth;
        self.outer.advance(more);
    }
}

fn end_last(phases: &mut [(Phase, Instant)]) {
    if let Some((phase, start)) = phases.last_mut() {
        phase.seconds = start.elapsed().as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[derive(Default)]
    struct Sum(AtomicU64);

    impl Observer for Sum {
        fn phase(&self, _: &'static str, _: u64, _: &'static str) {}
        fn advance(&self, units: u64) {
            self.0.fetch_add(units, Ordering::Relaxed);
        }
    }

    #[test]
    fn phases_within_a_phase_are_worth_equal_parts_of_it() {
        let (sum, stop) = (Sum::default(), AtomicBool::new(false));
        let outer = Watch::new(&sum, &stop);
        let share = outer.share(10);
        let inner = outer.inside(&share);
        let so_far = || sum.0.load(Ordering::Relaxed);
        for (total, steps) in [(3, 3), (70, 7), (0, 1)] {
            let before = so_far();
            inner.phase("part", total, "rows");
            for step in 1..=steps {
                inner.advance(total / steps).unwrap();
                assert_eq!(so_far() - before, if total == 0 { 0 } else { 10 * step / steps });
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(inner.advance(1), Err(BuildError::Stopped)));
    }
}
