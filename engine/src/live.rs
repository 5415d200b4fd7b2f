#![allow(unsafe_code)]
//! What is in RAM of a generation and may change while it is searched: codes of slots that come into use, how often each slot was used, and which
//! pages were written since it was opened.
//!
//! Nobody waits for anybody. A search never looks at the code of a slot that is being filled, because no edge leads there: a slot is filled only when
//! every search is over that began before the slot was freed, and edges from before then carry the tag of an earlier use. A page that a search reads
//! while it is being written fails its checksum or its stamp, and is read again.

use crate::io::{Mapping, PART, Spill};
use roxanne_core::{
    format::{FormatError, blob::BlobReader, record},
    id::NodeId,
};
use rustix::param::page_size;
use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

/// Is told before memory is taken how many bytes it will come to.
pub(crate) type MakeRoom<'a> = dyn FnMut(u64) -> Result<(), FormatError> + 'a;

/// One PQ code a node, in huge pages.
pub(crate) struct Codes {
    memory: Mapping,
    code_bytes: usize,
    n: AtomicU64,
}

impl Codes {
    /// The codes of `blob`, with room for `capacity`, of which only what is used takes memory; `make_room` is told how much that comes to, part by part.
    ///
    /// # Errors
    /// No memory, or a blob that cannot be read; what `make_room` says.
    pub(crate) fn load(blob: &BlobReader, code_bytes: usize, capacity: u64, make_room: &mut MakeRoom<'_>) -> Result<Codes, FormatError> {
        let io = |error| FormatError::Io { path: blob.path().to_path_buf(), error };
        let bytes = usize::try_from(capacity).ok().and_then(|capacity| capacity.checked_mul(code_bytes)).map(|bytes| bytes.max(1));
        let mut memory = Mapping::huge(bytes.ok_or_else(|| io(io::ErrorKind::OutOfMemory.into()))?).map_err(io)?;
        let used = usize::try_from(blob.len()).ok().filter(|&used| used <= memory.as_mut().len());
        let used = used.ok_or_else(|| io(io::ErrorKind::OutOfMemory.into()))?;
        for (part, at) in memory.as_mut()[..used].chunks_mut(PART).zip((0..).step_by(PART)) {
            make_room(at + part.len() as u64)?;
            blob.read_at(at, part)?;
        }
        Ok(Codes { memory, code_bytes, n: AtomicU64::new((used / code_bytes.max(1)) as u64) })
    }

    /// Nodes.
    #[inline]
    pub(crate) fn n(&self) -> u64 {
        // Acquire: the codes of all below it are there.
        self.n.load(Ordering::Acquire)
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.n() * self.code_bytes as u64
    }

    /// The code of a node; `None` of one that is none.
    #[inline]
    pub(crate) fn get(&self, node: NodeId) -> Option<&[u8]> {
        // SAFETY: all below `n` were set; who sets one again promises that nobody looks at it meanwhile (`set`).
        (u64::from(node.0) < self.n()).then(|| unsafe { self.memory.slice(node.index() * self.code_bytes, self.code_bytes) })
    }

    /// The codes `[from, to)` of bytes, which may begin and end within a code.
    ///
    /// # Safety
    /// Nobody sets one of them meanwhile.
    pub(crate) unsafe fn range(&self, from: usize, to: usize) -> &[u8] {
        // SAFETY: the caller's promise.
        unsafe { self.memory.slice(from, to - from) }
    }

    /// Gives all codes to a file, as they are asked for.
    ///
    /// # Errors
    /// What the file system of `directory` says.
    ///
    /// # Safety
    /// Nobody sets one meanwhile.
    pub(crate) unsafe fn spill(&self, directory: &Path) -> io::Result<Spill<'_>> {
        // SAFETY: the caller's promise.
        unsafe { Spill::new(&self.memory, self.bytes() as usize, directory) }
    }

    /// Gives the memory of all codes back to the system.
    ///
    /// # Safety
    /// Nobody looks at one, or sets one, until they are read again.
    pub(crate) unsafe fn give_back(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.memory.give_back(0, (self.bytes() as usize).next_multiple_of(page_size()).min(self.memory.len())) };
    }

    /// Reads the codes again that were given back.
    ///
    /// # Errors
    /// A blob that cannot be read.
    ///
    /// # Safety
    /// Nobody looks at one, or sets one, meanwhile.
    pub(crate) unsafe fn read_again(&self, blob: &BlobReader) -> Result<(), FormatError> {
        // SAFETY: the range is that of all codes, within the mapping (`load`), and nobody else refers to it (the caller's promise).
        let codes = unsafe { std::slice::from_raw_parts_mut(self.memory.pointer(0), self.bytes() as usize) };
        blob.read_at(0, codes)
    }

    /// Sets the code of a node, which may lie beyond the last.
    ///
    /// # Safety
    /// No search looks at the code of `node`, now or before the call has returned: it is not below `n`, or its slot was freed before every search
    /// began that is under way. And nobody else sets codes.
    pub(crate) unsafe fn set(&self, node: NodeId, code: &[u8]) {
        assert_eq!(code.len(), self.code_bytes, "a code of another length");
        let at = node.index() * self.code_bytes;
        // SAFETY: no slice of these bytes exists (the caller's promise), nobody else writes them, and the range was proven to lie within the
        // mapping (`slice` asserts it).
        unsafe {
            let length = self.memory.slice(at, code.len()).len();
            std::ptr::copy_nonoverlapping(code.as_ptr(), self.memory.pointer(at), length);
        }
    }

    /// There are `n` nodes now, all of whose codes were set.
    pub(crate) fn grow(&self, n: u64) {
        self.n.fetch_max(n, Ordering::Release);
    }
}

/// Uses of slots and stamps of pages of a generation that is changed in place.
pub(crate) struct Live {
    /// With `FREE` while no node is in the slot.
    generations: Vec<AtomicU8>,
    /// Of each page, the number of the last change that wrote it since opening: 0 for none.
    stamps: Vec<AtomicU64>,
}

/// No edge leads to a slot in which no node is, whatever its tag.
const FREE: u8 = 1 << 7;

impl Live {
    /// Nodes that there is room for.
    pub(crate) fn capacity(&self) -> u64 {
        self.generations.len() as u64
    }

    /// Bytes of it.
    pub(crate) fn bytes(capacity: u64, pages: u64) -> u64 {
        capacity + 8 * pages
    }

    /// All slots in their first use, and no page written. Memory comes into being where it is first written to.
    ///
    /// # Errors
    /// Not so much memory.
    pub(crate) fn new(capacity: u64, pages: u64) -> io::Result<Live> {
        let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let [capacity, pages] = [capacity, pages].map(usize::try_from);
        Ok(Live {
            generations: bytemuck::try_zeroed_vec(capacity.map_err(|_| no_memory())?).map_err(|()| no_memory())?,
            stamps: bytemuck::try_zeroed_vec(pages.map_err(|_| no_memory())?).map_err(|()| no_memory())?,
        })
    }

    /// Whether an edge with this tag is one to the node that is in the slot now.
    #[inline]
    pub(crate) fn is_current(&self, node: NodeId, tag: u8) -> bool {
        self.generations.get(node.index()).map(|generation| generation.load(Ordering::Acquire)).is_some_and(|state| {
            // Tags come round; a slot that is being filled is named by no edge at all.
            record::tag(state) == tag && state & FREE == 0
        })
    }

    /// The number of the slot's use.
    pub(crate) fn generation(&self, node: NodeId) -> u8 {
        self.generations.get(node.index()).map_or(0, |generation| generation.load(Ordering::Acquire) & !FREE)
    }

    /// A node has left its slot, whose next use is number `generation`.
    pub(crate) fn leave(&self, node: NodeId, generation: u8) {
        self.set_generation(node, generation | FREE);
    }

    /// A node is in the slot, in its use number `generation`.
    pub(crate) fn set_generation(&self, node: NodeId, generation: u8) {
        if let Some(place) = self.generations.get(node.index()) {
            place.store(generation, Ordering::Release);
        }
    }

    /// Whether a page with this number of its last change is as new as what was written last, or newer.
    pub(crate) fn is_fresh(&self, page: u64, lsn: u64) -> bool {
        lsn >= usize::try_from(page).ok().and_then(|page| self.stamps.get(page)).map_or(0, |last| last.load(Ordering::Acquire))
    }

    /// The page was written by this change; whatever was read of it before is stale.
    pub(crate) fn wrote(&self, page: u64, lsn: u64) {
        if let Some(last) = usize::try_from(page).ok().and_then(|page| self.stamps.get(page)) {
            last.store(lsn, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_older_than_its_last_writer_is_stale() {
        let live = Live::new(10, 3).unwrap();
        assert!(live.is_fresh(0, 0) && live.is_fresh(0, 9) && live.is_fresh(99, 1));
        for lsn in (1..2000).step_by(7) {
            live.wrote(1, lsn);
            assert!(live.is_fresh(1, lsn) && live.is_fresh(1, lsn + 1) && live.is_fresh(1, lsn + 100), "{lsn}");
            assert!((1..=lsn).all(|back| !live.is_fresh(1, lsn - back)), "{lsn}");
        }
    }

    #[test]
    fn an_edge_to_an_earlier_use_is_none() {
        let live = Live::new(4, 1).unwrap();
        assert!(live.is_current(NodeId(3), 0) && !live.is_current(NodeId(4), 0));
        live.set_generation(NodeId(3), 1);
        assert!(!live.is_current(NodeId(3), 0) && live.is_current(NodeId(3), 1));
        live.leave(NodeId(3), 4);
        assert!((0..4).all(|tag| !live.is_current(NodeId(3), tag)) && live.generation(NodeId(3)) == 4);
    }
}
