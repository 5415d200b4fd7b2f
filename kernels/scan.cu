// scan: exclusive prefix sums of u32 counts as u64 offsets, in three launches. n may be 0.
//
// scan_tiles  block of 256 = 2048 values: sums[tile] = their sum; tiles = ceil(n / 2048), grid at least max(1, tiles).
// scan_sums   one block of 256: sums [tiles + 1] become their own exclusive prefix sums, the total at sums[tiles].
// scan_apply  as scan_tiles: offsets[0 ..= n]; offsets[n] = the total.
// Blocks past the end do nothing. Static shared memory: 64 bytes. No twin: CUDA's alone (other backends count and add on the CPU).
// Floor, bytes: 8 * n read + 8 * n written.
#include "common.cuh"

constexpr u32 BLOCK = 256;
constexpr u32 WARPS = BLOCK / WARP;
constexpr u32 TILE = 2048;
// Values that one lane of a tile takes: a warp has WARP * ROUNDS neighboring ones.
constexpr u32 ROUNDS = TILE / BLOCK;

// Sum over the lanes up to and with this one.
DEVICE u64 inclusive_in_warp(u64 value, u32 lane) {
    for (u32 step = 1; step < WARP; step *= 2) {
        u64 before = __shfl_up_sync(FULL_MASK, value, step);
        if (lane >= step) value += before;
    }
    return value;
}

// What the warps before this one have, and all together: one value a warp in, `room` [WARPS] is shared. All threads come here.
struct Before {
    u64 sum;
    u64 total;
};
DEVICE Before before_warp(u64 of_warp, u64* room, u32 warp, u32 lane) {
    __syncthreads();
    if (lane == 0) room[warp] = of_warp;
    __syncthreads();
    Before before = {0, 0};
    for (u32 w = 0; w < WARPS; w++) {
        if (w < warp) before.sum += room[w];
        before.total += room[w];
    }
    return before;
}

KERNEL void __launch_bounds__(BLOCK) scan_tiles(const u32* __restrict__ values, u64 n, u64* __restrict__ sums) {
    STATIC_SHARED(u64, room, WARPS);
    u32 lane = lane_id(), warp = warp_id();
    u64 tile_start = u64(blockIdx.x) * TILE;
    if (tile_start >= n) return;
    u64 sum = 0;
    for (u64 i = tile_start + threadIdx.x; i < n && i < tile_start + TILE; i += BLOCK) sum += values[i];
    u64 of_warp = __shfl_sync(FULL_MASK, inclusive_in_warp(sum, lane), WARP - 1);
    Before before = before_warp(of_warp, room, warp, lane);
    if (threadIdx.x == 0) sums[blockIdx.x] = before.total;
}

KERNEL void __launch_bounds__(BLOCK) scan_sums(u64* sums, u64 tiles) {
    STATIC_SHARED(u64, room, WARPS);
    u32 lane = lane_id(), warp = warp_id();
    u64 carry = 0;
    for (u64 base = 0; base < tiles; base += BLOCK) {
        u64 i = base + threadIdx.x;
        u64 value = i < tiles ? sums[i] : 0;
        u64 inclusive = inclusive_in_warp(value, lane);
        Before before = before_warp(__shfl_sync(FULL_MASK, inclusive, WARP - 1), room, warp, lane);
        if (i < tiles) sums[i] = carry + before.sum + inclusive - value;
        carry += before.total;
    }
    if (threadIdx.x == 0) sums[tiles] = carry;
}

KERNEL void __launch_bounds__(BLOCK) scan_apply(const u32* __restrict__ values, u64 n, const u64* __restrict__ sums,
                                                u64* __restrict__ offsets) {
    STATIC_SHARED(u64, room, WARPS);
    u32 lane = lane_id(), warp = warp_id();
    u64 tile_start = u64(blockIdx.x) * TILE;
    if (blockIdx.x == 0 && threadIdx.x == 0) offsets[n] = sums[(n + TILE - 1) / TILE];
    if (tile_start >= n) return;
    u64 first = tile_start + warp * (WARP * ROUNDS) + lane;
    u64 exclusive[ROUNDS];
    u64 carry = 0;
    UNROLL
    for (u32 r = 0; r < ROUNDS; r++) {
        u64 i = first + r * WARP;
        u64 value = i < n ? values[i] : 0;
        u64 inclusive = inclusive_in_warp(value, lane);
        exclusive[r] = carry + inclusive - value;
        carry += __shfl_sync(FULL_MASK, inclusive, WARP - 1);
    }
    u64 base = sums[blockIdx.x] + before_warp(carry, room, warp, lane).sum;
    UNROLL
    for (u32 r = 0; r < ROUNDS; r++) {
        u64 i = first + r * WARP;
        if (i < n) offsets[i] = base + exclusive[r];
    }
}
