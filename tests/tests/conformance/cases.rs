//! Shapes that bite: groups around every tile's edge, rows around every chunk's, values that are all equal, few, or as far apart as can be.

use roxanne_builder::backend::{BuildCodes, Groups};
use roxanne_core::{random::CounterRng, tile::BuildMetric};

/// How much of the suite a backend is given: those that play a device are slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// All shapes.
    Whole,
    /// One of each kind.
    Small,
}

impl Effort {
    /// What a device gets: everything, unless `ROXANNE_CASES=small` asks for less, as for a run under compute-sanitizer.
    pub(crate) fn of_device() -> Effort {
        if std::env::var("ROXANNE_CASES").is_ok_and(|cases| cases == "small") { Effort::Small } else { Effort::Whole }
    }
}

/// What rows hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern {
    /// Any bytes.
    Any,
    /// Two values, near each other: many ties.
    Few,
    /// One value: ties alone.
    Equal,
    /// 0 and 255: distances as large as they get.
    Extremes,
}

/// One shape: rows of `stride` bytes under a metric, and how many neighbors are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) metric: BuildMetric,
    pub(crate) stride: usize,
    pub(crate) pattern: Pattern,
    /// `fanout` or `leaf_k`.
    pub(crate) k: usize,
}

pub(crate) fn cases(effort: Effort) -> Vec<Case> {
    use {BuildMetric::*, Pattern::*};
    let list = [
        (L2, 32, Any, 1),
        (L2, 128, Any, 5),
        (L2, 128, Few, 3),
        (L2, 96, Extremes, 10),
        (L2, 64, Equal, 5),
        (L2, 256, Extremes, 16),
        (L2, 288, Extremes, 5),
        (L2, 1056, Any, 8),
        (L2, 768, Few, 16),
        (L2, 8224, Extremes, 3),
        (Manhattan, 128, Any, 5),
        (Manhattan, 160, Few, 10),
        (Hamming, 32, Any, 4),
        (Hamming, 96, Equal, 16),
    ];
    let rest = [(L2, 384, Any, 10), (L2, 32, Few, 16), (L2, 128, Extremes, 4), (Manhattan, 8224, Extremes, 2), (Hamming, 1024, Any, 7)];
    let rest = if effort == Effort::Whole { &rest[..] } else { &[] };
    list.iter().chain(rest).map(|&(metric, stride, pattern, k)| Case { metric, stride, pattern, k }).collect()
}

impl Case {
    /// `n` rows of the case.
    pub(crate) fn codes(&self, n: usize, seed: u64) -> BuildCodes {
        let rng = CounterRng::new(seed);
        let value = |i: usize| match self.pattern {
            Pattern::Any => rng.below(i as u64, 256) as u8,
            Pattern::Few => 100 + rng.below(i as u64, 2) as u8,
            Pattern::Equal => 77,
            Pattern::Extremes => 255 * rng.below(i as u64, 2) as u8,
        };
        BuildCodes { metric: self.metric, stride: self.stride, bytes: (0..n * self.stride).map(value).collect() }
    }
}

/// Sizes of groups for rows of `stride` bytes; wide rows get fewer.
pub(crate) fn sizes(effort: Effort, stride: usize) -> &'static [usize] {
    match (effort, stride) {
        (_, 1025..) => &[1, 2, 65, 129],
        (Effort::Small, _) => &[1, 2, 17, 64, 65, 129, 257],
        (Effort::Whole, _) => &[1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300],
    }
}

/// Groups of these sizes, each of different rows of `n`, rising.
pub(crate) fn groups(n: usize, sizes: &[usize], seed: u64) -> Groups {
    let mut groups = Groups::new();
    for (at, &size) in sizes.iter().enumerate() {
        let rows = CounterRng::new(seed).part(at as u64).sample(n as u64, size as u64);
        groups.push(&rows.into_iter().map(|row| row as u32).collect::<Vec<_>>());
    }
    groups
}
