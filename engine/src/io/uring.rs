#![allow(unsafe_code)]
//! Page reads by io_uring: one ring a reader, many reads for one system call, no thread of ours.
//!
//! The ring is made with SINGLE_ISSUER and DEFER_TASKRUN where the kernel has them (6.1), and binds itself to the thread that first
//! waits: it is made disabled, and enabled there. A reader that has moved since gets a new ring, provided that the kernel holds none
//! of its reads. The file is registered, the buffers too where the memory lock limit allows it.
//!
//! No SQPOLL: on two cores its polling thread took the reads from 78,000 a second to 5,000.

use super::{
    Completion, MAX_CAPACITY, NodeReader, PageFile, ReadError,
    attempt::{Attempt, Next},
    buffer::Mapping,
};
use io_uring::{IoUring, Probe, cqueue, opcode, types};
use rustix::io::Errno;
use std::{
    fs, io,
    io::IoSliceMut,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    thread::{self, ThreadId},
    time::Duration,
};

const KIND: &str = "io_uring";
/// The file's place in the ring's table of files, and the buffers' in its table of buffers.
const REGISTERED: u32 = 0;

/// A ring over one file, and what the kernel granted it.
struct Ring {
    uring: IoUring,
    /// SINGLE_ISSUER is on: the kernel takes calls from one thread only.
    bound: bool,
    /// The thread that enabled it.
    owner: Option<ThreadId>,
    buffers_registered: bool,
}

/// One buffer and the read it serves.
#[derive(Clone, Copy, Default)]
struct Slot {
    tag: u64,
    page: u64,
    page_offset: u64,
    attempt: Attempt,
}

/// See the module.
pub(crate) struct UringReader {
    // Fields drop in this order: the ring before the memory that it writes into.
    ring: Ring,
    /// Slot s owns bytes `s * page_bytes` to `(s + 1) * page_bytes`.
    buffers: Mapping,
    file: Arc<PageFile>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl UringReader {
    /// `capacity` is 1 to `MAX_CAPACITY`.
    pub(crate) fn new(file: &Arc<PageFile>, capacity: usize) -> Result<UringReader, ReadError> {
        assert!((1..=MAX_CAPACITY).contains(&capacity), "a ring of {capacity} reads");
        let buffers = Mapping::huge(capacity * file.page_bytes()).map_err(|e| ReadError::setup(KIND, "mapping buffers", &e))?;
        let ring = Ring::new(file, &buffers, capacity)?;
        let free = (0..capacity as u32).rev().collect();
        Ok(UringReader { ring, buffers, file: file.clone(), slots: vec![Slot::default(); capacity], free })
    }

    /// Puts the next request of slot `slot` into the submission queue.
    fn push(&mut self, slot: u32) {
        let read = &self.slots[slot as usize];
        let start = read.attempt.start();
        let target = self.buffers.pointer(slot as usize * self.file.page_bytes() + start);
        let bytes = (self.file.page_bytes() - start) as u32;
        let offset = read.page_offset + start as u64;
        let file = types::Fixed(REGISTERED);
        let entry = if self.ring.buffers_registered {
            opcode::ReadFixed::new(file, target, bytes, REGISTERED as u16).offset(offset).build()
        } else {
            opcode::Read::new(file, target, bytes).offset(offset).build()
        };
        // SAFETY: the kernel writes into bytes `target .. target + bytes`, the rest of slot `slot`. They belong to `self.buffers`,
        // which outlives the request (`drop` waits for it, or leaks the memory). The slot left `self.free` in `submit` and goes back
        // in `reap` after its completion, and only then is the memory read; nothing else writes there.
        let pushed = unsafe { self.ring.uring.submission().push(&entry.user_data(u64::from(slot))) };
        assert!(pushed.is_ok(), "a slot has one request at most and the queue has room for all slots");
    }

    /// Requests that the kernel has not seen.
    fn queued(&mut self) -> usize {
        self.ring.uring.submission().len()
    }

    /// Makes the ring this thread's.
    fn claim(&mut self) -> Result<(), ReadError> {
        let me = thread::current().id();
        if !self.ring.bound || self.ring.owner == Some(me) {
            return Ok(());
        }
        if self.ring.owner.is_some() {
            let in_flight = self.in_flight();
            if self.queued() < in_flight {
                return Err(ReadError::WrongThread { in_flight });
            }
            // All reads are still in our queue: the kernel knows nothing of them, so they can go into another ring.
            self.ring = Ring::new(&self.file, &self.buffers, self.slots.len())?;
            for slot in (0..self.slots.len() as u32).filter(|s| !self.free.contains(s)).collect::<Vec<_>>() {
                self.push(slot);
            }
        }
        if self.ring.bound {
            self.ring.uring.submitter().register_enable_rings().map_err(|e| ReadError::setup(KIND, "enabling the ring", &e))?;
        }
        self.ring.owner = Some(me);
        Ok(())
    }

    /// Hands the queue to the kernel and waits for `at_least` completions, or for a signal.
    fn enter(&mut self, at_least: usize) -> Result<(), ReadError> {
        match self.ring.uring.submit_and_wait(at_least) {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error().unwrap_or(0) {
                // A signal, or a kernel short of memory: what was not taken stays in the queue and goes with the next call.
                errno if [Errno::INTR, Errno::AGAIN, Errno::BUSY].iter().any(|r| r.raw_os_error() == errno) => {
                    thread::yield_now();
                    Ok(())
                }
                errno => Err(ReadError::Ring { errno }),
            },
        }
    }

    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.uring.completion().next()
    }

    /// Hands out the reads whose completions have arrived, queues the rest of those that came short. Returns how many ended.
    fn reap(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> usize {
        let mut ended = 0;
        while let Some(completion) = self.next_completion() {
            let slot = completion.user_data() as u32;
            let answer = completion.result();
            let answer = usize::try_from(answer).map_err(|_| -answer);
            let read = &mut self.slots[slot as usize];
            let (tag, page) = (read.tag, read.page);
            let outcome = match read.attempt.after(answer, &self.file, page) {
                Ok(Next::Again) => {
                    self.push(slot);
                    continue;
                }
                Ok(Next::Ended) => Ok(()),
                Err(error) => Err(error),
            };
            // Free before `done` is called, so that nothing is lost should it panic.
            self.free.push(slot);
            ended += 1;
            let page_bytes = self.file.page_bytes();
            // SAFETY: the slot's only request has completed, so the kernel is done with its memory, and the next one can be pushed
            // only by `submit`, which needs `&mut self`: not while this slice, borrowed from `self`, lives.
            let bytes = outcome.map(|()| unsafe { self.buffers.slice(slot as usize * page_bytes, page_bytes) });
            done(Completion { tag, page, bytes });
        }
        ended
    }

    fn collect(&mut self, at_least: usize, done: &mut dyn FnMut(Completion<'_>)) -> Result<usize, ReadError> {
        if self.in_flight() == 0 {
            return Ok(0);
        }
        self.claim()?;
        loop {
            self.enter(at_least)?;
            let ended = self.reap(done);
            if ended >= at_least {
                return Ok(ended);
            }
        }
    }
}

impl NodeReader for UringReader {
    fn capacity(&self) -> usize {
        self.slots.len()
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn submit(&mut self, page: u64, tag: u64) -> Result<(), ReadError> {
        let page_offset = self.file.offset_of(page)?;
        let slot = self.free.pop().ok_or(ReadError::QueueFull { capacity: self.slots.len() })?;
        self.slots[slot as usize] = Slot { tag, page, page_offset, attempt: Attempt::default() };
        self.push(slot);
        Ok(())
    }

    fn wait(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> Result<usize, ReadError> {
        self.collect(1, done)
    }

    fn poll(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> Result<usize, ReadError> {
        self.collect(0, done)
    }

    fn kind(&self) -> &'static str {
        KIND
    }
}

impl Drop for UringReader {
    fn drop(&mut self) {
        loop {
            // Reads that the kernel never saw need no waiting for.
            if self.queued() == self.in_flight() {
                return;
            }
            if self.wait(&mut |_| {}).is_err() {
                // The ring is another thread's or broken, and the kernel may write into the buffers long after it is closed.
                return self.buffers.leak();
            }
        }
    }
}

impl Ring {
    /// A ring for `capacity` reads of `file` into `buffers`; disabled when it is `bound`.
    fn new(file: &PageFile, buffers: &Mapping, capacity: usize) -> Result<Ring, ReadError> {
        let (uring, bound) = build(capacity as u32).map_err(|e| ReadError::setup(KIND, "io_uring_setup", &e))?;
        let submitter = uring.submitter();
        let fds = [file.as_fd().as_raw_fd()];
        submitter.register_files(&fds).map_err(|e| ReadError::setup(KIND, "registering the file", &e))?;
        // SAFETY: at this time the kernel holds no request on `buffers` and nobody a slice of them (the caller is making or replacing
        // the reader's ring), so this is their only reference; it is given up before the first request.
        let memory = unsafe { std::slice::from_raw_parts_mut(buffers.pointer(0), capacity * file.page_bytes()) };
        let slices = [IoSliceMut::new(memory)];
        // SAFETY: IoSliceMut is documented to have the layout of iovec, the type that `register_buffers` names. The memory outlives
        // the ring (`UringReader` drops the ring first).
        let registered = unsafe { submitter.register_buffers(std::slice::from_raw_parts(slices.as_ptr().cast(), slices.len())) };
        // Mostly ENOMEM, by RLIMIT_MEMLOCK. Unregistered buffers are right too, about a tenth slower.
        let buffers_registered = registered.is_ok();
        Ok(Ring { uring, bound, owner: None, buffers_registered })
    }
}

/// The best ring the kernel makes, and whether it is a disabled one that will be bound to the thread that enables it.
fn build(entries: u32) -> io::Result<(IoUring, bool)> {
    let mut builder = IoUring::builder();
    // TASKRUN_FLAG lets `submit` see that completions wait for a call, which `poll` relies on.
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_r_disabled();
    match patiently(|| builder.build(entries)) {
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok((patiently(|| IoUring::new(entries))?, false)),
        answer => answer.map(|uring| (uring, true)),
    }
}

/// Makes a ring, asking again for a quarter of a second when there is no memory: that of a closed ring counts against
/// RLIMIT_MEMLOCK until the kernel comes round to it, some milliseconds later.
fn patiently(build: impl Fn() -> io::Result<IoUring>) -> io::Result<IoUring> {
    let mut pause_ms = 1;
    loop {
        match build() {
            Err(e) if e.raw_os_error() == Some(Errno::NOMEM.raw_os_error()) && pause_ms <= 128 => {
                thread::sleep(Duration::from_millis(pause_ms));
                pause_ms *= 2;
            }
            answer => return answer,
        }
    }
}

/// See [`super::probe_io_uring`].
pub(crate) fn probe() -> Result<(), String> {
    let (mut uring, disabled) = build(2).map_err(|e| why_not(&e))?;
    if disabled {
        uring.submitter().register_enable_rings().map_err(|e| why_not(&e))?;
    }
    let mut operations = Probe::new();
    uring.submitter().register_probe(&mut operations).map_err(|e| why_not(&e))?;
    if !operations.is_supported(opcode::Read::CODE) || !operations.is_supported(opcode::ReadFixed::CODE) {
        return Err("the kernel's io_uring has no reads; Linux 5.6 or later is needed".into());
    }
    // SAFETY: a no-op refers to no memory.
    let pushed = unsafe { uring.submission().push(&opcode::Nop::new().build()) };
    pushed.map_err(|_| "io_uring made a ring without room".to_string())?;
    loop {
        match uring.submit_and_wait(1) {
            Err(e) if e.raw_os_error() == Some(Errno::INTR.raw_os_error()) => continue,
            answer => break answer.map(|_| ()).map_err(|e| why_not(&e)),
        }
    }
}

/// What `error` of a ring's setup means and what would help.
fn why_not(error: &io::Error) -> String {
    let number = error.raw_os_error().unwrap_or(0);
    if number == Errno::NOSYS.raw_os_error() {
        return format!("this kernel or sandbox has no io_uring ({error}); Linux 5.6 or later has, some sandboxes never do");
    }
    if number == Errno::PERM.raw_os_error() || number == Errno::ACCESS.raw_os_error() {
        return match fs::read_to_string("/proc/sys/kernel/io_uring_disabled").as_deref().map(str::trim) {
            Ok(level @ ("1" | "2")) => {
                format!("io_uring is switched off ({error}); sysctl kernel.io_uring_disabled is {level}, 0 allows it")
            }
            _ => format!(
                "io_uring is forbidden ({error}), as container runtimes do by default; allow io_uring_setup, \
                 io_uring_enter and io_uring_register in the seccomp profile"
            ),
        };
    }
    if number == Errno::NOMEM.raw_os_error() {
        return format!("io_uring gets no locked memory ({error}); raise `ulimit -l`, now below what a ring needs");
    }
    format!("io_uring cannot be set up: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::suite::numbered_pages;

    fn reader_of(page_count: u64, capacity: usize) -> Option<UringReader> {
        if let Err(why) = probe() {
            eprintln!("skipped: {why}");
            return None;
        }
        let temp = numbered_pages(4096, 0, page_count);
        let file = PageFile::open(temp.path(), 4096, 0, page_count).unwrap();
        Some(UringReader::new(&file, capacity).unwrap())
    }

    #[test]
    fn reads_begun_on_another_thread_must_be_awaited_there() {
        let Some(mut reader) = reader_of(4, 2) else { return };
        let mut reader = thread::spawn(move || {
            reader.submit(1, 10).unwrap();
            reader.claim().unwrap();
            reader.enter(0).unwrap();
            reader
        })
        .join()
        .unwrap();
        let bound = reader.ring.bound;
        assert_eq!(reader.wait(&mut |_| {}), if bound { Err(ReadError::WrongThread { in_flight: 1 }) } else { Ok(1) });
        drop(reader); // leaves the buffers to the kernel, and does not hang
    }

    #[test]
    fn reads_only_queued_move_with_the_reader() {
        let Some(mut reader) = reader_of(4, 2) else { return };
        let mut reader = thread::spawn(move || {
            reader.submit(0, 1).unwrap();
            assert_eq!(reader.wait(&mut |_| {}), Ok(1));
            reader.submit(3, 7).unwrap();
            reader
        })
        .join()
        .unwrap();
        let mut seen = Vec::new();
        assert_eq!(reader.wait(&mut |c| seen.push((c.tag, c.page, c.bytes.unwrap()[4095]))), Ok(1));
        assert_eq!(seen, [(7, 3, 4)]);
    }

    #[test]
    fn unregistered_buffers_read_the_same() {
        let Some(mut reader) = reader_of(9, 4) else { return };
        reader.ring.buffers_registered = false;
        for page in [8, 2, 5] {
            reader.submit(page, page).unwrap();
        }
        while reader.in_flight() > 0 {
            reader.wait(&mut |c| assert!(c.bytes.unwrap().iter().all(|&b| u64::from(b) == c.page + 1))).unwrap();
        }
    }

    #[test]
    fn a_plain_ring_of_an_older_kernel_reads_the_same() {
        let Some(mut reader) = reader_of(9, 4) else { return };
        let uring = patiently(|| IoUring::new(4)).unwrap();
        uring.submitter().register_files(&[reader.file.as_fd().as_raw_fd()]).unwrap();
        reader.ring = Ring { uring, bound: false, owner: None, buffers_registered: false };
        reader.submit(6, 1).unwrap();
        let mut reader = thread::spawn(move || {
            reader.submit(7, 2).unwrap();
            reader.poll(&mut |_| {}).unwrap();
            reader
        })
        .join()
        .unwrap();
        while reader.in_flight() > 0 {
            reader.wait(&mut |c| assert_eq!(u64::from(c.bytes.unwrap()[0]), c.page + 1)).unwrap();
        }
    }

    #[test]
    fn why_not_names_the_remedy() {
        assert!(why_not(&io::Error::from_raw_os_error(Errno::NOSYS.raw_os_error())).contains("5.6"));
        assert!(why_not(&io::Error::from_raw_os_error(Errno::NOMEM.raw_os_error())).contains("ulimit -l"));
        let forbidden = why_not(&io::Error::from_raw_os_error(Errno::PERM.raw_os_error()));
        assert!(forbidden.contains("seccomp") || forbidden.contains("sysctl"), "{forbidden}");
    }
}
