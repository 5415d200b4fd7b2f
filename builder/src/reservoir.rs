//! For every vector the nearest distinct candidates seen so far, at most `width`, in order (distance, id).
//!
//! What is kept is the smallest of a set under a total order, so it depends neither on the order of arrival nor on how often a
//! candidate arrives: threads may offer as they come. A row is a sorted run of at most `width` entries and up to `SLACK` unsorted ones;
//! when the slack is full it is sorted and merged in. Rows are locked in runs of 64, which threads almost never meet in.

use roxanne_core::tile::entry_distance;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Entries that a row collects before they are merged into its sorted run.
pub const SLACK: usize = 64;
/// Rows under one lock.
const RUN: usize = 64;

/// All rows.
pub struct Reservoirs {
    width: usize,
    n: usize,
    runs: Vec<Mutex<Run>>,
}

struct Run {
    entries: Vec<u64>,
    rows: [Row; RUN],
}

#[derive(Clone, Copy)]
struct Row {
    /// Length of the sorted run.
    sorted: u16,
    /// Sorted and unsorted entries.
    used: u16,
    /// No later entry with a distance above this can be kept.
    threshold: u32,
}

impl Reservoirs {
    /// `n` empty rows that keep `width` each, at most 1,024.
    pub fn new(n: usize, width: usize) -> Reservoirs {
        assert!((1..=1024).contains(&width), "reservoir of {width}");
        let run = |first: usize| {
            let empty = Row { sorted: 0, used: 0, threshold: u32::MAX };
            Mutex::new(Run { entries: vec![0; RUN.min(n - first) * (width + SLACK)], rows: [empty; RUN] })
        };
        Reservoirs { width, n, runs: (0..n).step_by(RUN).map(run).collect() }
    }

    /// Bytes a row takes.
    pub fn row_bytes(width: usize) -> u64 {
        ((width + SLACK) * 8 + size_of::<Row>()) as u64
    }

    /// Number of rows.
    pub fn n(&self) -> usize {
        self.n
    }

    fn run(&self, row: usize) -> MutexGuard<'_, Run> {
        // A panic elsewhere leaves a row that is still a set of offered entries.
        self.runs[row / RUN].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers entries `distance << 32 | id` to a row: `nearest` sorted, `others` not.
    pub fn offer(&self, row: u32, nearest: &[u64], others: &[u64]) {
        let mut run = self.run(row as usize);
        let (at, all) = (row as usize % RUN, self.width + SLACK);
        let Run { entries, rows } = &mut *run;
        let (state, entries) = (&mut rows[at], &mut entries[at * all..][..all]);
        for &entry in nearest {
            if entry_distance(entry) > state.threshold {
                break;
            }
            state.push(entries, self.width, entry);
        }
        for &entry in others {
            if entry_distance(entry) <= state.threshold {
                state.push(entries, self.width, entry);
            }
        }
    }

    /// The nearest distinct entries of a row, sorted, into `out`.
    pub fn sorted(&self, row: usize, out: &mut Vec<u64>) {
        let mut run = self.run(row);
        let (at, all) = (row % RUN, self.width + SLACK);
        let Run { entries, rows } = &mut *run;
        let entries = &mut entries[at * all..][..all];
        rows[at].settle(entries, self.width);
        out.clear();
        out.extend_from_slice(&entries[..usize::from(rows[at].sorted)]);
    }
}

impl Row {
    #[inline]
    fn push(&mut self, entries: &mut [u64], width: usize, entry: u64) {
        if usize::from(self.used) == entries.len() {
            self.settle(entries, width);
        }
        entries[usize::from(self.used)] = entry;
        self.used += 1;
    }

    /// Merges the unsorted entries into the sorted run, without duplicates.
    fn settle(&mut self, entries: &mut [u64], width: usize) {
        let (sorted, used) = (usize::from(self.sorted), usize::from(self.used));
        if sorted == used {
            return;
        }
        let mut buffer = [0u64; 1024];
        buffer[..sorted].copy_from_slice(&entries[..sorted]);
        // The slack moves to the end, out of the way of what is written.
        let fresh_start = entries.len() - (used - sorted);
        entries.copy_within(sorted..used, fresh_start);
        entries[fresh_start..].sort_unstable();
        let (mut old, mut fresh, mut kept) = (0, fresh_start, 0);
        let mut last = u64::MAX;
        while kept < width && (old < sorted || fresh < entries.len()) {
            let take_old = fresh == entries.len() || (old < sorted && buffer[old] <= entries[fresh]);
            let next = if take_old { buffer[old] } else { entries[fresh] };
            (old, fresh) = if take_old { (old + 1, fresh) } else { (old, fresh + 1) };
            if next != last {
                entries[kept] = next;
                kept += 1;
                last = next;
            }
        }
        (self.sorted, self.used) = (kept as u16, kept as u16);
        if kept == width {
            self.threshold = entry_distance(last);
        }
    }
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
