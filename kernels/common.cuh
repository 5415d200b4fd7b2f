// What all kernels share: short names, entries, warps, and the few instructions that CUDA C++ has no name for.
//
// Includes nothing, so that NVRTC needs no headers. With ROXANNE_HOST the same sources are C++ over host/shim.h.
#pragma once

#ifdef ROXANNE_HOST
#include "host/shim.h"
#ifndef ROXANNE_HOST_ARCH
#define ROXANNE_HOST_ARCH 800
#endif
#define ROXANNE_ARCH ROXANNE_HOST_ARCH
/// An entry: what the host launches. C linkage on the device; a plain function here, where names like `rename` are taken.
#define KERNEL [[maybe_unused]] static
/// A function of one kernel file, inlined.
#define DEVICE [[maybe_unused]] static inline
#define UNROLL
#define NO_UNROLL
/// `name` is dynamic shared memory, seen as an array of `type`.
#define DYNAMIC_SHARED(type, name) type* name = host::dynamic_shared<type>()
#else
#ifdef __CUDA_ARCH__
#define ROXANNE_ARCH __CUDA_ARCH__
#else
#define ROXANNE_ARCH 0
#endif
#define KERNEL extern "C" __global__
#define DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#define DYNAMIC_SHARED(type, name)                     \
    extern __shared__ __align__(16) u8 dynamic_bytes[]; \
    type* name = reinterpret_cast<type*>(dynamic_bytes)
#endif
/// An array that the lanes of a block share. At namespace scope or in an entry, not in templates.
#define STATIC_SHARED(type, name, count) __shared__ type name[count]

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i8 = signed char;
using i16 = short;
using i32 = int;
using i64 = long long;

constexpr u32 WARP = 32;
constexpr u32 FULL_MASK = 0xffffffffu;
constexpr u64 NO_ENTRY = ~0ull;

DEVICE u64 make_entry(u32 distance, u32 number) { return static_cast<u64>(distance) << 32 | number; }
DEVICE u32 entry_distance(u64 entry) { return static_cast<u32>(entry >> 32); }
DEVICE u32 entry_number(u64 entry) { return static_cast<u32>(entry); }

DEVICE u32 lane_id() { return threadIdx.x % WARP; }
DEVICE u32 warp_id() { return threadIdx.x / WARP; }
/// The number of this thread, and of this warp, in the whole grid.
DEVICE u64 grid_thread() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE u64 grid_warp() { return grid_thread() / WARP; }

/// The lanes before `lane`.
DEVICE u32 lanes_below(u32 lane) { return (1u << lane) - 1; }

/// The sum over all lanes of a warp, in every lane.
DEVICE u32 warp_sum(u32 value) {
    UNROLL
    for (u32 step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(FULL_MASK, value, step);
    return value;
}

/// Sum of the products of the four bytes of `a` and `b`, added to `sum`. (NVRTC declares __dp4a, but without headers has no body for it.)
DEVICE u32 dot4(u32 a, u32 b, u32 sum) {
#ifdef ROXANNE_HOST
    return __dp4a(a, b, sum);
#else
    asm("dp4a.u32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#endif
}

/// The two i16 of `a` times the first (`low`) or last (`high`) two i8 of `b`, added to `sum`.
DEVICE i32 dot2_low(u32 a, u32 b, i32 sum) {
#ifdef ROXANNE_HOST
    return __dp2a_lo(static_cast<i32>(a), static_cast<i32>(b), sum);
#else
    asm("dp2a.lo.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#endif
}
DEVICE i32 dot2_high(u32 a, u32 b, i32 sum) {
#ifdef ROXANNE_HOST
    return __dp2a_hi(static_cast<i32>(a), static_cast<i32>(b), sum);
#else
    asm("dp2a.hi.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#endif
}

/// Sum of the absolute differences of the four bytes of `a` and `b`, added to `sum`.
DEVICE u32 differ4(u32 a, u32 b, u32 sum) { return dot4(__vabsdiffu4(a, b), 0x01010101u, sum); }

#if ROXANNE_ARCH >= 800
/// c [16 x 8] (u32 or i32) += a [16 x 32] * b [32 x 8] of u8, by one warp: `mma.m16n8k32`. With g = lane / 4 and t = lane % 4 a lane
/// holds, of A, rows g (a[0], a[2]) and g + 8 (a[1], a[3]), bytes 4t .. 4t + 4 (a[0], a[1]) and the same 16 further on (a[2], a[3]); of B,
/// column g, bytes 4t .. 4t + 4 (b0) and 16 further on (b1); of C, columns 2t and 2t + 1 of rows g (c[0], c[1]) and g + 8 (c[2], c[3]).
template <class Sum> DEVICE void multiply_add(Sum (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#ifdef ROXANNE_HOST
    host::Fragments fragments{reinterpret_cast<u32*>(c), a, {b0, b1}};
    host::meet(host::Meeting::product, FULL_MASK, __LINE__, 0, 0, &fragments);
#else
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/// Four matrices of 8 rows of 16 bytes, from shared memory: lane l names row l % 8 of matrix l / 8 (16-byte aligned), and gets of matrix i
/// the bytes 4t .. 4t + 4 of row g: `ldmatrix.x4`.
DEVICE void load_matrices(u32 (&out)[4], const u8* row) {
#ifdef ROXANNE_HOST
    host::word rows[32];
    host::meet(host::Meeting::gather, FULL_MASK, __LINE__, reinterpret_cast<host::word>(row), 0, rows);
    for (u32 i = 0; i < 4; i++) memcpy(&out[i], reinterpret_cast<const u8*>(rows[8 * i + lane_id() / 4]) + 4 * (lane_id() % 4), 4);
#else
    u32 address = static_cast<u32>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
#endif
}
#endif
