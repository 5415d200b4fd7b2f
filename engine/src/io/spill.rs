#![allow(unsafe_code)]
//! Memory that goes to a file, part by part, while others read it: they find the same bytes, from the kernel's page cache or from flash.

use super::buffer::Mapping;
use roxanne_core::aside::breathe;
use rustix::mm::{MremapFlags, mremap_fixed};
use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// Bytes that go at a time: whole huge pages.
pub(crate) const PART: usize = 16 << 20;
/// Bytes that the kernel copies at a time.
const PIECE: usize = 256 << 10;

/// The first bytes of a mapping, as far as they lie in a file without a name. Dropped, it brings them back into memory.
pub(crate) struct Spill<'a> {
    memory: &'a Mapping,
    file: File,
    bytes: usize,
    given: usize,
}

impl<'a> Spill<'a> {
    /// Nothing is given yet of the first `bytes` of `memory`; they will go to the file system of `directory`.
    ///
    /// # Errors
    /// What that says.
    ///
    /// # Safety
    /// Nobody writes there while this lives.
    pub(crate) unsafe fn new(memory: &'a Mapping, bytes: usize, directory: &Path) -> io::Result<Spill<'a>> {
        Ok(Spill { memory, file: tempfile::tempfile_in(directory)?, bytes, given: 0 })
    }

    /// Gives at least the first `bytes`, or all there are.
    ///
    /// # Errors
    /// No room on the disk, or what else the system says. What was given stays so.
    pub(crate) fn give(&mut self, bytes: u64) -> io::Result<()> {
        while (self.given as u64) < bytes.min(self.bytes as u64) {
            let (at, part) = (self.given, PART.min(self.bytes - self.given));
            // SAFETY: nobody writes there (`new`).
            let memory = unsafe { self.memory.slice(at, part) };
            for (piece, at) in memory.chunks(PIECE).zip((at..).step_by(PIECE)) {
                self.file.write_all_at(piece, at as u64)?;
                breathe();
            }
            // Pages that are on the disk can be let go of.
            self.file.sync_data()?;
            // The file holds the same bytes, and nobody else can reach it. Whoever writes there later writes to memory.
            let there = Mapping::of_file(&self.file, at as u64, part)?;
            self.replace(at, there);
            self.given += part;
        }
        Ok(())
    }

    /// Bytes that lie in the file.
    pub(crate) fn given(&self) -> u64 {
        self.given as u64
    }

    /// They stay where they are, for as long as the mapping lives.
    pub(crate) fn stay(mut self) {
        self.given = 0;
    }

    /// Brings back the last part that was given.
    fn take_back(&mut self) -> io::Result<()> {
        let at = (self.given - 1) / PART * PART;
        let part = self.given - at;
        let mut fresh = Mapping::huge(part)?;
        for (piece, at) in fresh.as_mut()[..part].chunks_mut(PIECE).zip((at..).step_by(PIECE)) {
            self.file.read_exact_at(piece, at as u64)?;
            breathe();
        }
        self.replace(at, fresh);
        self.given = at;
        Ok(())
    }

    /// Puts `other`, which holds the same bytes, into the place of those from `at`.
    fn replace(&self, at: usize, mut other: Mapping) {
        let bytes = other.as_mut().len();
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: both ranges are whole pages of mappings of our own, or their ends, and of one length; nobody knows of `other`, and it gives up its own range.
        // The kernel does it in one step, to which any access that comes meanwhile waits.
        let moved = unsafe { mremap_fixed(other.pointer(0).cast(), bytes, bytes, flags, self.memory.pointer(at).cast()) };
        if let Err(error) = moved {
            // What was there may be gone, and who reads it would read what comes there next.
            eprintln!("memory cannot be put into its place: {error}");
            std::process::abort();
        }
        other.leak();
    }
}

impl Drop for Spill<'_> {
    fn drop(&mut self) {
        // What cannot come back stays in the file, and is what it was.
        while self.given > 0 && self.take_back().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    #[test]
    fn readers_find_the_same_bytes_whether_they_are_in_memory_or_in_the_file() {
        let bytes = 2 * PART + 12_345;
        let mut memory = Mapping::huge(bytes).unwrap();
        let byte = |at: usize| (at * 31 / 7) as u8;
        memory.as_mut().iter_mut().zip(0..).for_each(|(to, at)| *to = byte(at));
        let (dir, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
        thread::scope(|scope| {
            let (memory, stop) = (&memory, &stop);
            let reader = scope.spawn(move || {
                let (mut at, mut looks) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    at = (at + 7_654_321) % (bytes - 64);
                    // SAFETY: nobody writes.
                    let found = unsafe { memory.slice(at, 64) };
                    assert!(found.iter().zip(at..).all(|(found, at)| *found == byte(at)), "{at}");
                    looks += 1;
                }
                assert!(looks > 100, "{looks}");
            });
            for keep in [false, false, true] {
                // SAFETY: nobody writes.
                let mut spill = unsafe { Spill::new(memory, bytes, dir.path()) }.unwrap();
                spill.give(1).unwrap();
                assert_eq!(spill.given, PART);
                spill.give(u64::MAX).unwrap();
                assert_eq!(spill.given, bytes);
                if keep { spill.stay() } else { drop(spill) }
            }
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert!(memory.as_mut().iter().zip(0..).all(|(found, at)| *found == byte(at)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        // What stays in the file can be written to as memory can.
        memory.as_mut().fill(9);
        assert!(memory.as_mut().iter().all(|&found| found == 9));
    }
}
