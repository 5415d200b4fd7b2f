//! Reading and writing past the page cache, beside the computing.
//!
//! The files of a sharded build are as large as its input, are read once and never again, and the page cache would charge them to the memory
//! that the build may have. So they pass it by (O_DIRECT, where the file system has it): one thread writes while the next buffer is filled,
//! and one a file reads ahead. The road not taken: plain writes with `fadvise(DONTNEED)` after them. Such writes wait for nobody, but what is
//! dirty counts as the build's memory until the kernel finds time to write it, and under a memory cgroup that stalls allocations.

use crate::BuildError;
use bytemuck::{Pod, Zeroable};
use roxanne_core::format::FormatError;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

/// Unit of alignment, of memory and of places in a file: no device asks for more.
pub(super) const BLOCK: usize = 4096;
/// Buffers that wait for the disk at most, beside the one that it works on.
pub(super) const WAITING: usize = 2;

#[repr(C, align(4096))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block([u8; BLOCK]);

/// Memory that the disk can write from and read into.
#[derive(Default)]
pub(super) struct Blocks(Vec<Block>);

impl Blocks {
    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    /// At least so many bytes; what was there stays.
    pub(super) fn grow(&mut self, bytes: usize) {
        if self.0.len() < bytes.div_ceil(BLOCK) {
            self.0.resize(bytes.div_ceil(BLOCK), Block::zeroed());
        }
    }
}

/// What went to and from the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Bytes read from files of the build; the input is not among them.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Seconds in which some thread waited for the disk, summed over threads.
    pub busy_seconds: f64,
}

#[derive(Default)]
struct Meter {
    read: AtomicU64,
    written: AtomicU64,
    busy_us: AtomicU64,
}

impl Meter {
    fn timed<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let start = Instant::now();
        let outcome = work();
        self.busy_us.fetch_add(start.elapsed().as_micros() as u64, Relaxed);
        outcome
    }
}

/// A file that is open for the disk's thread.
pub(super) struct Target {
    file: File,
    path: PathBuf,
}

impl Target {
    /// Opens or creates `path` to write; what is in it stays.
    pub(super) fn open(path: &Path) -> Result<Arc<Target>, BuildError> {
        let file = open_direct(OpenOptions::new().write(true).create(true).truncate(false), path).map_err(super::io(path))?;
        Ok(Arc::new(Target { file, path: path.to_path_buf() }))
    }

    /// Opens `path` to read.
    pub(super) fn open_to_read(path: &Path) -> Result<Target, BuildError> {
        let file = open_direct(OpenOptions::new().read(true), path).map_err(super::io(path))?;
        Ok(Target { file, path: path.to_path_buf() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, error: io::Error) -> FormatError {
        FormatError::Io { path: self.path.clone(), error }
    }

    /// All that was written lies on the disk, once [`Disk::settle`] has returned.
    pub(super) fn sync(&self) -> Result<(), BuildError> {
        Ok(self.file.sync_data().map_err(|error| self.failed(error))?)
    }

    /// The file ends at `bytes`.
    pub(super) fn end_at(&self, bytes: u64) -> Result<(), BuildError> {
        Ok(self.file.set_len(bytes).map_err(|error| self.failed(error))?)
    }
}

/// Opens past the page cache where the file system allows it.
fn open_direct(options: &OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    match options.clone().custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32).open(path) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {}
        opened => return opened,
    }
    options.open(path)
}

enum Job {
    Write { target: Arc<Target>, offset: u64, blocks: Blocks, bytes: usize },
    Answer(SyncSender<()>),
}

/// The thread that writes, and what it has moved.
pub(super) struct Disk {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    link: Arc<Link>,
}

/// What the threads of a build's disk share.
#[derive(Default)]
pub(super) struct Link {
    meter: Meter,
    /// Buffers that are of no use to anybody just now.
    free: Mutex<Vec<Blocks>>,
    /// After an error nothing more is written; the first is told.
    failed: AtomicBool,
    error: Mutex<Option<FormatError>>,
}

impl Disk {
    pub(super) fn new() -> Result<Disk, BuildError> {
        let link = Arc::new(Link::default());
        let (jobs, work) = sync_channel(WAITING);
        let its = link.clone();
        let thread = thread::Builder::new().name("disk".into()).spawn(move || its.write_all(&work));
        Ok(Disk { jobs: Some(jobs), thread: Some(thread.map_err(|e| BuildError::Threads(e.to_string()))?), link })
    }

    /// A buffer of at least so many bytes, of any content.
    pub(super) fn buffer(&self, bytes: usize) -> Blocks {
        let mut blocks = self.link.free_buffer();
        blocks.grow(bytes);
        blocks
    }

    /// Writes the first `bytes` of `blocks`, rounded up to whole blocks, at `offset`; returns before that is done.
    pub(super) fn write(&self, target: &Arc<Target>, offset: u64, blocks: Blocks, bytes: usize) -> Result<(), BuildError> {
        self.send(Job::Write { target: target.clone(), offset, blocks, bytes: bytes.next_multiple_of(BLOCK) })
    }

    /// Returns when all that was given to [`write`](Disk::write) is written.
    pub(super) fn settle(&self) -> Result<(), BuildError> {
        let (answer, settled) = sync_channel(1);
        self.send(Job::Answer(answer))?;
        let _ = settled.recv();
        self.link.outcome()
    }

    fn send(&self, job: Job) -> Result<(), BuildError> {
        self.link.outcome()?;
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job).is_ok());
        if sent == Some(true) { Ok(()) } else { Err(BuildError::Threads("the disk's thread has ended".into())) }
    }

    /// For threads that read.
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// So far.
    pub(super) fn traffic(&self) -> Traffic {
        let meter = &self.link.meter;
        Traffic {
            read_bytes: meter.read.load(Relaxed),
            written_bytes: meter.written.load(Relaxed),
            busy_seconds: meter.busy_us.load(Relaxed) as f64 / 1e6,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Link {
    fn free(&self) -> MutexGuard<'_, Vec<Blocks>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of any size and content.
    pub(super) fn free_buffer(&self) -> Blocks {
        self.free().pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&self, blocks: Blocks) {
        self.free().push(blocks);
    }

    /// Fills `out` with what is in a file at byte `at`, both of whole blocks; `None` where the file ends before.
    pub(super) fn read(&self, target: &Target, out: &mut [u8], at: u64) -> Result<Option<()>, FormatError> {
        match self.meter.timed(|| target.file.read_exact_at(out, at)) {
            Ok(()) => {
                self.meter.read.fetch_add(out.len() as u64, Relaxed);
                Ok(Some(()))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(target.failed(error)),
        }
    }

    fn write_all(&self, work: &Receiver<Job>) {
        for job in work {
            match job {
                Job::Write { target, offset, blocks, bytes } => {
                    if !self.failed.load(Relaxed) {
                        match self.meter.timed(|| target.file.write_all_at(&blocks.bytes()[..bytes], offset)) {
                            Ok(()) => drop(self.meter.written.fetch_add(bytes as u64, Relaxed)),
                            Err(error) => {
                                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(target.failed(error));
                                self.failed.store(true, Relaxed);
                            }
                        }
                    }
                    self.give_back(blocks);
                }
                Job::Answer(answer) => drop(answer.send(())),
            }
        }
    }

    fn outcome(&self) -> Result<(), BuildError> {
        if !self.failed.load(Relaxed) {
            return Ok(());
        }
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(error.map_or_else(|| BuildError::Threads("an earlier write failed".into()), BuildError::Format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_is_told_once_and_ends_all_writing() {
        let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else { return };
        let disk = Disk::new().unwrap();
        let target = Arc::new(Target { file: full, path: "full".into() });
        disk.write(&target, 0, disk.buffer(BLOCK), BLOCK).unwrap();
        let error = disk.settle().unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        assert!(disk.write(&target, 0, disk.buffer(BLOCK), BLOCK).is_err());
    }
}
