// sort: one stable pass of a radix sort of (u32 key, u32 value) pairs by the 8 bits of the key above `shift`; four passes sort.
//
// sort_count    block of 256 = 4096 pairs, tiles = ceil(n / 4096): counts[digit * tiles + tile] of every digit.
// sort_scatter  the same tiles; `offsets` are the exclusive prefix sums of the counts (scan.cu), in that same digit-major order.
//               A pair goes to offsets[its digit, its tile] plus the number of pairs before it in its tile with the same digit: stable.
//               Pairs are put in order of digit in shared memory first, so that a digit's run is written by neighboring threads.
// Blocks past the end do nothing. Needs sm_70 (__match_any_sync). Static shared memory: 8,192 and 43,040 bytes.
// No twin: CUDA's alone (other backends sort on the CPU).
// Floor, bytes: count 4 * n read; scatter 8 * n read + 8 * n written.
#include "common.cuh"

constexpr u32 BLOCK = 256;
constexpr u32 WARPS = BLOCK / WARP;
constexpr u32 TILE = 4096;
constexpr u32 DIGITS = 256;
// A warp has WARP * ROUNDS neighboring pairs, so order within a tile is (warp, round, lane).
constexpr u32 ROUNDS = TILE / BLOCK;

// Counts the pairs of this warp by digit into `counts` [DIGITS], which are zero; ranks[r] becomes how many were before this lane's r-th
// one with the same digit.
DEVICE void rank_in_warp(const u32* keys, u64 first, u64 n, u32 shift, u32* counts, u32 lane, u32* key, u32* ranks) {
    // All reads are under way before the first barrier.
    UNROLL
    for (u32 r = 0; r < ROUNDS; r++) {
        u64 i = first + r * WARP + lane;
        key[r] = i < n ? keys[i] : 0;
    }
    UNROLL
    for (u32 r = 0; r < ROUNDS; r++) {
        bool there = first + r * WARP + lane < n;
        u32 digit = key[r] >> shift & (DIGITS - 1);
        // Lanes without a pair agree on a digit that none has.
        u32 same = __match_any_sync(FULL_MASK, there ? digit : DIGITS);
        u32 before = __popc(same & ((1u << lane) - 1));
        ranks[r] = there ? counts[digit] + before : 0;
        __syncwarp();
        if (there && before == 0) counts[digit] += __popc(same);
        __syncwarp();
    }
}

KERNEL void __launch_bounds__(BLOCK) sort_count(const u32* __restrict__ keys, u64 n, u32 shift, u64 tiles, u32* __restrict__ counts) {
    STATIC_SHARED(u32, by_warp, WARPS * DIGITS);
    u32 lane = lane_id(), warp = warp_id();
    if (blockIdx.x >= tiles) return;
    for (u32 i = threadIdx.x; i < WARPS * DIGITS; i += BLOCK) by_warp[i] = 0;
    __syncthreads();
    u32 key[ROUNDS], ranks[ROUNDS];
    rank_in_warp(keys, u64(blockIdx.x) * TILE + warp * (WARP * ROUNDS), n, shift, by_warp + warp * DIGITS, lane, key, ranks);
    __syncthreads();
    u32 digit = threadIdx.x;
    u32 count = 0;
    for (u32 w = 0; w < WARPS; w++) count += by_warp[w * DIGITS + digit];
    counts[digit * tiles + blockIdx.x] = count;
}

KERNEL void __launch_bounds__(BLOCK) sort_scatter(const u32* __restrict__ keys, const u32* __restrict__ values, u64 n, u32 shift, u64 tiles,
                                                  const u64* __restrict__ offsets, u32* __restrict__ keys_out,
                                                  u32* __restrict__ values_out) {
    STATIC_SHARED(u32, by_warp, WARPS * DIGITS);
    STATIC_SHARED(u32, staged_keys, TILE);
    STATIC_SHARED(u32, staged_values, TILE);
    STATIC_SHARED(u64, targets, DIGITS);
    STATIC_SHARED(u32, warp_sums, WARPS);
    u32 lane = lane_id(), warp = warp_id();
    if (blockIdx.x >= tiles) return;
    for (u32 i = threadIdx.x; i < WARPS * DIGITS; i += BLOCK) by_warp[i] = 0;
    __syncthreads();
    u64 tile_start = u64(blockIdx.x) * TILE;
    u64 first = tile_start + warp * (WARP * ROUNDS);
    u32 key[ROUNDS], ranks[ROUNDS];
    rank_in_warp(keys, first, n, shift, by_warp + warp * DIGITS, lane, key, ranks);
    __syncthreads();

    // A thread a digit: where it begins in the tile, and within it each warp's part.
    u32 digit = threadIdx.x;
    u32 count = 0;
    for (u32 w = 0; w < WARPS; w++) count += by_warp[w * DIGITS + digit];
    u32 inclusive = count;
    for (u32 step = 1; step < WARP; step *= 2) {
        u32 before = __shfl_up_sync(FULL_MASK, inclusive, step);
        if (lane >= step) inclusive += before;
    }
    if (lane == WARP - 1) warp_sums[warp] = inclusive;
    __syncthreads();
    u32 start = inclusive - count;
    for (u32 w = 0; w < warp; w++) start += warp_sums[w];
    // From a place in the tile to one in the output: may be "negative", and wraps back when the place is added.
    targets[digit] = offsets[digit * tiles + blockIdx.x] - start;
    for (u32 w = 0; w < WARPS; w++) {
        u32 of_warp = by_warp[w * DIGITS + digit];
        by_warp[w * DIGITS + digit] = start;
        start += of_warp;
    }
    __syncthreads();

    UNROLL
    for (u32 r = 0; r < ROUNDS; r++) {
        u64 i = first + r * WARP + lane;
        if (i >= n) continue;
        u32 place = by_warp[warp * DIGITS + (key[r] >> shift & (DIGITS - 1))] + ranks[r];
        staged_keys[place] = key[r];
        staged_values[place] = values[i];
    }
    __syncthreads();
    u32 in_tile = u32(n - tile_start < TILE ? n - tile_start : TILE);
    for (u32 place = threadIdx.x; place < in_tile; place += BLOCK) {
        u32 staged = staged_keys[place];
        u64 target = targets[staged >> shift & (DIGITS - 1)] + place;
        keys_out[target] = staged;
        values_out[target] = staged_values[place];
    }
}
