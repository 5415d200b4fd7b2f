//! Latencies of many queries, in a few numbers.

/// Mean and percentiles, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Latency {
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
}

impl Latency {
    /// Of `nanos`, which is sorted in place; all zeros for none.
    pub(crate) fn of(nanos: &mut [u64]) -> Latency {
        nanos.sort_unstable();
        let sum: u128 = nanos.iter().map(|&n| u128::from(n)).sum();
        let mean_us = if nanos.is_empty() { 0.0 } else { sum as f64 / nanos.len() as f64 / 1e3 };
        let us = |share| percentile(nanos, share) as f64 / 1e3;
        Latency { mean_us, p50_us: us(0.5), p99_us: us(0.99), p999_us: us(0.999) }
    }
}

/// The least value that `share` (0 to 1) of all are not above: nearest rank, so it is one of those measured. 0 for none.
fn percentile(sorted: &[u64], share: f64) -> u64 {
    // Less a hair, because .99 * 100 is a little more than 99 in binary.
    let rank = (share * sorted.len() as f64 - 1e-9).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([0.0, 0.01, 0.5, 0.99, 0.999, 1.0].map(|s| percentile(&hundred, s)), [1, 1, 50, 99, 100, 100]);
        let thousand: Vec<u64> = (1..=1000).collect();
        assert_eq!([0.5, 0.99, 0.999].map(|s| percentile(&thousand, s)), [500, 990, 999]);
        assert_eq!([0.0, 0.5, 1.0].map(|s| percentile(&[7], s)), [7, 7, 7]);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn latency_is_in_microseconds_whatever_the_order() {
        let latency = Latency::of(&mut [3000, 1000, 2000, 6000]);
        assert_eq!(latency, Latency { mean_us: 3.0, p50_us: 2.0, p99_us: 6.0, p999_us: 6.0 });
        assert_eq!(Latency::of(&mut []), Latency::default());
    }
}
