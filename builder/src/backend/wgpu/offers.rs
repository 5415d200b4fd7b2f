//! Reservoirs on the host, and the offers of a batch sorted by row: what the shader `merge` takes and gives back.

use crate::backend::Groups;
use rayon::prelude::*;
use roxanne_core::tile::{NO_ENTRY, entry, entry_distance, entry_row};

/// For every row the nearest distinct entries so far, sorted.
pub struct HostReservoirs {
    width: usize,
    /// [n x width], of which each row uses its first `lengths[row]`.
    entries: Vec<u64>,
    lengths: Vec<u32>,
}

impl HostReservoirs {
    pub(super) fn new(n: usize, width: usize) -> HostReservoirs {
        HostReservoirs { width, entries: vec![0; n * width], lengths: vec![0; n] }
    }

    pub(super) fn n(&self) -> usize {
        self.lengths.len()
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn row(&self, row: usize) -> &[u64] {
        &self.entries[row * self.width..][..self.lengths[row] as usize]
    }

    /// Width, entries and lengths.
    pub(super) fn whole(&self) -> (usize, &[u64], &[u32]) {
        (self.width, &self.entries, &self.lengths)
    }

    /// Width, entries and lengths, to change.
    pub(super) fn parts(&mut self) -> (usize, &mut [u64], &mut [u32]) {
        (self.width, &mut self.entries, &mut self.lengths)
    }

    /// No entry above this can be kept.
    fn threshold(&self, row: usize) -> u64 {
        if self.lengths[row] as usize == self.width { self.entries[(row + 1) * self.width - 1] } else { NO_ENTRY }
    }

    /// What the shader does, here.
    pub(super) fn merge(&mut self, offers: &Offers) {
        let merged: Vec<Vec<u64>> = (0..offers.rows.len())
            .into_par_iter()
            .map(|at| {
                let fresh = &offers.entries[offers.offsets[at] as usize..offers.offsets[at + 1] as usize];
                let mut all = [self.row(offers.rows[at] as usize), fresh].concat();
                all.sort_unstable();
                all.dedup();
                all.truncate(self.width);
                all
            })
            .collect();
        for (&row, merged) in offers.rows.iter().zip(merged) {
            self.entries[row as usize * self.width..][..merged.len()].copy_from_slice(&merged);
            self.lengths[row as usize] = merged.len() as u32;
        }
    }
}

/// Entries for rows: those of `rows[i]` are `entries[offsets[i] .. offsets[i + 1]]`, in any order.
pub(super) struct Offers {
    /// Rows with offers, rising.
    pub(super) rows: Vec<u32>,
    pub(super) offsets: Vec<u64>,
    pub(super) entries: Vec<u64>,
}

impl Offers {
    /// Every pair of `lists` for both its ends, but for what a full reservoir would refuse.
    pub(super) fn of(leaves: &Groups, lists: &[u64], k: usize, reservoirs: &HostReservoirs) -> Offers {
        // Counting sort by row: `starts` becomes where each row's offers begin, and, while they are written, where the next one goes.
        let mut starts = vec![0u64; reservoirs.n() + 1];
        each_offer(leaves, lists, k, reservoirs, |row, _| starts[row as usize + 1] += 1);
        let rows: Vec<u32> = (0..reservoirs.n()).filter(|&row| starts[row + 1] > 0).map(|row| row as u32).collect();
        for row in 0..reservoirs.n() {
            starts[row + 1] += starts[row];
        }
        let mut offsets: Vec<u64> = rows.iter().map(|&row| starts[row as usize]).collect();
        offsets.push(starts[reservoirs.n()]);
        let mut entries = vec![0; starts[reservoirs.n()] as usize];
        each_offer(leaves, lists, k, reservoirs, |row, offer| {
            let next = &mut starts[row as usize];
            entries[*next as usize] = offer;
            *next += 1;
        });
        Offers { rows, offsets, entries }
    }
}

fn each_offer(leaves: &Groups, lists: &[u64], k: usize, reservoirs: &HostReservoirs, mut each: impl FnMut(u32, u64)) {
    for leaf in 0..leaves.len() {
        let (members, range) = (leaves.group(leaf), leaves.range(leaf));
        let lists = &lists[range.start * k..range.end * k];
        for (place, list) in lists.chunks_exact(k).enumerate() {
            for &found in list.iter().take_while(|&&found| found != NO_ENTRY) {
                let (distance, other) = (entry_distance(found), entry_row(found) as usize);
                let mut offer = |to: u32, id: u32| {
                    if entry(distance, id) <= reservoirs.threshold(to as usize) {
                        each(to, entry(distance, id));
                    }
                };
                offer(members[place], members[other]);
                // A list holds all that are nearer than its last: what is nearer was offered from the other side.
                if entry(distance, place as u32) > lists[other * k + k - 1] {
                    offer(members[other], members[place]);
                }
            }
        }
    }
}
