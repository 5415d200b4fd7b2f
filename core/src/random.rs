//! Randomness that can be repeated: every number is a function of (seed, stage, a, b), never of what was drawn before it.
//!
//! A unit of work that runs twice, on another thread or another device, sees the same numbers. Mixing is SplitMix64's finalizer
//! (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).

/// One random function; `at` evaluates it.
#[derive(Clone, Copy, Debug)]
pub struct CounterRng {
    state: u64,
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl CounterRng {
    /// The function for one `seed`.
    pub fn new(seed: u64) -> Self {
        CounterRng { state: mix(seed) }
    }

    /// The function for a part of the work, such as a stage, a level or a cluster.
    pub fn part(self, number: u64) -> Self {
        CounterRng { state: mix(self.state ^ mix(number)) }
    }

    /// The number at `counter`: 64 uniform bits.
    #[inline]
    pub fn at(self, counter: u64) -> u64 {
        mix(self.state.wrapping_add(counter.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// A number in `0..bound` at `counter` (multiply-shift; bias below 2^-32 for bounds that fit 32 bits).
    #[inline]
    pub fn below(self, counter: u64, bound: u64) -> u64 {
        ((u128::from(self.at(counter)) * u128::from(bound)) >> 64) as u64
    }

    /// `count` distinct numbers of `0..n` in rising order (all of them when `count >= n`).
    pub fn sample(self, n: u64, count: u64) -> Vec<u64> {
        if count >= n {
            return (0..n).collect();
        }
        // Robert Floyd's sampling: one draw a number, no rejection.
        let mut chosen = std::collections::BTreeSet::new();
        for (i, top) in (n - count..n).enumerate() {
            let draw = self.below(i as u64, top + 1);
            if !chosen.insert(draw) {
                chosen.insert(top);
            }
        }
        chosen.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_distinct_sorted_and_repeatable() {
        for (n, count) in [(0, 0), (1, 1), (10, 3), (10, 10), (10, 20), (1000, 999)] {
            let s = CounterRng::new(7).part(n).sample(n, count);
            assert_eq!(s.len() as u64, count.min(n));
            assert!(s.windows(2).all(|w| w[0] < w[1]) && s.iter().all(|&x| x < n));
            assert_eq!(s, CounterRng::new(7).part(n).sample(n, count));
        }
    }

    #[test]
    fn parts_differ() {
        let r = CounterRng::new(1);
        assert_ne!(r.part(0).at(0), r.part(1).at(0));
        assert_ne!(r.at(0), r.at(1));
    }
}
