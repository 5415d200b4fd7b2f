//! What a build says while it works. The library never prints: a door that wants a bar gives an [`Observer`].

use crate::BuildError;
use std::{
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

    /// Notes work done.
    ///
    /// # Errors
    /// `Stopped` when a stop was asked for.
    pub fn advance(&self, units: u64) -> Result<(), BuildError> {
        self.observer.advance(units);
        if self.stop.load(Ordering::Relaxed) { Err(BuildError::Stopped) } else { Ok(()) }
    }

    /// All phases with their times.
    pub fn finish(&self) -> Vec<Phase> {
        let mut phases = self.phases();
        end_last(&mut phases);
        phases.drain(..).map(|(phase, _)| phase).collect()
    }
}

fn end_last(phases: &mut [(Phase, Instant)]) {
    if let Some((phase, start)) = phases.last_mut() {
        phase.seconds = start.elapsed().as_secs_f64();
    }
}
