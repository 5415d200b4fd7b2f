//! Reads of whole pages from flash into buffers that the reader owns.
//!
//! A search is as fast as its reads are few and its device is never idle. So reads are queued one by one, handed to the kernel
//! together, and come back in any order, each with the tag it was queued under; whoever gets one may queue the next before waiting
//! again. Two readers keep this promise: `uring` (one ring a thread, one system call for many reads) and `pread` (a pool of
//! threads, for containers that forbid io_uring). They answer alike: a page is handed out whole or with an error that names it,
//! never short, never silently torn by the reader. What is *in* a page is checked above, by its checksum.

mod attempt;
mod buffer;
pub(crate) mod cache;
#[cfg(any(test, feature = "faulty"))]
pub mod faulty;
mod file;
mod pread;
mod spill;
#[cfg(test)]
mod suite;
mod uring;

pub use buffer::AlignedBuf;
pub(crate) use buffer::Mapping;
pub use file::{OpenPagesError, PageFile, drop_page_cache};
pub(crate) use spill::{PART, Spill};

use std::{
    io,
    path::Path,
    sync::{Arc, OnceLock},
};

/// The most reads one reader may have in flight. A device is saturated by far fewer, and it bounds the memory: 256 MiB of 64 KiB pages.
pub const MAX_CAPACITY: usize = 4096;

/// Reads pages of one file. One reader belongs to one thread at a time; it may be handed to another when nothing is in flight.
pub trait NodeReader: Send {
    /// The most reads in flight.
    fn capacity(&self) -> usize;

    /// Reads that were submitted and not yet handed out.
    fn in_flight(&self) -> usize;

    /// Queues a read of page `page`; `tag` comes back with its completion. The kernel may not see it before the next `wait` or `poll`.
    ///
    /// # Errors
    /// `QueueFull` when `in_flight() == capacity()`, `PastEnd` for a page that the file does not have; nothing is queued then.
    fn submit(&mut self, page: u64, tag: u64) -> Result<(), ReadError>;

    /// Starts what is queued, waits until at least one read has ended, and hands every ended one to `done`, in any order. Returns how
    /// many; 0 only when nothing is in flight.
    ///
    /// # Errors
    /// Those of the reader as a whole. What went wrong with one page comes in its `Completion`.
    fn wait(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> Result<usize, ReadError>;

    /// As [`NodeReader::wait`], without waiting: starts what is queued and hands out what has ended already. For a caller that has
    /// other work and wants the device to be busy meanwhile.
    ///
    /// # Errors
    /// As `wait`.
    fn poll(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> Result<usize, ReadError>;

    /// The way it reads, "io_uring" or "pread", for reports.
    fn kind(&self) -> &'static str;
}

/// One read that has ended.
#[derive(Debug)]
pub struct Completion<'a> {
    /// As given to `submit`.
    pub tag: u64,
    /// As given to `submit`.
    pub page: u64,
    /// The whole page, `page_bytes` long, valid during the call only, or why it could not be read.
    pub bytes: Result<&'a [u8], ReadError>,
}

/// Why a page, or any page, could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// As many reads as the reader takes are in flight.
    #[error("all {capacity} reads of this reader are in flight; wait for one before the next is submitted")]
    QueueFull {
        /// Reads that fit.
        capacity: usize,
    },
    /// The page lies outside the file's pages.
    #[error(
        "{path}: page {page} was asked for, but there are only {page_count}; the index is damaged or its files are of different builds"
    )]
    PastEnd {
        /// The file.
        path: Arc<Path>,
        /// The page asked for.
        page: u64,
        /// Pages of the file.
        page_count: u64,
    },
    /// The file ended within the page: it was cut after it was opened.
    #[error(
        "{path}: the file ends within page {page}: {got} of {expected} bytes at offset {offset}; it was cut while \
         open, restore it from a copy"
    )]
    UnexpectedEnd {
        /// The file.
        path: Arc<Path>,
        /// The page.
        page: u64,
        /// Where the page begins in the file.
        offset: u64,
        /// Bytes of a page.
        expected: usize,
        /// Bytes that were there.
        got: usize,
    },
    /// The kernel or the drive refused the read, and a second attempt did not help.
    #[error(
        "{path}: page {page} ({bytes} bytes at offset {offset}) cannot be read: {}; `dmesg` shows what \
         the drive says; if it stays so, restore the file from a copy",
        io::Error::from_raw_os_error(*errno)
    )]
    Device {
        /// The file.
        path: Arc<Path>,
        /// The page.
        page: u64,
        /// Where the page begins in the file.
        offset: u64,
        /// Bytes of a page.
        bytes: usize,
        /// The operating system's number of the error, such as 5 for EIO.
        errno: i32,
    },
    /// The ring itself failed while reads were submitted or awaited.
    #[error("io_uring failed: {}; open the reader anew, or set ROXANNE_IO=pread", io::Error::from_raw_os_error(*errno))]
    Ring {
        /// The operating system's number of the error.
        errno: i32,
    },
    /// The ring belongs to the thread that began these reads.
    #[error("{in_flight} reads were begun on another thread; wait for them there before the reader moves")]
    WrongThread {
        /// Reads in flight.
        in_flight: usize,
    },
    /// A reader could not be made.
    #[error(
        "{kind} reader: {step} failed: {}; open fewer or smaller readers, raise `ulimit -l` (memory) or `ulimit -u` (threads), or \
         choose the other kind with ROXANNE_IO=io_uring|pread",
        io::Error::from_raw_os_error(*errno)
    )]
    Setup {
        /// The reader's kind.
        kind: &'static str,
        /// What was tried.
        step: &'static str,
        /// The operating system's number of the error.
        errno: i32,
    },
    /// A capacity that no reader has.
    #[error("a reader for {asked} reads in flight was asked for; it takes 1 to {MAX_CAPACITY}")]
    Capacity {
        /// Reads asked for.
        asked: usize,
    },
    /// `ROXANNE_IO` holds a word nobody knows.
    #[error("ROXANNE_IO is \"{value}\"; it may be io_uring or pread, or unset for the better of the two")]
    UnknownKind {
        /// What it holds.
        value: String,
    },
}

impl ReadError {
    fn setup(kind: &'static str, step: &'static str, error: &io::Error) -> ReadError {
        ReadError::Setup { kind, step, errno: error.raw_os_error().unwrap_or(0) }
    }
}

/// Which reader to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReaderKind {
    /// What the environment variable `ROXANNE_IO` says; without it io_uring where the system allows it, else pread.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// The pool of threads.
    Pread,
}

/// Opens a reader of `file` for `capacity` reads in flight (1 to [`MAX_CAPACITY`]). It owns `capacity * page_bytes` of memory.
///
/// # Errors
/// `Capacity`, `UnknownKind`, and `Setup` when neither ring, memory nor threads are to be had. `Auto` falls back to pread when a ring
/// cannot be made; [`NodeReader::kind`] tells.
pub fn open_reader(file: &Arc<PageFile>, kind: ReaderKind, capacity: usize) -> Result<Box<dyn NodeReader>, ReadError> {
    if !(1..=MAX_CAPACITY).contains(&capacity) {
        return Err(ReadError::Capacity { asked: capacity });
    }
    let kind = match kind {
        ReaderKind::Auto => kind_from(std::env::var_os("ROXANNE_IO").map(|v| v.to_string_lossy().into_owned()))?,
        chosen => chosen,
    };
    match kind {
        ReaderKind::Auto if io_uring_works() => match uring::UringReader::new(file, capacity) {
            Ok(reader) => Ok(Box::new(reader)),
            Err(_) => Ok(Box::new(pread::PreadReader::new(file, capacity)?)),
        },
        ReaderKind::IoUring => Ok(Box::new(uring::UringReader::new(file, capacity)?)),
        ReaderKind::Auto | ReaderKind::Pread => Ok(Box::new(pread::PreadReader::new(file, capacity)?)),
    }
}

/// The kind that `ROXANNE_IO` holding `value` asks for.
fn kind_from(value: Option<String>) -> Result<ReaderKind, ReadError> {
    match value.as_deref() {
        None | Some("") => Ok(ReaderKind::Auto),
        Some("io_uring") => Ok(ReaderKind::IoUring),
        Some("pread") => Ok(ReaderKind::Pread),
        Some(other) => Err(ReadError::UnknownKind { value: other.to_string() }),
    }
}

/// Whether io_uring serves this process; asked once.
fn io_uring_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| probe_io_uring().is_ok())
}

/// Tries a ring with one empty operation.
///
/// # Errors
/// Why io_uring cannot be used here and what would allow it, as a sentence for `roxanne doctor`.
pub fn probe_io_uring() -> Result<(), String> {
    uring::probe()
}
