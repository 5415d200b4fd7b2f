//! The shapes of launches: which entry, how many blocks, how much shared memory. Plain arithmetic on 64-bit sizes, so that a billion rows can be
//! tried without a row.

use super::metric_name;
use roxanne_core::tile::BuildMetric;

/// Rows of one block of `assign` and `leaf_knn`.
pub const TILE_ROWS: u64 = 128;
/// Rows of one block of `norms`: a warp a row.
pub const NORMS_ROWS: u64 = 8;
/// Values of one block of the scans.
pub const SCAN_VALUES: u64 = 2048;
/// Pairs of one block of the sort.
pub const SORT_PAIRS: u64 = 4096;
/// Vectors of one block of `encode`.
pub const ENCODE_ROWS: u64 = 16;
/// The most members that `unique` sorts.
pub const UNIQUE_MAX: u64 = 4096;
/// Shared memory that a block has without asking for more.
const SHARED_BYTES: u64 = 48 << 10;

/// Blocks of a launch in one dimension.
pub fn grid(blocks: u64) -> Option<u32> {
    u32::try_from(blocks).ok().filter(|&blocks| blocks <= i32::MAX as u32)
}

/// The tiles of groups: `group << 32 | first place`.
pub fn tiles_of(offsets: &[u64]) -> Vec<u64> {
    let tiles = |(group, ends): (u64, &[u64])| (0..ends[1] - ends[0]).step_by(TILE_ROWS as usize).map(move |first| group << 32 | first);
    (0..).zip(offsets.windows(2)).flat_map(tiles).collect()
}

/// The entries of a kernel that selects: capacities of its lists by metric and key.
pub struct Entries {
    stem: &'static str,
    l2: &'static [usize],
    other: &'static [usize],
}

/// `kernels/assign.cu`.
pub const ASSIGN: Entries = Entries { stem: "assign", l2: &[1, 3, 10, 16], other: &[3, 16] };
/// `kernels/leaf_knn.cu`.
pub const LEAF_KNN: Entries = Entries { stem: "leaf_knn", l2: &[3, 5, 10, 16], other: &[5, 16] };

/// Which entry selects, and how it keeps candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Its name.
    pub entry: String,
    /// Bits of the ordinal in a narrow key.
    pub ordinal_bits: u32,
}

impl Selector {
    /// For rows of `stride` bytes against groups of at most `columns`, `k` wanted (1 to 16).
    pub fn new(entries: &Entries, metric: BuildMetric, stride: usize, columns: u64, k: usize) -> Selector {
        let farthest = stride as u64
            * match metric {
                BuildMetric::L2 => 255 * 255,
                BuildMetric::Manhattan => 255,
                BuildMetric::Hamming => 8,
            };
        // A lane sees two of every eight columns.
        let ordinals = (columns.div_ceil(8) * 2).max(2);
        let ordinal_bits = 64 - (ordinals - 1).leading_zeros();
        // All ones is "none".
        let narrow = ordinal_bits < 32 && farthest < (1 << (32 - ordinal_bits)) - 1;
        let rooms = match (metric, narrow) {
            (BuildMetric::L2, _) => entries.l2,
            (_, true) => entries.other,
            (_, false) => &[16],
        };
        let room = rooms.iter().find(|&&room| room >= k).copied().unwrap_or(16);
        let key = if narrow { "narrow" } else { "wide" };
        Selector { entry: format!("{}_{}_{key}_{room}", entries.stem, metric_name(metric)), ordinal_bits }
    }
}

/// Warps of a block of `merge`, and its shared memory.
pub fn merge_shape(width: usize) -> (u32, u32) {
    let room = 2 * width.next_power_of_two().max(32) as u64;
    let warps = (SHARED_BYTES / (8 * room)).clamp(1, 4);
    (warps as u32, (warps * 8 * room) as u32)
}

/// How `prune` uses shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneShape {
    /// Candidates' rows are in it.
    pub staged: bool,
    /// All of it.
    pub shared_bytes: u32,
}

/// Rows are staged where a block of `limit` bytes, and two blocks of a multiprocessor, have room for them.
pub fn prune_shape(width: usize, stride: usize, limit: u32) -> PruneShape {
    let lists = prune_list_bytes(width as u64);
    let rows = (width * (stride + 4)) as u64;
    let staged = lists + rows + PRUNE_STATIC_BYTES <= u64::from(limit).min(STAGED_BYTES);
    PruneShape { staged, shared_bytes: (lists + if staged { rows } else { 0 }) as u32 }
}

/// The most shared memory that staging may take: above it too few blocks share a multiprocessor.
const STAGED_BYTES: u64 = 100 << 10;

/// Shared memory that `prune` has besides, and some room.
const PRUNE_STATIC_BYTES: u64 = 1 << 10;

/// Shared memory for ids, distances and norms of candidates.
fn prune_list_bytes(width: u64) -> u64 {
    12 * width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_billion_rows_have_tiles_and_grids() {
        let tiles = tiles_of(&[0, 129, 129, 1 << 33]);
        assert_eq!(tiles[..3], [0, 128, 2 << 32]);
        assert_eq!(tiles.len() as u64, 2 + ((1u64 << 33) - 129).div_ceil(128));
        assert_eq!((grid(1 << 31), grid((1 << 31) - 1), grid(1 << 40)), (None, Some(0x7FFF_FFFF), None));
    }

    #[test]
    fn narrow_keys_hold_every_distance_and_ordinal() {
        let entry = |metric, stride, columns, k| Selector::new(&LEAF_KNN, metric, stride, columns, k).entry;
        assert_eq!(entry(BuildMetric::L2, 128, 256, 5), "leaf_knn_l2_narrow_5");
        assert_eq!(entry(BuildMetric::L2, 256, 1024, 6), "leaf_knn_l2_narrow_10");
        assert_eq!(entry(BuildMetric::L2, 288, 1024, 3), "leaf_knn_l2_wide_3");
        assert_eq!(entry(BuildMetric::L2, 768, 1024, 16), "leaf_knn_l2_wide_16");
        assert_eq!(entry(BuildMetric::Manhattan, 8224, 4096, 3), "leaf_knn_l1_narrow_5");
        assert_eq!(entry(BuildMetric::Hamming, 64, 1 << 40, 9), "leaf_knn_hamming_wide_16");
        for (stride, columns) in [(32, 1), (32, 9), (256, 1024), (256, 1025), (64, 40_000), (8224, 3)] {
            let selector = Selector::new(&ASSIGN, BuildMetric::L2, stride, columns, 1);
            assert!(columns.div_ceil(8) * 2 <= 1 << selector.ordinal_bits);
            if selector.entry.contains("narrow") {
                assert!((stride as u64 * 65_025) << selector.ordinal_bits < u64::from(u32::MAX) - (1 << selector.ordinal_bits));
            }
        }
    }

    #[test]
    fn shared_memory_stays_within_what_a_block_has() {
        assert_eq!(merge_shape(96), (4, 4 * 8 * 256));
        for width in 1..=1024 {
            let (warps, bytes) = merge_shape(width);
            assert!((1..=4).contains(&warps) && u64::from(bytes) <= SHARED_BYTES);
        }
        assert!(prune_shape(96, 128, 227 << 10).staged && !prune_shape(96, 128, 8 << 10).staged);
        assert!(!prune_shape(1024, 8224, 227 << 10).staged && u64::from(prune_shape(1024, 8224, 0).shared_bytes) <= SHARED_BYTES);
    }
}
