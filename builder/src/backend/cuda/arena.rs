//! Device memory under a budget: one range taken at the start, parts of it given out and taken back.
//!
//! What a build may use is decided once, before it starts; from then on "out of memory" is this arena's own, exact answer and never the
//! driver's, which would depend on what else runs on the device. Parts may be reused as soon as they are dropped: all work of a driver is in
//! order.

use super::driver::{Address, Driver, DriverError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts begin at multiples of this: what the widest loads of the kernels want.
const ALIGN: u64 = 256;

/// The range, and what of it is free.
#[derive(Debug)]
pub(super) struct Arena {
    driver: Arc<dyn Driver>,
    base: Address,
    bytes: u64,
    /// (offset, length) of what is free, in order of offset; neighbors are joined.
    free: Mutex<Vec<(u64, u64)>>,
    /// Every part is taken from the driver by itself, so that tools and guards see where it ends; the count against `bytes` stays.
    apart: bool,
}

/// A part of an arena, given back when dropped.
#[derive(Debug)]
pub struct Buffer {
    arena: Arc<Arena>,
    offset: u64,
    length: u64,
    at: Address,
}

impl Arena {
    /// Takes `bytes` of the device; with `apart` only counts them.
    pub(super) fn new(driver: Arc<dyn Driver>, bytes: u64, apart: bool) -> Result<Arc<Arena>, DriverError> {
        let bytes = bytes.next_multiple_of(ALIGN);
        let base = if apart { 0 } else { driver.take(bytes)? };
        Ok(Arc::new(Arena { driver, base, bytes, free: Mutex::new(vec![(0, bytes)]), apart }))
    }

    fn free(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that are free, not all in one piece.
    pub(super) fn free_bytes(&self) -> u64 {
        self.free().iter().map(|f| f.1).sum()
    }

    /// A part of at least `bytes`, from the smallest free piece that has them.
    pub(super) fn part(self: &Arc<Arena>, bytes: u64) -> Result<Buffer, DriverError> {
        let length = bytes.max(1).checked_next_multiple_of(ALIGN).ok_or(DriverError::OutOfMemory { asked: bytes })?;
        let mut free = self.free();
        let best = (0..free.len()).filter(|&at| free[at].1 >= length).min_by_key(|&at| free[at].1);
        let at = best.ok_or(DriverError::OutOfMemory { asked: bytes })?;
        let (offset, rest) = (free[at].0, free[at].1 - length);
        if rest == 0 {
            free.remove(at);
        } else {
            free[at] = (offset + length, rest);
        }
        drop(free);
        let mut buffer = Buffer { arena: self.clone(), offset, length, at: self.base + offset };
        if self.apart {
            buffer.at = 0;
            buffer.at = self.driver.take(bytes.max(1))?;
        }
        Ok(buffer)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if !self.apart {
            self.driver.give(self.base);
        }
    }
}

impl Buffer {
    /// Where it begins.
    pub fn at(&self) -> Address {
        self.at
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.arena.apart && self.at != 0 {
            self.arena.driver.give(self.at);
        }
        let mut free = self.arena.free();
        let at = free.partition_point(|f| f.0 < self.offset);
        free.insert(at, (self.offset, self.length));
        if at + 1 < free.len() && free[at].0 + free[at].1 == free[at + 1].0 {
            free[at].1 += free[at + 1].1;
            free.remove(at + 1);
        }
        if at > 0 && free[at - 1].0 + free[at - 1].1 == free[at].0 {
            free[at - 1].1 += free[at].1;
            free.remove(at);
        }
    }
}
