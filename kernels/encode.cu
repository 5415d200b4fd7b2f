// encode: PQ codes [count x subspaces] of rows first .. first + count.
//
// A block = 16 vectors, block of 256: a warp has two vectors, a lane of it the centroids 8 * lane .. 8 * lane + 7. So a coordinate's
// 256 centroids ([dim][256]) are one coalesced read of a warp, and sixteen multiply-adds a lane follow; the nearest is chosen within the
// warp by (score, smaller centroid). Threads past the end do nothing.
//
// Fixed-point coordinates y wait in shared memory, i16 [WINDOW coordinates][16 vectors], 32 KiB; wider vectors pass through it window by
// window (dim <= 8224). With a rotation (dim <= WINDOW) all of y must be there at once, and the centered bytes x it is made of,
// i8 [dim][16 vectors], 16 KiB. Static shared memory: 48 KiB, all that a block may have without asking.
//
// rows, rotation, centroids and starts are 16-byte aligned. All sums wrap at 32 bits. Needs sm_61 (dp2a: i16 times i8, the rotation).
// Twin: ../shaders/encode.wgsl; specification: core/src/pq (kernel.rs nearest_scalar, rotation.rs rotate_block); equal to it.
// Floor, operations: 256 * dim multiply-adds a vector, and dim * dim more with a rotation; bytes: stride + subspaces a vector.
#include "common.cuh"

constexpr u32 VECTORS = 16;
constexpr u32 PAIRS = VECTORS / 2;
constexpr u32 CENTROIDS = 256;
constexpr u32 WINDOW = 1024;
constexpr u32 BLOCK = 256;
// Blocks that shall fit on a multiprocessor where shared memory allows it: at most 64 registers a thread.
constexpr u32 BLOCKS_AT_ONCE = 4;
// Centroids of a lane.
constexpr u32 SHARE = CENTROIDS / WARP;
// Coordinates that a thread takes at a time from a row.
constexpr u32 PIECE = 16;
// Entries of the rotation that a thread takes at a time.
constexpr u32 ENTRIES = 8;
constexpr u32 ENTRY_BITS = 14;
constexpr i32 I16_LARGEST = 32767;

// 16 bytes, read and written as one.
struct alignas(16) Sixteen {
    u32 words[4];
};

// A coordinate of a warp's two vectors.
struct alignas(4) Pair {
    i16 of_vector[2];
};

// Coordinates first .. first + 16 of a row, less 128, as i8: the bytes themselves, or 255 times each bit.
DEVICE Sixteen centered(const u8* row, u32 first, u32 bits) {
    Sixteen piece;
    if (bits) {
        u32 sixteen = row[first / 8] | u32(row[first / 8 + 1]) << 8;
        UNROLL
        for (u32 w = 0; w < 4; w++) piece.words[w] = ((sixteen >> 4 * w & 15) * 0x00204081 & 0x01010101) * 255;
    } else {
        piece = *reinterpret_cast<const Sixteen*>(row + first);
    }
    UNROLL
    for (u32 w = 0; w < 4; w++) piece.words[w] ^= 0x80808080;
    return piece;
}

DEVICE i32 byte_of(u32 word, u32 byte) {
    return i32(word << (24 - 8 * byte)) >> 24;
}

// The rows of a block: where they begin, and how many there are.
struct Block {
    const u8* rows;
    u32 present;
    u32 stride;
    u32 dim;
    u32 bits;
};

// y of coordinates `start ..` without a rotation, as far as the window goes. Missing vectors stay as they are: nobody reads their codes.
DEVICE void fill_window(const Block& block, u32 start, u32 fraction_bits, Pair* window) {
    u32 vector = threadIdx.x % VECTORS;
    if (vector >= block.present) return;
    const u8* row = block.rows + u64(vector) * block.stride;
    for (u32 j = threadIdx.x / VECTORS * PIECE; j < WINDOW && start + j < block.dim; j += BLOCK / VECTORS * PIECE) {
        Sixteen piece = centered(row, start + j, block.bits);
        UNROLL
        for (u32 c = 0; c < PIECE; c++) {
            i32 x = byte_of(piece.words[c / 4], c % 4);
            window[(j + c) * PAIRS + vector / 2].of_vector[vector % 2] = i16(x * (1 << fraction_bits));
        }
    }
}

// x of all coordinates, [dim / 4][VECTORS] words of four; missing vectors are zero.
DEVICE void fill_centered(const Block& block, u32* x) {
    u32 vector = threadIdx.x % VECTORS;
    const u8* row = block.rows + u64(vector) * block.stride;
    for (u32 j = threadIdx.x / VECTORS * PIECE; j < block.dim; j += BLOCK / VECTORS * PIECE) {
        Sixteen piece = {{0, 0, 0, 0}};
        if (vector < block.present) piece = centered(row, j, block.bits);
        UNROLL
        for (u32 w = 0; w < 4; w++) x[(j / 4 + w) * VECTORS + vector] = piece.words[w];
    }
}

// Entries first .. first + ENTRIES of a row of the rotation, in pairs; zero behind its end. `whole` says that rows are aligned pieces.
DEVICE Sixteen rotation_piece(const i16* row, u32 first, u32 dim, bool whole) {
    if (whole) return *reinterpret_cast<const Sixteen*>(row + first);
    Sixteen piece = {{0, 0, 0, 0}};
    UNROLL
    for (u32 e = 0; e < ENTRIES; e++) {
        if (first + e < dim) piece.words[e / 2] |= u32(u16(row[first + e])) << (e % 2 * 16);
    }
    return piece;
}

// y = the rotation times x: a thread has one coordinate of all vectors.
DEVICE void rotate(const i16* rotation, u32 dim, u32 fraction_bits, const u32* x, Pair* window) {
    u32 shift = ENTRY_BITS - fraction_bits;
    bool whole = dim % ENTRIES == 0;
    for (u32 i = threadIdx.x; i < dim; i += BLOCK) {
        const i16* row = rotation + u64(i) * dim;
        i32 sums[VECTORS];
        UNROLL
        for (u32 v = 0; v < VECTORS; v++) sums[v] = 0;
        for (u32 j = 0; j < dim; j += ENTRIES) {
            Sixteen entries = rotation_piece(row, j, dim, whole);
            UNROLL
            for (u32 half = 0; half < 2; half++) {
                const Sixteen* words = reinterpret_cast<const Sixteen*>(x + (j / 4 + half) * VECTORS);
                UNROLL
                for (u32 quarter = 0; quarter < VECTORS / 4; quarter++) {
                    Sixteen of_four = words[quarter];
                    UNROLL
                    for (u32 c = 0; c < 4; c++) {
                        i32& sum = sums[quarter * 4 + c];
                        sum = dot2_low(entries.words[2 * half], of_four.words[c], sum);
                        sum = dot2_high(entries.words[2 * half + 1], of_four.words[c], sum);
                    }
                }
            }
        }
        UNROLL
        for (u32 v = 0; v < VECTORS; v++) {
            i32 rounded = i32(u32(sums[v]) + (1u << (shift - 1))) >> shift;
            window[i * PAIRS + v / 2].of_vector[v % 2] = i16(max(-I16_LARGEST, min(I16_LARGEST, rounded)));
        }
    }
}

// A centroid and what it scores.
struct Choice {
    i32 score;
    u32 centroid;
};

// The larger score; among equal ones the smaller centroid.
DEVICE Choice better(Choice a, Choice b) {
    return b.score > a.score || (b.score == a.score && b.centroid < a.centroid) ? b : a;
}

DEVICE Choice from_lane_xor(Choice choice, u32 mask) {
    return {__shfl_xor_sync(FULL_MASK, choice.score, mask), __shfl_xor_sync(FULL_MASK, choice.centroid, mask)};
}

// The best of a lane's centroids.
DEVICE Choice best_of(const u32* scores, u32 lane) {
    Choice best = {i32(scores[0]), lane * SHARE};
    UNROLL
    for (u32 c = 1; c < SHARE; c++) {
        if (i32(scores[c]) > best.score) best = {i32(scores[c]), lane * SHARE + c};
    }
    return best;
}

KERNEL void __launch_bounds__(BLOCK, BLOCKS_AT_ONCE)
    encode(const u8* __restrict__ rows, u32 stride, u64 first, u32 count, u32 dim, u32 bits, u32 subspaces, const u32* __restrict__ offsets,
           u32 fraction_bits, const i16* __restrict__ rotation, const i16* __restrict__ centroids, const i32* __restrict__ starts,
           u8* __restrict__ codes) {
    STATIC_SHARED(Pair, window, WINDOW * PAIRS);
    STATIC_SHARED(Sixteen, x, WINDOW * VECTORS / 16);
    u32 lane = lane_id(), warp = warp_id();
    u64 block_first = u64(blockIdx.x) * VECTORS;
    // A rotation of more than a window is refused by the host.
    if (block_first >= count || (rotation && dim > WINDOW)) return;
    u32 present = u32(count - block_first < VECTORS ? count - block_first : VECTORS);
    Block block = {rows + (first + block_first) * stride, present, stride, dim, bits};
    u32 window_start = 0, window_end = 0;
    if (rotation) {
        fill_centered(block, reinterpret_cast<u32*>(x));
        __syncthreads();
        rotate(rotation, dim, fraction_bits, reinterpret_cast<const u32*>(x), window);
        __syncthreads();
        window_end = dim;
    }
    // The lower half of the lanes ends with the codes of the warp's first vector, the upper half with those of the second; each half
    // collects sixteen and writes them side by side.
    const u32 half = WARP / 2;
    u32 vector = 2 * warp + lane / half;
    u8* out = codes + (block_first + vector) * subspaces;
    u32 held = 0;
    for (u32 s = 0; s < subspaces; s++) {
        u32 scores[2][SHARE];
        UNROLL
        for (u32 part = 0; part < SHARE / 4; part++) {
            Sixteen four = *reinterpret_cast<const Sixteen*>(starts + u64(s) * CENTROIDS + lane * SHARE + part * 4);
            UNROLL
            for (u32 c = 0; c < 4; c++) scores[0][part * 4 + c] = scores[1][part * 4 + c] = four.words[c];
        }
        u32 end = min(dim, offsets[s + 1]);
        for (u32 j = offsets[s]; j < end;) {
            if (j == window_end) {
                __syncthreads();
                fill_window(block, j, fraction_bits, window);
                __syncthreads();
                window_start = j;
                window_end = min(dim, j + WINDOW);
            }
            u32 stop = min(end, window_end);
            for (; j < stop; j++) {
                Sixteen pairs = *reinterpret_cast<const Sixteen*>(centroids + u64(j) * CENTROIDS + lane * SHARE);
                Pair y = window[(j - window_start) * PAIRS + warp];
                UNROLL
                for (u32 c = 0; c < SHARE; c++) {
                    i32 centroid = c % 2 ? i32(pairs.words[c / 2]) >> 16 : i32(pairs.words[c / 2] << 16) >> 16;
                    scores[0][c] += u32(centroid * y.of_vector[0]);
                    scores[1][c] += u32(centroid * y.of_vector[1]);
                }
            }
        }
        Choice of_first = best_of(scores[0], lane), of_second = best_of(scores[1], lane);
        Choice best = lane < half ? of_first : of_second;
        best = better(best, from_lane_xor(lane < half ? of_second : of_first, half));
        UNROLL
        for (u32 step = half / 2; step > 0; step /= 2) best = better(best, from_lane_xor(best, step));
        u32 slot = s % half;
        if (slot == lane % half) held = best.centroid;
        bool is_full = slot == half - 1 || s + 1 == subspaces;
        if (is_full && vector < present && lane % half <= slot) out[s - slot + lane % half] = u8(held);
    }
}
