#![allow(unsafe_code)]
//! Memory for direct reads: whole pages of the machine, from an anonymous mapping, so that the drive can write into them.

use rustix::{
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap},
    param::page_size,
};
use std::{
    fs::File,
    io,
    ops::{Deref, DerefMut},
    ptr::{NonNull, null_mut},
};

/// Memory that the kernel writes into while we hold no reference to it. Zeroed at first, page-aligned, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory of this process, bound to no thread, and `Mapping` is its only owner.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` memory is reached only by `slice`, whose caller promises that nobody writes there.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` (more than 0) of zeros.
    pub(crate) fn new(bytes: usize) -> io::Result<Mapping> {
        // SAFETY: no address is asked for, so no existing mapping can be replaced.
        let base = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, bytes })
    }

    /// The same in huge pages, where the kernel has them to give.
    pub(crate) fn huge(bytes: usize) -> io::Result<Mapping> {
        let mapping = Mapping::new(bytes)?;
        // SAFETY: the range is our own mapping, and this advice changes neither content nor rights. An error means no huge pages.
        let _ = unsafe { madvise(mapping.base.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        Ok(mapping)
    }

    /// `bytes` bytes of `file` from `offset`, a whole number of pages, to be read from anywhere; what is written there stays in memory.
    pub(crate) fn of_file(file: &File, offset: u64, bytes: usize) -> io::Result<Mapping> {
        // SAFETY: no address is asked for, so no existing mapping can be replaced.
        let base = unsafe { mmap(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE, file, offset) }?;
        let base: NonNull<u8> = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the range is our own mapping, and this advice changes neither content nor rights. An error means that more is read than is wanted.
        let _ = unsafe { madvise(base.as_ptr().cast(), bytes, Advice::Random) };
        Ok(Mapping { base, bytes })
    }

    /// Where byte `at` lies.
    pub(crate) fn pointer(&self, at: usize) -> *mut u8 {
        assert!(at <= self.bytes, "byte {at} of a mapping of {}", self.bytes);
        // SAFETY: `at` is within the mapping or one past it (asserted above), and a mapping is shorter than isize::MAX.
        unsafe { self.base.as_ptr().add(at) }
    }

    /// `bytes` bytes from `at`.
    ///
    /// # Safety
    /// Nobody, the kernel included, writes there while the slice lives.
    pub(crate) unsafe fn slice(&self, at: usize, bytes: usize) -> &[u8] {
        assert!(bytes <= self.bytes && at <= self.bytes - bytes, "bytes {at} + {bytes} of a mapping of {}", self.bytes);
        // SAFETY: the range lies within the mapping (asserted above), which lives as long as `self` and was zeroed by the kernel;
        // that nobody writes there is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at), bytes) }
    }

    /// No more huge pages than there are: holes in them stay holes.
    pub(crate) fn keep_small(&self) {
        // SAFETY: the range is our own mapping, and this advice changes neither content nor rights.
        let _ = unsafe { madvise(self.base.as_ptr().cast(), self.bytes, Advice::LinuxNoHugepage) };
    }

    /// Gives the memory of `bytes` bytes from `at` back to the system, where both are whole pages of it. What is read there then is zeros.
    ///
    /// # Safety
    /// Nobody looks there, now or ever again.
    pub(crate) unsafe fn give_back(&self, at: usize, bytes: usize) {
        assert!(bytes <= self.len() && at <= self.len() - bytes, "bytes {at} + {bytes} of a mapping of {}", self.bytes);
        // The system rounds a length up: what is no page of its own would take its neighbors along.
        if !at.is_multiple_of(page_size()) || !bytes.is_multiple_of(page_size()) {
            return;
        }
        // SAFETY: the range is our own mapping's (asserted above) and nobody's any more (the caller's promise). An error leaves it as it is.
        let _ = unsafe { madvise(self.pointer(at).cast(), bytes, Advice::LinuxDontNeed) };
    }

    /// All of it, for its only user.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the whole mapping, alive as long as `self`, initialised by the kernel with zeros; `&mut self` makes us its only user.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }

    /// Bytes of it, to the end of its last page.
    pub(crate) fn len(&self) -> usize {
        self.bytes.next_multiple_of(page_size())
    }

    /// Leaves the memory mapped for ever, for when the kernel may still write into it.
    pub(crate) fn leak(&mut self) {
        self.bytes = 0;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: `base` and `bytes` are those of our own mapping (`new`), and nothing borrows from `self` any more. An error
            // could only mean that this is not so; then the memory stays mapped, which harms nobody.
            let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        }
    }
}

/// A buffer for one page or more, aligned for direct reads.
#[derive(Debug)]
pub struct AlignedBuf {
    mapping: Mapping,
}

impl AlignedBuf {
    /// A buffer of `bytes` (more than 0) zeros.
    ///
    /// # Errors
    /// The operating system's, when there is no memory, or for 0 bytes.
    pub fn new(bytes: usize) -> io::Result<AlignedBuf> {
        Ok(AlignedBuf { mapping: Mapping::new(bytes)? })
    }

    /// The same in huge pages, where the kernel has them to give.
    ///
    /// # Errors
    /// As [`AlignedBuf::new`].
    pub fn huge(bytes: usize) -> io::Result<AlignedBuf> {
        Ok(AlignedBuf { mapping: Mapping::huge(bytes)? })
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: an AlignedBuf's memory is written through `&mut self` only (`deref_mut`), which cannot exist beside `&self`.
        unsafe { self.mapping.slice(0, self.mapping.bytes) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.mapping.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_page_aligned_and_writable() {
        for bytes in [4096, 12288, 65536] {
            let mut buf = AlignedBuf::new(bytes).unwrap();
            assert_eq!((buf.len(), buf.as_ptr() as usize % 4096), (bytes, 0));
            assert!(buf.iter().all(|&b| b == 0));
            buf[bytes - 1] = 7;
            assert_eq!(buf[bytes - 1], 7);
        }
    }

    #[test]
    fn a_buffer_of_nothing_is_refused() {
        assert!(AlignedBuf::new(0).is_err());
    }
}
