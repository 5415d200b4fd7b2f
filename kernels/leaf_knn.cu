// leaf_knn: lists [members x k] u64 <- leaves: the `k` nearest others of every member in its leaf, as entries (distance, place).
//
// rows [n x stride] u8, norms [n] (l2 only, else not read), leaves (members, offsets), tiles [grid]: leaf << 32 | first place, 128 members
// each. Nearest first, ties to the smaller place, itself left out, NO_ENTRY behind the last. 1 <= k <= cap.
// Launch: grid = tiles, block 256, no dynamic shared memory. nearest.cuh is the machine; it says what bounds it.
// Twin: ../shaders/leaf_knn.wgsl; specification: `leaf_knn` of ../builder/src/backend/cpu.rs; must equal it.
#include "nearest.cuh"

template <class Metric, class Keys, u32 CAP>
DEVICE void leaf_knn(const u8* rows, const u32* norms, u32 stride, const u32* members, const u64* offsets, const u64* tiles, u32 k,
                     u32 ordinal_bits, u64* lists) {
    u32 leaf = static_cast<u32>(tiles[blockIdx.x] >> 32), first = static_cast<u32>(tiles[blockIdx.x]);
    u64 begin = offsets[leaf];
    u32 size = static_cast<u32>(offsets[leaf + 1] - begin);
    u64* out = lists + (begin + first) * k;
    auto write = [=](u32 row, u32 rank, u64 entry) { out[row * k + rank] = entry; };
    find_nearest<Metric, Keys, CAP, true>(rows, norms, stride, members + begin + first, min(TILE_ROWS, size - first), first,
                                          members + begin, size, k, Keys{ordinal_bits}, write);
}

// (entry, metric, keys, cap, blocks that an SM holds at once)
#define LEAF_KNN_ENTRIES(X)                               \
    X(leaf_knn_l2_narrow_3, L2, Narrow, 3, 3)             \
    X(leaf_knn_l2_narrow_5, L2, Narrow, 5, 3)             \
    X(leaf_knn_l2_narrow_10, L2, Narrow, 10, 2)           \
    X(leaf_knn_l2_narrow_16, L2, Narrow, 16, 2)           \
    X(leaf_knn_l2_wide_3, L2, Wide, 3, 2)                 \
    X(leaf_knn_l2_wide_5, L2, Wide, 5, 2)                 \
    X(leaf_knn_l2_wide_10, L2, Wide, 10, 2)               \
    X(leaf_knn_l2_wide_16, L2, Wide, 16, 1)               \
    X(leaf_knn_l1_narrow_5, L1, Narrow, 5, 2)             \
    X(leaf_knn_l1_narrow_16, L1, Narrow, 16, 2)           \
    X(leaf_knn_l1_wide_16, L1, Wide, 16, 1)               \
    X(leaf_knn_hamming_narrow_5, Hamming, Narrow, 5, 2)   \
    X(leaf_knn_hamming_narrow_16, Hamming, Narrow, 16, 2) \
    X(leaf_knn_hamming_wide_16, Hamming, Wide, 16, 1)

#define LEAF_KNN(entry, metric, keys, cap, blocks)                                                                       \
    KERNEL void __launch_bounds__(NEAREST_BLOCK, blocks)                                                                 \
        entry(const u8* rows, const u32* norms, u32 stride, const u32* members, const u64* offsets, const u64* tiles,    \
              u32 k, u32 ordinal_bits, u64* lists) {                                                                     \
        leaf_knn<metric, keys, cap>(rows, norms, stride, members, offsets, tiles, k, ordinal_bits, lists);               \
    }
LEAF_KNN_ENTRIES(LEAF_KNN)
