//! Page reads by a pool of threads, for systems that forbid io_uring.
//!
//! Each read carries its own buffer: it travels with the job to a worker, is filled there, and comes back with the answer, so that
//! nobody ever shares one. Depth costs a thread a read; above [`MAX_WORKERS`] reads wait in the queue.

use super::{AlignedBuf, Completion, NodeReader, PageFile, ReadError};
use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
};

/// The most threads of one reader.
const MAX_WORKERS: usize = 32;
/// A worker calls pread and little else.
const WORKER_STACK_BYTES: usize = 128 << 10;

const KIND: &str = "pread";

struct Job {
    tag: u64,
    page: u64,
    buf: AlignedBuf,
    outcome: Result<(), ReadError>,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    ended: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Desk {
    jobs: Mutex<Jobs>,
    /// A job waits, or the desk is closed.
    work: Condvar,
    /// A job has ended.
    answer: Condvar,
}

impl Desk {
    // No panic is possible while the lock is held, so a poisoned one means nothing.
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub(crate) struct PreadReader {
    file: Arc<PageFile>,
    desk: Arc<Desk>,
    workers: Vec<JoinHandle<()>>,
    free: Vec<AlignedBuf>,
    /// Ended jobs taken from the desk and not yet handed out.
    taken: VecDeque<Job>,
    capacity: usize,
    in_flight: usize,
}

impl PreadReader {
    pub(crate) fn new(file: &Arc<PageFile>, capacity: usize) -> Result<PreadReader, ReadError> {
        let free: Result<Vec<_>, _> = (0..capacity).map(|_| AlignedBuf::new(file.page_bytes())).collect();
        let mut reader = PreadReader {
            file: file.clone(),
            desk: Arc::default(),
            workers: Vec::new(),
            free: free.map_err(|e| ReadError::setup(KIND, "mapping buffers", &e))?,
            taken: VecDeque::new(),
            capacity,
            in_flight: 0,
        };
        for _ in 0..capacity.min(MAX_WORKERS) {
            let (file, desk) = (reader.file.clone(), reader.desk.clone());
            let worker = Builder::new().name("roxanne-pread".into()).stack_size(WORKER_STACK_BYTES).spawn(move || work(&file, &desk));
            reader.workers.push(worker.map_err(|e| ReadError::setup(KIND, "starting a thread", &e))?);
        }
        Ok(reader)
    }

    fn hand_out(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> usize {
        let mut ended = 0;
        while let Some(job) = self.taken.pop_front() {
            self.in_flight -= 1;
            ended += 1;
            let (tag, page) = (job.tag, job.page);
            // Free before `done` is called, so that nothing is lost should it panic.
            let buf = self.free.push_mut(job.buf);
            done(Completion { tag, page, bytes: job.outcome.map(|()| &**buf) });
        }
        ended
    }
}

/// One worker's life.
fn work(file: &PageFile, desk: &Desk) {
    let mut jobs = desk.jobs();
    loop {
        if let Some(mut job) = jobs.waiting.pop_front() {
            drop(jobs);
            job.outcome = file.read_page_blocking(job.page, &mut job.buf);
            jobs = desk.jobs();
            jobs.ended.push_back(job);
            desk.answer.notify_one();
        } else if jobs.closed {
            return;
        } else {
            jobs = desk.work.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl NodeReader for PreadReader {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn submit(&mut self, page: u64, tag: u64) -> Result<(), ReadError> {
        self.file.offset_of(page)?;
        let buf = self.free.pop().ok_or(ReadError::QueueFull { capacity: self.capacity })?;
        self.in_flight += 1;
        self.desk.jobs().waiting.push_back(Job { tag, page, buf, outcome: Ok(()) });
        self.desk.work.notify_one();
        Ok(())
    }

    fn wait(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> Result<usize, ReadError> {
        if self.in_flight > 0 && self.taken.is_empty() {
            let mut jobs = self.desk.jobs();
            while jobs.ended.is_empty() {
                jobs = self.desk.answer.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            }
            mem::swap(&mut jobs.ended, &mut self.taken);
        }
        Ok(self.hand_out(done))
    }

    fn poll(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> Result<usize, ReadError> {
        if self.taken.is_empty() {
            mem::swap(&mut self.desk.jobs().ended, &mut self.taken);
        }
        Ok(self.hand_out(done))
    }

    fn kind(&self) -> &'static str {
        KIND
    }
}

impl Drop for PreadReader {
    fn drop(&mut self) {
        let mut jobs = self.desk.jobs();
        jobs.closed = true;
        jobs.waiting.clear();
        drop(jobs);
        self.desk.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has nothing left to tell: its read can no longer be asked for.
            let _ = worker.join();
        }
    }
}
