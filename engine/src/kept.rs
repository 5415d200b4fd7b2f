//! What an index keeps in RAM beside its codes, from what its budget leaves: nothing, a cache of pages, or all of them; and, where it was asked
//! for, every node's neighbors.

use crate::{
    OpenError,
    io::{AlignedBuf, PageFile, cache::PageCache},
    live_pages::Pages,
};
use roxanne_core::{
    aside::{breathe, on_threads},
    format::{FormatError, record::RecordLayout},
    id::NodeId,
};
use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

/// Proves that bytes are the page of that number, and all in it; gives its records.
pub(crate) type Check<'a> = &'a (dyn Fn(u64, &[u8]) -> Result<usize, FormatError> + Sync);

/// Pages that are read in one call while all are loaded.
const PAGES_AT_ONCE: u64 = 256;

/// Threads that fill a cache: they wait for the device and do little else.
const WARMING_THREADS: usize = 16;

/// Why pages are not in RAM.
enum LoadError {
    Memory(io::Error),
    Open(OpenError),
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> LoadError {
        LoadError::Memory(error)
    }
}

/// Pages in RAM.
pub(crate) enum Kept {
    Nothing,
    Some(PageCache),
    All(Pages),
}

impl Kept {
    /// All pages of `file`, each judged by `check`, and room for those below `room` to be written.
    pub(crate) fn all(file: &PageFile, room: u64, check: Check<'_>) -> Result<Kept, OpenError> {
        let (page_bytes, page_count) = (file.page_bytes(), file.page_count());
        if page_count == 0 {
            return Ok(Kept::Nothing);
        }
        let load = |all: &mut [u8]| -> Result<(), LoadError> {
            let parts = Mutex::new(all.chunks_mut(PAGES_AT_ONCE as usize * page_bytes).enumerate());
            let work = || -> Result<(), OpenError> {
                loop {
                    let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((part, memory)) = next else { return Ok(()) };
                    let first = part as u64 * PAGES_AT_ONCE;
                    file.read_pages_blocking(first, memory)?;
                    for (page, bytes) in (first..).zip(memory.chunks_exact(page_bytes)) {
                        check(page, bytes)?;
                        breathe();
                    }
                }
            };
            on_threads(thread::available_parallelism().map_or(1, usize::from), &work).map_err(LoadError::Open)
        };
        match Pages::load(page_count, room, page_bytes, load) {
            Ok(pages) => Ok(Kept::All(pages)),
            Err(LoadError::Open(error)) => Err(error),
            Err(LoadError::Memory(error)) => Err(FormatError::Io { path: file.path().to_path_buf(), error }.into()),
        }
    }

    /// A cache of `frames` pages of `file`, which may come to have `room` of them, filled with those that `counts` says are wanted most, as far as
    /// they pass `check`.
    pub(crate) fn some(file: &PageFile, room: u64, frames: u64, counts: Option<&[u8]>, check: Check<'_>) -> Result<Kept, OpenError> {
        let io = |error| FormatError::Io { path: file.path().to_path_buf(), error };
        let frames = usize::try_from(frames).map_err(|_| io(std::io::ErrorKind::OutOfMemory.into()))?;
        let cache = PageCache::new(frames, file.page_bytes(), room).map_err(io)?;
        let Some(counts) = counts else { return Ok(Kept::Some(cache)) };
        cache.remember(counts);
        let mut wanted: Vec<u32> = (0..counts.len() as u32).filter(|&page| counts[page as usize] > 0).collect();
        wanted.sort_unstable_by_key(|&page| std::cmp::Reverse(counts[page as usize]));
        wanted.truncate(frames);
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), OpenError> {
            let mut buffer = AlignedBuf::new(file.page_bytes()).map_err(io)?;
            while let Some(&page) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                file.read_page_blocking(u64::from(page), &mut buffer)?;
                check(u64::from(page), &buffer)?;
                cache.offer(u64::from(page), &buffer);
                breathe();
            }
            Ok(())
        };
        on_threads(WARMING_THREADS, &work)?;
        Ok(Kept::Some(cache))
    }

    /// Bytes of it.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Kept::Nothing => 0,
            Kept::Some(cache) => cache.total_bytes(),
            Kept::All(pages) => pages.bytes(),
        }
    }
}

/// The neighbors of every node, packed as they are on disk.
pub(crate) struct Adjacency {
    /// `degree u16 | packed neighbors`, a node.
    rows: Vec<u8>,
}

impl Adjacency {
    fn row_bytes(layout: &RecordLayout) -> usize {
        2 + layout.packed_bytes()
    }

    /// Bytes it takes for `n` nodes.
    pub(crate) fn bytes(layout: &RecordLayout, n: u64) -> u64 {
        n * Adjacency::row_bytes(layout) as u64
    }

    /// Reads every page of `file` once.
    pub(crate) fn read(file: &PageFile, layout: &RecordLayout, n: u64, check: Check<'_>) -> Result<Adjacency, OpenError> {
        let io = |error| FormatError::Io { path: file.path().to_path_buf(), error };
        let mut rows = Vec::new();
        let bytes = usize::try_from(Adjacency::bytes(layout, n)).map_err(|_| io(std::io::ErrorKind::OutOfMemory.into()))?;
        rows.try_reserve_exact(bytes).map_err(|_| io(std::io::ErrorKind::OutOfMemory.into()))?;
        let mut buffer = AlignedBuf::new(PAGES_AT_ONCE as usize * layout.page_bytes).map_err(io)?;
        for first in (0..file.page_count()).step_by(PAGES_AT_ONCE as usize) {
            let count = PAGES_AT_ONCE.min(file.page_count() - first) as usize;
            let part = &mut buffer[..count * layout.page_bytes];
            file.read_pages_blocking(first, part)?;
            for (number, page) in (first..).zip(part.chunks_exact(layout.page_bytes)) {
                for slot in 0..check(number, page)? {
                    let (degree, packed) = layout.record(page, slot).packed();
                    rows.extend_from_slice(&degree.to_le_bytes());
                    rows.extend_from_slice(&packed[..layout.packed_bytes()]);
                }
                breathe();
            }
        }
        Ok(Adjacency { rows })
    }

    /// Appends the neighbors of `node`, which were checked when they were read.
    #[inline]
    pub(crate) fn neighbors(&self, layout: &RecordLayout, n: u64, node: NodeId, out: &mut Vec<NodeId>) {
        let width = Adjacency::row_bytes(layout);
        let row = &self.rows[node.index() * width..][..width];
        let _ = layout.unpack(u16::from_le_bytes([row[0], row[1]]), &row[2..], n, out);
    }
}

/// The part of a budget that searchers are made from.
#[derive(Debug)]
pub(crate) struct Allowance(AtomicU64);

impl Allowance {
    pub(crate) fn new(bytes: u64) -> Allowance {
        Allowance(AtomicU64::new(bytes))
    }

    /// Takes `bytes`; gives what is left where that is too little.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), u64> {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).map(|_| ())
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}
