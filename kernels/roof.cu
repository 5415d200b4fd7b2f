// roof_int8: int8 multiply-adds in registers and nothing else: what assign and leaf_knn are measured beside.
//
// Any grid, block any multiple of 32. Multiply-adds done: 1024 * iterations * grid * block, on every architecture:
//   sm_80 and up  CHAINS mma.m16n8k32 an iteration and warp, of 16 * 8 * 32 = 4096 each: CHAINS * 4096 / 32 = 1024 a thread;
//   below         CHAINS * DOTS dp4a an iteration and thread, of 4 each: 8 * 32 * 4 = 1024.
// CHAINS sums do not depend on each other, so instructions need not wait. (On sm_90 this is the roof of mma.sync, which the kernels use;
// wgmma's is higher.) sink [1] gets a sum that all work goes into, the same from every warp: a proof of work, not a figure.
// No shared memory. No twin: CUDA's alone. Floor, operations: as above; bytes: none.
#include "common.cuh"

constexpr u32 CHAINS = 8;

#if ROXANNE_ARCH >= 800
DEVICE u32 work(u32 iterations) {
    u32 a[4], b[2];
    UNROLL
    for (u32 i = 0; i < 4; i++) a[i] = lane_id() * 0x01030507 + i;
    UNROLL
    for (u32 i = 0; i < 2; i++) b[i] = lane_id() * 0x07050301 + i;
    u32 sums[CHAINS][4] = {};
    NO_UNROLL
    for (u32 n = 0; n < iterations; n++) {
        UNROLL
        for (u32 chain = 0; chain < CHAINS; chain++) multiply_add(sums[chain], a, b[0], b[1]);
    }
    u32 total = 0;
    UNROLL
    for (u32 chain = 0; chain < CHAINS; chain++) {
        UNROLL
        for (u32 i = 0; i < 4; i++) total += sums[chain][i];
    }
    return total;
}
#else
constexpr u32 DOTS = 32;

DEVICE u32 work(u32 iterations) {
    u32 b = lane_id() * 0x07050301 + 1;
    u32 sums[CHAINS];
    UNROLL
    for (u32 chain = 0; chain < CHAINS; chain++) sums[chain] = lane_id() * 0x01030507 + chain;
    NO_UNROLL
    for (u32 n = 0; n < iterations; n++) {
        UNROLL
        for (u32 dot = 0; dot < DOTS; dot++) {
            // A sum is also a factor: a product that stays the same could be taken out of the loop.
            UNROLL
            for (u32 chain = 0; chain < CHAINS; chain++) sums[chain] = dot4(sums[chain], b, sums[chain]);
        }
    }
    u32 total = 0;
    UNROLL
    for (u32 chain = 0; chain < CHAINS; chain++) total += sums[chain];
    return total;
}
#endif

KERNEL void roof_int8(u32 iterations, i32* sink) {
    u32 total = warp_sum(work(iterations));
    if (lane_id() == 0) *sink = static_cast<i32>(total);
}
