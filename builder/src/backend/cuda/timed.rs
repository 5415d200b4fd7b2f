//! A device with a clock around all that it computes: what a build takes of the device itself, whatever the host does meanwhile.
//!
//! For measurements alone: each launch waits for the one before it to be clocked, so a build on it is slower than one without. Copies from
//! and to the host are not counted; `measure::Roofs` has their rates.

use super::{
    Cuda,
    driver::{Address, Driver, DriverError, Facts, Launch, Ticket},
    nvidia::Nvidia,
};
use crate::{
    BuildError, BuildParams,
    measure::{self, Row},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// See the module.
#[derive(Debug)]
pub struct Timed {
    device: Nvidia,
    spent: Mutex<BTreeMap<&'static str, f64>>,
}

impl Timed {
    /// Nothing is spent yet.
    pub fn new(device: Nvidia) -> Timed {
        Timed { device, spent: Mutex::default() }
    }

    /// Seconds since the last call, by stem of the kernels; `fill` and `copy` are those on the device. A stem's first launch counts how long
    /// its image took to load.
    pub fn take_spent(&self) -> BTreeMap<&'static str, f64> {
        std::mem::take(&mut *self.spent())
    }

    fn spent(&self) -> MutexGuard<'_, BTreeMap<&'static str, f64>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clocked(&self, name: &'static str, mut work: impl FnMut() -> Result<(), DriverError>) -> Result<(), DriverError> {
        let seconds = self.device.time(&mut work)?;
        *self.spent().entry(name).or_default() += seconds;
        Ok(())
    }
}

impl Driver for Timed {
    fn facts(&self) -> &Facts {
        self.device.facts()
    }
    fn take(&self, bytes: u64) -> Result<Address, DriverError> {
        self.device.take(bytes)
    }
    fn give(&self, at: Address) {
        self.device.give(at);
    }
    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DriverError> {
        self.device.upload(to, from)
    }
    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DriverError> {
        self.device.download(from, to)
    }
    fn slot_bytes(&self) -> usize {
        self.device.slot_bytes()
    }
    fn start_download(&self, from: Address, bytes: usize) -> Result<Ticket, DriverError> {
        self.device.start_download(from, bytes)
    }
    fn finish_download(&self, ticket: Ticket, to: &mut [u8]) -> Result<(), DriverError> {
        self.device.finish_download(ticket, to)
    }
    fn fill(&self, at: Address, bytes: u64, byte: u8) -> Result<(), DriverError> {
        self.clocked("fill", || self.device.fill(at, bytes, byte))
    }
    fn copy(&self, to: Address, from: Address, bytes: u64) -> Result<(), DriverError> {
        self.clocked("copy", || self.device.copy(to, from, bytes))
    }
    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError> {
        self.clocked(launch.stem, || self.device.launch(launch))
    }
    fn synchronize(&self) -> Result<(), DriverError> {
        self.device.synchronize()
    }
}

/// A build's graph and codes of `n` generated vectors, by the time of `device` alone: all of it, and each stem.
///
/// # Errors
/// What a build says.
pub fn build_rows(device: Nvidia, n: u64) -> Result<Vec<Row>, BuildError> {
    let timed = Arc::new(Timed::new(device));
    let cuda = Cuda::new(timed.clone(), (timed.facts().free_bytes / 2).min(16 << 30))?;
    // Once for the images to be loaded.
    measure::one_build(&cuda, n)?;
    timed.take_spent();
    measure::one_build(&cuda, n)?;
    Ok(rows(n, &timed.take_spent()))
}

fn rows(n: u64, spent: &BTreeMap<&'static str, f64>) -> Vec<Row> {
    let (dim, size, k) = (measure::dim_of_build(n), measure::size_name(n), BuildParams::default().leaf_k);
    let row = |name: String, seconds: f64| Row { name, dim, k, value: n as f64 / seconds, unit: "vectors/s", floor: None };
    let whole = row(format!("build_{size}_device"), spent.values().sum());
    let parts = spent.iter().map(|(stem, &seconds)| row(format!("build_{size}_device_{stem}"), seconds));
    std::iter::once(whole).chain(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_build_is_that_of_its_kernels_together() {
        let rows = rows(1_000_000, &BTreeMap::from([("assign", 0.25), ("prune", 0.125), ("fill", 0.125)]));
        let told: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.dim, row.value)).collect();
        let expected = [
            ("build_1M_device", 128, 2e6),
            ("build_1M_device_assign", 128, 4e6),
            ("build_1M_device_fill", 128, 8e6),
            ("build_1M_device_prune", 128, 8e6),
        ];
        assert_eq!(told, expected);
    }
}
