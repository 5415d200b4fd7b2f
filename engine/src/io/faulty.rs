//! A test tool: a reader over a reader that fails on purpose, and repeatably.
//!
//! The order of completions is a function of the seed and of the order of submissions alone, not of the device: each call of `wait`
//! or `poll` first lets the inner reader finish everything, then hands out what is due, shuffled. So a search over it can be run
//! again step by step. Built with the feature `faulty` and in this crate's tests.

use super::{Completion, NodeReader, PageFile, ReadError};
use roxanne_core::random::CounterRng;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What happens to one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device gives EIO, at both attempts.
    Eio,
    /// The file ends within the page.
    UnexpectedEnd,
    /// One bit, chosen by the seed, is wrong.
    BitFlip,
    /// From a 512-byte boundary on, chosen by the seed, the page is zero: a write that did not finish.
    Torn,
}

/// What goes wrong, and when.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    /// Decides shuffling, delays, bits and boundaries.
    pub seed: u64,
    /// Faults by the number of the read, counted from 0 in the order of submission.
    pub at_read: BTreeMap<u64, Fault>,
    /// Faults by page, at every read of it.
    pub on_page: BTreeMap<u64, Fault>,
    /// A read is held back for 0 to this many calls of `wait` or `poll`, unless nothing else can be handed out.
    pub most_delay: u64,
}

/// See the module.
pub struct FaultyReader {
    inner: Box<dyn NodeReader>,
    file: Arc<PageFile>,
    plan: FaultPlan,
    rng: CounterRng,
    /// Reads submitted so far; a read's number is its tag inside.
    submitted: u64,
    /// Calls of `wait` and `poll` so far.
    calls: u64,
    /// Reads inside: number -> (tag, call of submission).
    reading: HashMap<u64, (u64, u64)>,
    /// Reads ended inside, by (call they are due at, shuffled place, number).
    held: BTreeMap<(u64, u64, u64), Held>,
}

struct Held {
    tag: u64,
    page: u64,
    outcome: Result<Vec<u8>, ReadError>,
}

impl FaultyReader {
    /// Wraps `inner`, a reader of `file`.
    pub fn new(inner: Box<dyn NodeReader>, file: &Arc<PageFile>, plan: FaultPlan) -> FaultyReader {
        let rng = CounterRng::new(plan.seed);
        FaultyReader { inner, file: file.clone(), plan, rng, submitted: 0, calls: 0, reading: HashMap::new(), held: BTreeMap::new() }
    }

    /// Lets the inner reader finish and holds what it gave, with its faults.
    fn drain_inner(&mut self) -> Result<(), ReadError> {
        while self.inner.in_flight() > 0 {
            let FaultyReader { inner, file, plan, rng, reading, held, .. } = self;
            inner.wait(&mut |completion| {
                let number = completion.tag;
                let Some((tag, submitted_at)) = reading.remove(&number) else {
                    return;
                };
                let random = rng.part(number);
                let due = submitted_at + 1 + random.below(0, plan.most_delay.saturating_add(1));
                let fault = plan.at_read.get(&number).or_else(|| plan.on_page.get(&completion.page));
                let read = completion.bytes.map(<[u8]>::to_vec);
                let outcome = read.and_then(|bytes| spoil(bytes, fault.copied(), random, file, completion.page));
                held.insert((due, random.at(1), number), Held { tag, page: completion.page, outcome });
            })?;
        }
        Ok(())
    }

    fn hand_out(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> usize {
        let mut ended = 0;
        while let Some(next) = self.held.first_entry().filter(|e| e.key().0 <= self.calls) {
            let Held { tag, page, outcome } = next.remove();
            ended += 1;
            done(Completion { tag, page, bytes: outcome.as_deref().map_err(ReadError::clone) });
        }
        ended
    }
}

/// The page's bytes after `fault`.
fn spoil(mut bytes: Vec<u8>, fault: Option<Fault>, random: CounterRng, file: &PageFile, page: u64) -> Result<Vec<u8>, ReadError> {
    let len = bytes.len() as u64;
    match fault {
        None => {}
        Some(Fault::Eio) => return Err(file.device_error(page, rustix::io::Errno::IO.raw_os_error())),
        Some(Fault::UnexpectedEnd) => return Err(file.unexpected_end(page, random.below(2, len) as usize)),
        Some(Fault::BitFlip) => {
            let bit = random.below(2, len * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        Some(Fault::Torn) => bytes[random.below(2, len / 512) as usize * 512..].fill(0),
    }
    Ok(bytes)
}

impl NodeReader for FaultyReader {
    fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    fn in_flight(&self) -> usize {
        self.reading.len() + self.held.len()
    }

    fn submit(&mut self, page: u64, tag: u64) -> Result<(), ReadError> {
        if self.in_flight() == self.capacity() {
            return Err(ReadError::QueueFull { capacity: self.capacity() });
        }
        self.inner.submit(page, self.submitted)?;
        self.reading.insert(self.submitted, (tag, self.calls));
        self.submitted += 1;
        Ok(())
    }

    fn wait(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> Result<usize, ReadError> {
        self.drain_inner()?;
        let earliest_due = self.held.first_key_value().map_or(0, |(&(due, ..), _)| due);
        self.calls = (self.calls + 1).max(earliest_due);
        Ok(self.hand_out(done))
    }

    fn poll(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> Result<usize, ReadError> {
        self.drain_inner()?;
        self.calls += 1;
        Ok(self.hand_out(done))
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{ReaderKind, open_reader, suite::numbered_pages};

    const PAGES: u64 = 40;

    /// (tag, outcome) of reading pages 0 to 39, eight in flight, in the order they came.
    fn read_all(kind: ReaderKind, plan: FaultPlan) -> Vec<(u64, Result<Vec<u8>, ReadError>)> {
        let temp = numbered_pages(4096, 0, PAGES);
        let file = PageFile::open(temp.path(), 4096, 0, PAGES).unwrap();
        let mut reader = FaultyReader::new(open_reader(&file, kind, 8).unwrap(), &file, plan);
        let (mut next, mut seen) = (0, Vec::new());
        while next < PAGES || reader.in_flight() > 0 {
            while next < PAGES && reader.submit(next, 100 + next).is_ok() {
                next += 1;
            }
            assert!(reader.wait(&mut |c| seen.push((c.tag, c.bytes.map(<[u8]>::to_vec)))).unwrap() > 0);
        }
        assert_eq!(reader.wait(&mut |_| {}), Ok(0));
        seen
    }

    #[test]
    fn faults_hit_the_reads_they_were_planned_for() {
        let at_read = BTreeMap::from([(3, Fault::Eio), (4, Fault::BitFlip), (5, Fault::Torn)]);
        let plan = FaultPlan { seed: 1, at_read, on_page: BTreeMap::from([(7, Fault::UnexpectedEnd)]), most_delay: 0 };
        let seen: BTreeMap<_, _> = read_all(ReaderKind::Pread, plan).into_iter().collect();
        assert_eq!(seen.len() as u64, PAGES);
        let wrong_bits = |tag: u64| -> u32 {
            let right = (tag - 100) as u8 + 1;
            seen[&tag].as_ref().unwrap().iter().map(|b| (b ^ right).count_ones()).sum()
        };
        for tag in 100..100 + PAGES {
            match tag {
                103 => assert!(matches!(seen[&tag], Err(ReadError::Device { page: 3, offset: 12288, errno: 5, .. }))),
                104 => assert_eq!(wrong_bits(tag), 1),
                105 => assert!(wrong_bits(tag) > 1 && seen[&tag].as_ref().unwrap().ends_with(&[0; 512])),
                107 => assert!(matches!(seen[&tag], Err(ReadError::UnexpectedEnd { page: 7, .. }))),
                _ => assert_eq!(wrong_bits(tag), 0),
            }
        }
    }

    #[test]
    fn the_order_is_shuffled_and_depends_on_the_seed_alone() {
        let order = |kind, seed| -> Vec<u64> {
            let plan = FaultPlan { seed, most_delay: 3, ..FaultPlan::default() };
            read_all(kind, plan).into_iter().map(|(tag, _)| tag).collect()
        };
        let first = order(ReaderKind::Pread, 7);
        assert!(!first.is_sorted());
        assert_eq!(first, order(ReaderKind::Auto, 7));
        assert_ne!(first, order(ReaderKind::Pread, 8));
    }

    #[test]
    fn reads_held_back_still_count_as_in_flight() {
        let temp = numbered_pages(4096, 0, 2);
        let file = PageFile::open(temp.path(), 4096, 0, 2).unwrap();
        let plan = FaultPlan { most_delay: 1000, seed: 3, ..FaultPlan::default() };
        let mut reader = FaultyReader::new(open_reader(&file, ReaderKind::Pread, 2).unwrap(), &file, plan);
        reader.submit(0, 0).unwrap();
        reader.submit(1, 1).unwrap();
        assert_eq!(reader.poll(&mut |_| {}), Ok(0));
        assert_eq!((reader.in_flight(), reader.submit(0, 2)), (2, Err(ReadError::QueueFull { capacity: 2 })));
        assert_eq!(reader.wait(&mut |_| {}), Ok(1));
        assert_eq!(reader.wait(&mut |_| {}), Ok(1));
    }
}
