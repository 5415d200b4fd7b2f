//! What a CUDA device can do at all, measured on the spot.

use super::{Cuda, place_of};
use crate::{
    backend::{Backend, BackendError},
    measure::Roofs,
};
use std::time::Instant;

/// Bytes of each copy.
const COPIED: u64 = 2 << 30;
/// Blocks and rounds of the multiply-adds: some tenths of a second on the fastest device of today.
const BLOCKS_EACH: u64 = 8;
const ROUNDS: u32 = 50_000;
/// What `roof_int8` does a thread and round.
const MULTIPLY_ADDS: u64 = 1024;

impl Cuda {
    /// Measures copies of up to 2 GiB, to and from the host as builds make them (through pinned slots), and `rounds` of multiply-adds (by default enough to keep a large device busy).
    ///
    /// # Errors
    /// What the device says.
    pub fn roofs(&self, rounds: Option<u32>) -> Result<Roofs, BackendError> {
        let bytes = COPIED.min(self.arena.free_bytes() / 4);
        let (from, to) = (self.room::<u8>(bytes)?, self.room::<u8>(bytes)?);
        let mut host = vec![1u8; bytes as usize];
        let upload = self.fastest(&mut || self.driver.upload(from.at(), &host).map_err(|e| self.error(e)))?;
        let copy = self.fastest(&mut || self.driver.copy(to.at(), from.at(), bytes).map_err(|e| self.error(e)))?;
        let download = self.fastest(&mut || self.driver.download(to.at(), &mut host).map_err(|e| self.error(e)))?;
        let rounds = rounds.unwrap_or(ROUNDS);
        let (sink, blocks) = (self.room::<i32>(1)?, BLOCKS_EACH * u64::from(self.driver.facts().multiprocessors));
        let args = [super::Arg::U32(rounds), place_of(&sink)];
        let multiply = self.fastest(&mut || self.launch("roof", "roof_int8", blocks, 256, 0, &args))?;
        let done = (MULTIPLY_ADDS * u64::from(rounds) * blocks * 256) as f64;
        let rate = |seconds: f64| Some(bytes as f64 / seconds);
        Ok(Roofs { multiply_adds: Some(done / multiply), copy: rate(copy), upload: rate(upload), download: rate(download) })
    }

    /// Seconds of the fastest of a few runs.
    fn fastest(&self, run: &mut dyn FnMut() -> Result<(), BackendError>) -> Result<f64, BackendError> {
        let mut best = f64::INFINITY;
        for _ in 0..4 {
            self.wait()?;
            let start = Instant::now();
            run()?;
            self.wait()?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(best)
    }
}
