// assign: nearest [members x fanout] u32 <- clusters, and leaders of each: the places of the `fanout` nearest leaders of every member.
//
// rows [n x stride] u8, norms [n] (l2 only, else not read), clusters (members, offsets), leaders of cluster c at
// leaders[leader_offsets[c] .. leader_offsets[c + 1]], tiles [grid]: cluster << 32 | first place, 128 members each. Nearest first, ties to
// the smaller place, u32::MAX where a cluster has fewer than `fanout` leaders. 1 <= fanout <= cap.
// Launch: grid = tiles, block 256, no dynamic shared memory. nearest.cuh is the machine; it says what bounds it.
// Twin: ../shaders/assign.wgsl; specification: `assign` of ../builder/src/backend/cpu.rs; must equal it.
#include "nearest.cuh"

template <class Metric, class Keys, u32 CAP>
DEVICE void assign(const u8* rows, const u32* norms, u32 stride, const u32* members, const u64* offsets, const u32* leaders,
                   const u64* leader_offsets, const u64* tiles, u32 fanout, u32 ordinal_bits, u32* nearest) {
    u32 cluster = static_cast<u32>(tiles[blockIdx.x] >> 32), first = static_cast<u32>(tiles[blockIdx.x]);
    u64 begin = offsets[cluster] + first, leaders_begin = leader_offsets[cluster];
    u32 count = static_cast<u32>(min(static_cast<u64>(TILE_ROWS), offsets[cluster + 1] - begin));
    u32 leader_count = static_cast<u32>(leader_offsets[cluster + 1] - leaders_begin);
    u32* out = nearest + begin * fanout;
    // NO_ENTRY's number is u32::MAX.
    auto write = [=](u32 row, u32 rank, u64 entry) { out[row * fanout + rank] = entry_number(entry); };
    find_nearest<Metric, Keys, CAP, false>(rows, norms, stride, members + begin, count, first, leaders + leaders_begin, leader_count,
                                           fanout, Keys{ordinal_bits}, write);
}

// (entry, metric, keys, cap, blocks that an SM holds at once)
#define ASSIGN_ENTRIES(X)                               \
    X(assign_l2_narrow_1, L2, Narrow, 1, 3)             \
    X(assign_l2_narrow_3, L2, Narrow, 3, 3)             \
    X(assign_l2_narrow_10, L2, Narrow, 10, 2)           \
    X(assign_l2_narrow_16, L2, Narrow, 16, 2)           \
    X(assign_l2_wide_1, L2, Wide, 1, 2)                 \
    X(assign_l2_wide_3, L2, Wide, 3, 2)                 \
    X(assign_l2_wide_10, L2, Wide, 10, 2)               \
    X(assign_l2_wide_16, L2, Wide, 16, 1)               \
    X(assign_l1_narrow_3, L1, Narrow, 3, 2)             \
    X(assign_l1_narrow_16, L1, Narrow, 16, 2)           \
    X(assign_l1_wide_16, L1, Wide, 16, 1)               \
    X(assign_hamming_narrow_3, Hamming, Narrow, 3, 2)   \
    X(assign_hamming_narrow_16, Hamming, Narrow, 16, 2) \
    X(assign_hamming_wide_16, Hamming, Wide, 16, 1)

#define ASSIGN(entry, metric, keys, cap, blocks)                                                                                         \
    KERNEL void __launch_bounds__(NEAREST_BLOCK, blocks)                                                                                 \
        entry(const u8* rows, const u32* norms, u32 stride, const u32* members, const u64* offsets, const u32* leaders,                  \
              const u64* leader_offsets, const u64* tiles, u32 fanout, u32 ordinal_bits, u32* nearest) {                                 \
        assign<metric, keys, cap>(rows, norms, stride, members, offsets, leaders, leader_offsets, tiles, fanout, ordinal_bits, nearest); \
    }
ASSIGN_ENTRIES(ASSIGN)
