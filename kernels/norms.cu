// norms: norms [n] u32 <- rows [n x stride] u8, the squared length of each row.
//
// Launch: a warp a row, block any multiple of 32, grid ceil(n * 32 / block). No shared memory.
// No twin: CUDA's alone (shaders sum the squares as rows pass). Specification: `Rows` of core/src/tile.rs. Exact: 8224 * 255^2 < 2^30.
// Floor: memory, n * stride bytes read once.
#include "common.cuh"

KERNEL void __launch_bounds__(256) norms(const u8* __restrict__ rows, u32 stride, u64 n, u32* __restrict__ norms) {
    u64 row = grid_warp();
    if (row >= n) return;
    const u32* words = reinterpret_cast<const u32*>(rows + row * stride);
    u32 sum = 0;
    for (u32 at = lane_id(); at < stride / 4; at += WARP) sum = dot4(words[at], words[at], sum);
    sum = warp_sum(sum);
    if (lane_id() == 0) norms[row] = sum;
}
