//! What one search has seen.

use crate::{id::NodeId, tile::prefetch_line};

/// The set of nodes that one search has seen.
///
/// Open addressing over 4 bytes a slot, so that memory follows what a search visits and not the size of the index, and many searches at a time
/// share the caches of a core.
#[derive(Debug, Default)]
pub struct VisitedSet {
    slots: Vec<u32>,
    used: usize,
}

/// No node's id.
const NO_NODE: u32 = u32::MAX;
/// Slots of a set that has seen little.
const LEAST_SLOTS: usize = 1024;

impl VisitedSet {
    /// Forgets everything.
    pub fn reset(&mut self) {
        // After one search that saw very much, later ones should not have to clear its room.
        if self.used * 16 < self.slots.len() {
            self.slots.truncate((self.slots.len() / 4).max(LEAST_SLOTS));
        }
        self.slots.fill(NO_NODE);
        self.used = 0;
    }

    /// Adds `id`; false when it was there.
    #[inline]
    pub fn insert(&mut self, id: NodeId) -> bool {
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = place(id) & mask;
        loop {
            if self.slots[at] == id.0 {
                return false;
            }
            if self.slots[at] == NO_NODE {
                self.slots[at] = id.0;
                self.used += 1;
                return true;
            }
            at = (at + 1) & mask;
        }
    }

    /// Asks for the memory where `id` will be looked for.
    #[inline]
    pub(super) fn prefetch(&self, id: NodeId) {
        if let Some(slot) = self.slots.get(place(id) & self.slots.len().wrapping_sub(1)) {
            prefetch_line(slot);
        }
    }

    /// Whether `id` is in it.
    #[inline]
    pub fn contains(&self, id: NodeId) -> bool {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = place(id) & mask;
        while let Some(&slot) = self.slots.get(at).filter(|&&slot| slot != NO_NODE) {
            if slot == id.0 {
                return true;
            }
            at = (at + 1) & mask;
        }
        false
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(LEAST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![NO_NODE; size]);
        self.used = 0;
        for slot in old.into_iter().filter(|&slot| slot != NO_NODE) {
            self.insert(NodeId(slot));
        }
    }
}

/// Where `id` is looked for first, before it is cut to the size of the set. Fibonacci hashing; the high bits are the mixed ones.
#[inline]
fn place(id: NodeId) -> usize {
    (u64::from(id.0).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_visited_set_grows_and_forgets() {
        let mut set = VisitedSet::default();
        assert!(!set.contains(NodeId(0)));
        for round in 0..3u32 {
            set.reset();
            assert!(round == 0 || (set.insert(NodeId(5)) && !set.insert(NodeId(5))));
            set.reset();
            set.reset();
            assert!((0..10_000).all(|i| set.insert(NodeId(i * 7 + round))));
            assert!((0..10_000).all(|i| !set.insert(NodeId(i * 7 + round)) && set.contains(NodeId(i * 7 + round))));
            assert!((0..10_000).all(|i| !set.contains(NodeId(i * 7 + round + 1))));
        }
    }
}
