//! For every vector the nearest distinct candidates seen so far, at most `width`, in order (distance, id).
//!
//! What is kept is the smallest of a set under a total order, so it depends neither on the order of arrival nor on how often a
//! candidate arrives: threads may offer as they come. A row is a sorted run of at most `width` entries and up to `SLACK` unsorted ones;
//! when the slack is full it is sorted and merged in. Each row has a lock of its own, one bit of its state; threads almost never meet.

use roxanne_core::{
    huge,
    tile::{entry_distance, prefetch_line},
};
use std::{
    hint::spin_loop,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// Entries that a row collects before they are merged into its sorted run.
pub const SLACK: usize = 64;
/// The most entries that a row can be asked to keep.
pub const MAX_WIDTH: usize = 1024;

/// All rows.
pub struct Reservoirs {
    width: usize,
    /// [n x (width + SLACK)]; a row is read and written only under its lock.
    entries: Vec<AtomicU64>,
    /// A [`State`] a row, packed.
    states: Vec<AtomicU64>,
}

/// What a row's state word holds: `lock 1 bit | sorted 15 | used 16 | complement of the threshold 32`; all zero is an empty row.
#[derive(Clone, Copy)]
struct State {
    /// Length of the sorted run.
    sorted: usize,
    /// Sorted and unsorted entries.
    used: usize,
    /// No later entry with a distance above this can be kept.
    threshold: u32,
}

const LOCKED: u64 = 1 << 63;

impl State {
    fn unpack(word: u64) -> State {
        State { sorted: (word >> 48 & 0x7FFF) as usize, used: (word >> 32 & 0xFFFF) as usize, threshold: !(word as u32) }
    }

    fn pack(self) -> u64 {
        (self.sorted as u64) << 48 | (self.used as u64) << 32 | u64::from(!self.threshold)
    }
}

impl Reservoirs {
    /// `n` empty rows that keep `width` each, at most [`MAX_WIDTH`].
    pub fn new(n: usize, width: usize) -> Reservoirs {
        assert!((1..=MAX_WIDTH).contains(&width), "reservoir of {width}");
        // Zeroed by the system, so that pages come into being in parallel, as rows are first touched.
        Reservoirs { width, entries: huge::zeroed(n * (width + SLACK)), states: huge::zeroed(n) }
    }

    /// Bytes a row takes.
    pub fn row_bytes(width: usize) -> u64 {
        ((width + SLACK + 1) * 8) as u64
    }

    /// Number of rows.
    pub fn n(&self) -> usize {
        self.states.len()
    }

    fn row(&self, row: usize) -> &[AtomicU64] {
        let all = self.width + SLACK;
        &self.entries[row * all..][..all]
    }

    fn lock(&self, row: usize) -> State {
        let state = &self.states[row];
        loop {
            let word = state.load(Relaxed);
            if word & LOCKED == 0 && state.compare_exchange_weak(word, word | LOCKED, Acquire, Relaxed).is_ok() {
                return State::unpack(word);
            }
            spin_loop();
        }
    }

    fn unlock(&self, row: usize, state: State) {
        self.states[row].store(state.pack(), Release);
    }

    /// Asks for the state of a row that will be offered to soon.
    #[inline]
    pub fn prefetch_state(&self, row: u32) {
        prefetch_line(&self.states[row as usize]);
    }

    /// Asks for the place where the next offers to a row will be written; its state should be in the cache.
    #[inline]
    pub fn prefetch_slack(&self, row: u32) {
        let used = State::unpack(self.states[row as usize].load(Relaxed)).used;
        self.row(row as usize)[used..].iter().step_by(8).take(2).for_each(prefetch_line);
    }

    /// Offers entries `distance << 32 | id` to a row: `nearest` sorted, `others` not.
    pub fn offer(&self, row: u32, nearest: &[u64], others: &[u64]) {
        let row = row as usize;
        // Thresholds only sink, so what an old one refuses is refused for good: late in a build most offers end here.
        let threshold = State::unpack(self.states[row].load(Relaxed)).threshold;
        let refused = |&entry: &u64| entry_distance(entry) > threshold;
        if nearest.first().is_none_or(refused) && others.iter().all(refused) {
            return;
        }
        let (mut state, entries) = (self.lock(row), self.row(row));
        for &entry in nearest.iter().chain(others) {
            if entry_distance(entry) > state.threshold {
                continue;
            }
            if state.used == entries.len() {
                state = settle(state, entries, self.width);
            }
            entries[state.used].store(entry, Relaxed);
            state.used += 1;
        }
        self.unlock(row, state);
    }

    /// The nearest distinct entries of a row, sorted, into `out`.
    pub fn sorted(&self, row: usize, out: &mut Vec<u64>) {
        let (mut state, entries) = (self.lock(row), self.row(row));
        state = settle(state, entries, self.width);
        out.clear();
        out.extend(entries[..state.sorted].iter().map(|e| e.load(Relaxed)));
        self.unlock(row, state);
    }
}

/// Merges a row's unsorted entries into its sorted run, without duplicates.
fn settle(state: State, entries: &[AtomicU64], width: usize) -> State {
    if state.sorted == state.used {
        return state;
    }
    // The usual width gets a small buffer: clearing the largest one would cost as much as the merge.
    if width <= 128 {
        settle_in::<{ 128 + SLACK }>(state, entries, width)
    } else {
        settle_in::<{ MAX_WIDTH + SLACK }>(state, entries, width)
    }
}

fn settle_in<const N: usize>(state: State, entries: &[AtomicU64], width: usize) -> State {
    let mut copy = [0; N];
    let copy = &mut copy[..state.used];
    copy.iter_mut().zip(entries).for_each(|(c, e)| *c = e.load(Relaxed));
    let (old, fresh) = copy.split_at_mut(state.sorted);
    fresh.sort_unstable();
    let (mut old, mut fresh) = (old.iter().copied().peekable(), fresh.iter().copied().peekable());
    let (mut kept, mut last) = (0, u64::MAX);
    while kept < width {
        let next = match (old.peek(), fresh.peek()) {
            (Some(o), Some(f)) if o > f => fresh.next(),
            (Some(_), _) => old.next(),
            (None, _) => fresh.next(),
        };
        let Some(next) = next else { break };
        if next != last {
            entries[kept].store(next, Relaxed);
            kept += 1;
            last = next;
        }
    }
    let threshold = if kept == width { entry_distance(last) } else { state.threshold };
    State { sorted: kept, used: kept, threshold }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxanne_core::{random::CounterRng, tile::entry};

    #[test]
    fn the_nearest_distinct_are_kept_in_any_order_of_arrival() {
        let rng = CounterRng::new(5);
        for width in [1, 10, 96, 200] {
            let mut offers: Vec<u64> = (0..3000).map(|i| entry(rng.below(i, 400) as u32, rng.below(i + 9000, 20) as u32)).collect();
            let mut expected = offers.clone();
            expected.sort_unstable();
            expected.dedup();
            expected.truncate(width);
            for _ in 0..3 {
                let reservoirs = Reservoirs::new(70, width);
                let mut out = Vec::new();
                for part in offers.chunks(7) {
                    let mut nearest = part[..4.min(part.len())].to_vec();
                    nearest.sort_unstable();
                    reservoirs.offer(66, &nearest, &part[nearest.len()..]);
                    reservoirs.sorted(3, &mut out);
                }
                assert!(out.is_empty());
                reservoirs.sorted(66, &mut out);
                assert_eq!(out, expected, "width {width}");
                offers.rotate_left(777);
                offers.reverse();
            }
        }
    }
}
