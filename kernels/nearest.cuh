// The nearest few columns of each row: the machine of assign and leaf_knn, where a build spends its time.
//
// A block takes 128 rows, 16 a warp, and sweeps the columns in tiles of 64. Both are gathered by id into shared memory, at most 128 bytes
// of each at a time, and multiplied with the accumulators (16 x 64 a warp, 32 a lane) in registers. Selection follows at once: no matrix
// of distances is ever in memory. Every lane keeps a sorted list for each of the two rows whose products it holds (rows g and g + 8,
// columns 2t and 2t + 1 of every eight; g = lane / 4, t = lane % 4), so it sees a quarter of the columns, and the four lanes of a row merge
// their lists once, at the end.
//
// A list takes a newcomer without a branch: every place becomes the middle one of itself, the place before and the newcomer, which is one
// minimum and one maximum. So keys must be integers whose order is (distance, place): 32 bits where they fit (`Narrow`), else 64 (`Wide`).
//
// Bounds: selection, about 2 * cap + 2 integer instructions a pair; beyond some hundred bytes a row, the product.
// Shared memory (static): sizeof(NearestTile) = 27,904 bytes. Exact: all sums wrap, and every distance is below 2^30.
#pragma once
#include "common.cuh"

constexpr u32 NEAREST_BLOCK = 256;
constexpr u32 TILE_ROWS = 128;
constexpr u32 WARP_ROWS = 16;
constexpr u32 TILE_COLUMNS = 64;
/// Columns of one product.
constexpr u32 STEP_COLUMNS = 8;
constexpr u32 STEPS = TILE_COLUMNS / STEP_COLUMNS;
/// Bytes of a row in shared memory at a time, and between two rows there: 36 words, so that the eight rows (of four words) that a warp
/// reads together lie in 32 different banks.
constexpr u32 CHUNK_BYTES = 128;
constexpr u32 PITCH = CHUNK_BYTES + 16;
constexpr u32 PIECE_BYTES = 16;

struct __align__(16) NearestTile {
    u8 rows[TILE_ROWS * PITCH];
    u8 columns[TILE_COLUMNS * PITCH];
    /// What each column adds to its keys, whatever the row.
    u32 terms[TILE_COLUMNS];
};
__shared__ NearestTile nearest_tile;

// A metric is a sum over words, of which a distance is `norms + FACTOR * sum` (norms are those of both sides, or none).
struct L2 {
    static constexpr bool HAS_NORMS = true;
    static constexpr u32 FACTOR = static_cast<u32>(-2);
    DEVICE u32 add(u32 a, u32 b, u32 sum) { return dot4(a, b, sum); }
};
struct L1 {
    static constexpr bool HAS_NORMS = false;
    static constexpr u32 FACTOR = 1;
    DEVICE u32 add(u32 a, u32 b, u32 sum) { return differ4(a, b, sum); }
};
struct Hamming {
    static constexpr bool HAS_NORMS = false;
    static constexpr u32 FACTOR = 1;
    DEVICE u32 add(u32 a, u32 b, u32 sum) { return sum + __popc(a ^ b); }
};

/// Keys `distance << bits | ordinal`, of the columns that this lane sees.
struct Narrow {
    using Key = u32;
    static constexpr Key NONE = ~0u;
    u32 bits;

    template <class Metric> __device__ __forceinline__ u32 factor() const { return Metric::FACTOR << bits; }
    __device__ __forceinline__ u32 row_term(u32 norm) const { return norm << bits; }
    __device__ __forceinline__ u32 column_term(u32 norm, u32 place) const {
        return (norm << bits) + (place / STEP_COLUMNS * 2 + place % 2);
    }
    __device__ __forceinline__ Key key(u32 scaled_distance, u32) const { return scaled_distance; }
    /// Back to an entry (distance, place), in lane t of four.
    __device__ __forceinline__ u64 entry_of(Key key, u32 t) const {
        u32 ordinal = key & ((1u << bits) - 1);
        return key == NONE ? NO_ENTRY : make_entry(key >> bits, ordinal / 2 * STEP_COLUMNS + 2 * t + ordinal % 2);
    }
};

/// Keys are entries (distance, place).
struct Wide {
    using Key = u64;
    static constexpr Key NONE = NO_ENTRY;
    u32 bits;

    template <class Metric> __device__ __forceinline__ u32 factor() const { return Metric::FACTOR; }
    __device__ __forceinline__ u32 row_term(u32 norm) const { return norm; }
    __device__ __forceinline__ u32 column_term(u32 norm, u32) const { return norm; }
    __device__ __forceinline__ Key key(u32 distance, u32 place) const { return make_entry(distance, place); }
    __device__ __forceinline__ u64 entry_of(Key key, u32) const { return key; }
};

/// Keeps the smallest CAP keys, sorted.
template <class Key, u32 CAP> DEVICE void insert(Key (&list)[CAP], Key newcomer) {
    UNROLL
    for (u32 i = CAP - 1; i > 0; i--) list[i] = min(list[i], max(list[i - 1], newcomer));
    list[0] = min(list[0], newcomer);
}

/// Brings bytes start .. start + width of `count` rows by id into shared memory [LIMIT x PITCH]; zeros behind the last.
template <u32 LIMIT> DEVICE void gather(u8* to, const u8* rows, u32 stride, const u32* ids, u32 count, u32 start, u32 width) {
    constexpr u32 PIECES = CHUNK_BYTES / PIECE_BYTES;
    UNROLL
    for (u32 i = 0; i < LIMIT * PIECES / NEAREST_BLOCK; i++) {
        u32 row = (i * NEAREST_BLOCK + threadIdx.x) / PIECES, offset = threadIdx.x % PIECES * PIECE_BYTES;
        if (offset >= width) continue;
        uint4 piece = make_uint4(0, 0, 0, 0);
        if (row < count) piece = *reinterpret_cast<const uint4*>(rows + static_cast<u64>(ids[row]) * stride + start + offset);
        *reinterpret_cast<uint4*>(to + row * PITCH + offset) = piece;
    }
}

/// sums [16 x 64] += the product of 16 rows and the first `count` columns over `width` bytes; what stands behind those means nothing.
template <class Metric> struct Product {
    DEVICE void add(u32 (&sums)[STEPS][4], const u8* rows, const u8* columns, u32 width, u32 count) {
        u32 g = lane_id() / 4, t = lane_id() % 4;
        NO_UNROLL
        for (u32 offset = 0; offset < width; offset += PIECE_BYTES) {
            uint4 row[2];
            UNROLL
            for (u32 half = 0; half < 2; half++) row[half] = *reinterpret_cast<const uint4*>(rows + (g + 8 * half) * PITCH + offset);
            UNROLL
            for (u32 step = 0; step < STEPS; step++) {
                if (step * STEP_COLUMNS >= count) break;
                UNROLL
                for (u32 side = 0; side < 2; side++) {
                    uint4 b = *reinterpret_cast<const uint4*>(columns + (step * STEP_COLUMNS + 2 * t + side) * PITCH + offset);
                    UNROLL
                    for (u32 half = 0; half < 2; half++) {
                        u32& sum = sums[step][2 * half + side];
                        uint4 a = row[half];
                        sum = Metric::add(a.w, b.w, Metric::add(a.z, b.z, Metric::add(a.y, b.y, Metric::add(a.x, b.x, sum))));
                    }
                }
            }
        }
    }
};

#if ROXANNE_ARCH >= 800
template <> struct Product<L2> {
    DEVICE void add(u32 (&sums)[STEPS][4], const u8* rows, const u8* columns, u32 width, u32 count) {
        // Rows and halves of the four matrices that one ldmatrix brings: A wants (rows, rows + 8) before the other 16 bytes, B the reverse.
        u32 lane = lane_id(), row = lane % 8, low = lane / 8 % 2, high = lane / 16;
        const u8* a_at = rows + (row + 8 * low) * PITCH + PIECE_BYTES * high;
        const u8* b_at = columns + (row + 8 * high) * PITCH + PIECE_BYTES * low;
        NO_UNROLL
        for (u32 offset = 0; offset < width; offset += 2 * PIECE_BYTES) {
            u32 a[4];
            load_matrices(a, a_at + offset);
            UNROLL
            for (u32 step = 0; step < STEPS; step += 2) {
                if (step * STEP_COLUMNS >= count) break;
                u32 b[4];
                load_matrices(b, b_at + step * STEP_COLUMNS * PITCH + offset);
                multiply_add(sums[step], a, b[0], b[1]);
                multiply_add(sums[step + 1], a, b[2], b[3]);
            }
        }
    }
};
#endif

/// For each of `row_count` rows (1 ..= 128) the nearest `k` <= CAP of `column_count` columns: `write(row, rank, entry (distance, place))`.
/// With OTHERS the columns are the rows' own group, row 0 is the one at place `first`, and no row finds itself. The whole block comes here.
template <class Metric, class Keys, u32 CAP, bool OTHERS, class Write>
DEVICE void find_nearest(const u8* rows, const u32* norms, u32 stride, const u32* row_ids, u32 row_count, u32 first, const u32* column_ids,
                         u32 column_count, u32 k, Keys keys, Write write) {
    using Key = typename Keys::Key;
    NearestTile& tile = nearest_tile;
    u32 g = lane_id() / 4, t = lane_id() % 4, warp_row = warp_id() * WARP_ROWS;
    bool has_rows = warp_row < row_count;
    u32 factor = keys.template factor<Metric>();

    Key lists[2][CAP];
    u32 row_terms[2];
    UNROLL
    for (u32 half = 0; half < 2; half++) {
        u32 row = warp_row + g + 8 * half;
        row_terms[half] = Metric::HAS_NORMS && row < row_count ? keys.row_term(norms[row_ids[row]]) : 0;
        UNROLL
        for (u32 i = 0; i < CAP; i++) lists[half][i] = Keys::NONE;
    }

    NO_UNROLL
    for (u32 base = 0; base < column_count; base += TILE_COLUMNS) {
        u32 count = min(TILE_COLUMNS, column_count - base);
        u32 sums[STEPS][4];
        UNROLL
        for (u32 step = 0; step < STEPS; step++) {
            UNROLL
            for (u32 i = 0; i < 4; i++) sums[step][i] = 0;
        }
        NO_UNROLL
        for (u32 start = 0; start < stride; start += CHUNK_BYTES) {
            u32 width = min(CHUNK_BYTES, stride - start);
            __syncthreads();
            // Short rows stay where they are for the whole sweep.
            if (base == 0 || stride > CHUNK_BYTES) gather<TILE_ROWS>(tile.rows, rows, stride, row_ids, row_count, start, width);
            gather<TILE_COLUMNS>(tile.columns, rows, stride, column_ids + base, count, start, width);
            if (start == 0 && threadIdx.x < count) {
                u32 norm = Metric::HAS_NORMS ? norms[column_ids[base + threadIdx.x]] : 0;
                tile.terms[threadIdx.x] = keys.column_term(norm, base + threadIdx.x);
            }
            __syncthreads();
            if (has_rows) Product<Metric>::add(sums, tile.rows + warp_row * PITCH, tile.columns, width, count);
        }
        if (!has_rows) continue;
        UNROLL
        for (u32 step = 0; step < STEPS; step++) {
            u32 column = step * STEP_COLUMNS;
            if (column >= count) break;
            u32 own = first + warp_row;
            // Most steps have eight columns, none of them one of the rows.
            bool is_edge = column + STEP_COLUMNS > count;
            if (OTHERS) is_edge |= base + column + STEP_COLUMNS > own && base + column < own + WARP_ROWS;
            UNROLL
            for (u32 i = 0; i < 4; i++) {
                u32 half = i / 2, at = column + 2 * t + i % 2;
                Key key = keys.key(sums[step][i] * factor + tile.terms[at] + row_terms[half], base + at);
                if (is_edge && (at >= count || (OTHERS && base + at == own + g + 8 * half))) key = Keys::NONE;
                insert(lists[half], key);
            }
        }
    }
    if (!has_rows) return;

    UNROLL
    for (u32 half = 0; half < 2; half++) {
        u32 row = warp_row + g + 8 * half;
        NO_UNROLL
        for (u32 rank = 0; rank < k; rank++) {
            u64 own = keys.entry_of(lists[half][0], t);
            u64 best = min(own, __shfl_xor_sync(FULL_MASK, own, 1));
            best = min(best, __shfl_xor_sync(FULL_MASK, best, 2));
            if (own == best) {
                UNROLL
                for (u32 i = 0; i + 1 < CAP; i++) lists[half][i] = lists[half][i + 1];
                lists[half][CAP - 1] = Keys::NONE;
            }
            if (rank % 4 == t && row < row_count) write(row, rank, best);
        }
    }
}
