//! A set of numbers that is cheap to copy and to change: writers change their own, readers keep the one they began with.

use std::sync::Arc;

/// Words of a part: 64 Ki numbers, 8 KiB.
const WORDS: usize = 1024;

/// See the module. A copy shares all parts; a change copies the part it falls into, where that is shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    parts: Vec<Option<Arc<[u64; WORDS]>>>,
    len: u64,
}

impl Bits {
    /// Adds `number`; false when it was there.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        let (part, word, bit) = place(number);
        if self.parts.len() <= part {
            self.parts.resize(part + 1, None);
        }
        let words = Arc::make_mut(self.parts[part].get_or_insert_with(|| Arc::new([0; WORDS])));
        let is_new = words[word] & bit == 0;
        words[word] |= bit;
        self.len += u64::from(is_new);
        is_new
    }

    /// Takes `number` out.
    pub(crate) fn remove(&mut self, number: u32) {
        let (part, word, bit) = place(number);
        if self.contains(number)
            && let Some(words) = self.parts.get_mut(part).and_then(Option::as_mut)
        {
            Arc::make_mut(words)[word] &= !bit;
            self.len -= 1;
        }
    }

    /// Whether `number` is in it.
    #[inline]
    pub(crate) fn contains(&self, number: u32) -> bool {
        let (part, word, bit) = place(number);
        self.parts.get(part).and_then(Option::as_ref).is_some_and(|words| words[word] & bit != 0)
    }

    /// How many are in it.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

/// Nodes of a base that a search must not show: the dead, and those that came after its snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Hidden {
    pub(crate) dead: Arc<Bits>,
    /// Those of the dead that searches still pass through.
    pub(crate) linked: u64,
    /// All from here on.
    pub(crate) from: u64,
}

impl Hidden {
    #[inline]
    pub(crate) fn contains(&self, node: u32) -> bool {
        u64::from(node) >= self.from || self.dead.contains(node)
    }
}

fn place(number: u32) -> (usize, usize, u64) {
    let number = number as usize;
    (number / (64 * WORDS), number / 64 % WORDS, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_had() {
        let mut bits = Bits::default();
        assert!(!bits.contains(u32::MAX));
        for number in [0, 63, 64, 65_535, 65_536, 1_000_000, u32::MAX] {
            let before = bits.clone();
            assert!(bits.insert(number) && !bits.insert(number));
            assert!(bits.contains(number) && !before.contains(number) && before.len() + 1 == bits.len());
        }
        let full = bits.clone();
        bits.remove(64);
        bits.remove(64);
        assert!(!bits.contains(64) && full.contains(64) && bits.len() + 1 == full.len());
    }
}
