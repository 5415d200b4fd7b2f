// CUDA's dialect for a C++ compiler, so that the kernels run without a GPU. A test tool, small and slow.
//
// The blocks of a launch run one after the other; the lanes of a block are fibers that run one at a time and meet at barriers, shuffles,
// votes and matrix products. Between meetings they run in an order that a seed permutes, and all shared memory is garbage when a block
// begins: a missing barrier or initialisation shows as a result that changes with the seed. A lane that waits for one that never comes,
// or for one that waits elsewhere, ends the launch with a message. Not checked: reads and writes past the end of global memory.
#pragma once
#include "fiber.h"
#include <cstdarg>
#include <cstdio>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
/// One instance for all blocks, in a section of its own so that each block finds it poisoned. In entries and at namespace scope only;
/// dynamic shared memory is DYNAMIC_SHARED of common.cuh.
#define __shared__ static __attribute__((section("roxanne_shared")))

struct uint2 { unsigned x, y; } __attribute__((aligned(8)));
struct uint4 { unsigned x, y, z, w; } __attribute__((aligned(16)));
struct ulonglong2 { unsigned long long x, y; } __attribute__((aligned(16)));
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }
struct HostDim { unsigned x = 0, y = 0, z = 0; };
static HostDim threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

extern "C" char __start_roxanne_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_roxanne_shared[] __attribute__((weak, visibility("hidden")));

namespace host {

using word = unsigned long long;
constexpr unsigned LANES = 32, MAX_LANES = 1024;
constexpr size_t MAX_SHARED_BYTES = 227 << 10, GUARD_BYTES = 4096;

/// What lanes meet for.
enum class Meeting { none, block, block_count, warp, shuffle, ballot, match, gather, product };
inline const char* name_of(Meeting meeting) {
    const char* names[] = {"nothing", "__syncthreads", "__syncthreads_count", "__syncwarp", "a shuffle", "a vote", "__match_any_sync",
                           "ldmatrix", "mma"};
    return names[static_cast<int>(meeting)];
}

/// The registers of `mma.m16n8k32` that one lane holds.
struct Fragments {
    unsigned* c;
    const unsigned* a;
    unsigned b[2];
};

struct Lane {
    void* stack;
    bool done;
    Meeting meeting;
    unsigned mask;
    int line;
    word value;       // brought to the meeting
    unsigned source;  // of a shuffle
    void* exchange;   // word[32] of a gather, Fragments of a product
    word result;      // taken from it
};

struct State {
    char* stacks = nullptr;
    void* scheduler = nullptr;
    Lane lanes[MAX_LANES];
    unsigned count = 0, current = 0;
    void (*run)(void**) = nullptr;
    void** args = nullptr;
    unsigned long long random = 0;
    bool permute = false;
    alignas(128) char dynamic[MAX_SHARED_BYTES + GUARD_BYTES];
    char message[512];
    bool failed = false;
};
static State state;

__attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
    if (state.failed) return;
    state.failed = true;
    va_list list;
    va_start(list, format);
    vsnprintf(state.message, sizeof state.message, format, list);
    va_end(list);
}

/// xorshift64*.
inline unsigned draw() {
    state.random ^= state.random >> 12;
    state.random ^= state.random << 25;
    state.random ^= state.random >> 27;
    return static_cast<unsigned>((state.random * 2685821657736338717ull) >> 32);
}

inline void lane_body() {
    state.run(state.args);
    Lane& lane = state.lanes[state.current];
    lane.done = true;
    void* nowhere;
    roxanne_host_switch(&nowhere, state.scheduler);
    __builtin_unreachable();
}

/// Waits until all lanes of `mask` (of the block, for its barriers) are at the same place; what it means for each lane is computed
/// when they are all there.
inline word meet(Meeting meeting, unsigned mask, int line, word value = 0, unsigned source = 0, void* exchange = nullptr) {
    Lane& lane = state.lanes[state.current];
    lane.meeting = meeting;
    lane.mask = mask;
    lane.line = line;
    lane.value = value;
    lane.source = source;
    lane.exchange = exchange;
    roxanne_host_switch(&lane.stack, state.scheduler);
    return lane.result;
}

/// `mma.m16n8k32.row.col` by the fragment layout of the PTX ISA: with group = lane / 4 and t = lane % 4, byte i of the 16 bytes that a
/// lane holds of A is row group + 8 * (i / 4 % 2), column 4 t + i % 4 + 16 * (i / 8); byte i of the 8 of B is row
/// 4 t + i % 4 + 16 * (i / 4), column group; C's value i is row group + 8 * (i / 2), column 2 t + i % 2.
inline void multiply(const Lane* warp) {
    unsigned char a[16][32], b[32][8];
    for (unsigned l = 0; l < LANES; l++) {
        const Fragments& f = *static_cast<const Fragments*>(warp[l].exchange);
        unsigned group = l / 4, t = l % 4;
        for (unsigned i = 0; i < 16; i++) a[group + 8 * (i / 4 % 2)][4 * t + i % 4 + 16 * (i / 8)] = (f.a[i / 4] >> (8 * (i % 4))) & 255;
        for (unsigned i = 0; i < 8; i++) b[4 * t + i % 4 + 16 * (i / 4)][group] = (f.b[i / 4] >> (8 * (i % 4))) & 255;
    }
    unsigned c[16][8] = {};
    for (unsigned row = 0; row < 16; row++)
        for (unsigned k = 0; k < 32; k++)
            for (unsigned column = 0; column < 8; column++) c[row][column] += static_cast<unsigned>(a[row][k]) * b[k][column];
    for (unsigned l = 0; l < LANES; l++) {
        const Fragments& f = *static_cast<const Fragments*>(warp[l].exchange);
        for (unsigned i = 0; i < 4; i++) f.c[i] += c[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2];
    }
}

/// Gives the lanes of a complete meeting their results and lets them go on.
inline void resolve(Lane* warp, unsigned mask, Meeting meeting) {
    unsigned votes = 0;
    for (unsigned l = 0; l < LANES; l++) {
        if (mask >> l & 1 && warp[l].value != 0) votes |= 1u << l;
    }
    if (meeting == Meeting::product) multiply(warp);
    for (unsigned l = 0; l < LANES; l++) {
        if (!(mask >> l & 1)) continue;
        Lane& lane = warp[l];
        if (meeting == Meeting::ballot) lane.result = votes;
        if (meeting == Meeting::shuffle) {
            if (!(mask >> lane.source & 1))
                return fail("line %d: lane %u shuffles from lane %u, outside its mask", lane.line, l, lane.source);
            lane.result = warp[lane.source].value;
        }
        if (meeting == Meeting::match) {
            lane.result = 0;
            for (unsigned o = 0; o < LANES; o++) {
                if (mask >> o & 1 && warp[o].value == lane.value) lane.result |= 1ull << o;
            }
        }
        if (meeting == Meeting::gather) {
            for (unsigned o = 0; o < LANES; o++) static_cast<word*>(lane.exchange)[o] = warp[o].value;
        }
    }
    for (unsigned l = 0; l < LANES; l++) {
        if (mask >> l & 1) warp[l].meeting = Meeting::none;
    }
}

inline bool is_of_block(Meeting meeting) { return meeting == Meeting::block || meeting == Meeting::block_count; }

/// Ends the meetings of a warp whose lanes are all there.
inline void resolve_warp(unsigned first, unsigned lanes) {
    Lane* warp = state.lanes + first;
    for (unsigned l = 0; l < lanes; l++) {
        Lane& lane = warp[l];
        if (lane.done || lane.meeting == Meeting::none || is_of_block(lane.meeting)) continue;
        if (!(lane.mask >> l & 1)) return fail("line %d: lane %u is not in its own mask %08x", lane.line, l, lane.mask);
        bool complete = true;
        for (unsigned o = 0; o < LANES && complete; o++) {
            if (!(lane.mask >> o & 1)) continue;
            const Lane& other = warp[o];
            complete = o < lanes && !other.done && other.meeting == lane.meeting && other.mask == lane.mask && other.line == lane.line;
        }
        if (complete) resolve(warp, lane.mask, lane.meeting);
        if (state.failed) return;
    }
}

/// Runs the lanes of a warp as far as they come without the other warps.
inline void run_warp(unsigned first, unsigned lanes) {
    for (bool moved = true; moved && !state.failed;) {
        moved = false;
        // A permutation of 32: odd factor, any offset.
        unsigned factor = state.permute ? draw() | 1 : 1, offset = state.permute ? draw() : 0;
        for (unsigned i = 0; i < LANES; i++) {
            unsigned l = (i * factor + offset) % LANES;
            if (l >= lanes) continue;
            Lane& lane = state.lanes[first + l];
            if (lane.done || lane.meeting != Meeting::none) continue;
            moved = true;
            state.current = first + l;
            threadIdx.x = first + l;
            roxanne_host_switch(&state.scheduler, lane.stack);
            asm volatile("" ::: "memory");
        }
        resolve_warp(first, lanes);
    }
}

/// True when all that are left stood at the same barrier and were let go.
inline bool release_block() {
    const Lane* at = nullptr;
    word arrived = 0;
    for (unsigned l = 0; l < state.count; l++) {
        const Lane& lane = state.lanes[l];
        if (lane.done) continue;
        if (!at) at = &lane;
        unsigned first = static_cast<unsigned>(at - state.lanes);
        if (!is_of_block(lane.meeting)) {
            fail("lane %u waits at %s, line %d, for lanes that ended or wait elsewhere", l, name_of(lane.meeting), lane.line);
            return false;
        }
        if (lane.meeting != at->meeting || lane.line != at->line) {
            fail("lane %u waits at %s, line %d, and lane %u at %s, line %d: they never meet", first, name_of(at->meeting), at->line, l,
                 name_of(lane.meeting), lane.line);
            return false;
        }
        arrived += lane.value != 0;
    }
    if (!at) return false;
    for (unsigned l = 0; l < state.count; l++) {
        state.lanes[l].meeting = Meeting::none;
        state.lanes[l].result = arrived;
    }
    return true;
}

inline void run_block(unsigned shared_bytes) {
    int poison = 0xa5 ^ (state.permute ? static_cast<int>(draw() & 255) : 0);
    if (__start_roxanne_shared) memset(__start_roxanne_shared, poison, static_cast<size_t>(__stop_roxanne_shared - __start_roxanne_shared));
    memset(state.dynamic, poison, shared_bytes + GUARD_BYTES);
    for (unsigned l = 0; l < state.count; l++) {
        state.lanes[l] = Lane{};
        state.lanes[l].stack = fresh_fiber(state.stacks, l, lane_body);
    }
    unsigned warps = (state.count + LANES - 1) / LANES, order[MAX_LANES / LANES];
    do {
        for (unsigned w = 0; w < warps; w++) {
            unsigned other = state.permute ? draw() % (w + 1) : w;
            order[w] = order[other];
            order[other] = w;
        }
        for (unsigned w = 0; w < warps && !state.failed; w++) {
            unsigned first = order[w] * LANES;
            run_warp(first, state.count - first < LANES ? state.count - first : LANES);
        }
    } while (!state.failed && release_block());
    for (size_t i = 0; i < GUARD_BYTES && !state.failed; i++) {
        if (static_cast<unsigned char>(state.dynamic[shared_bytes + i]) != poison)
            fail("block %u wrote %zu bytes behind its %u bytes of dynamic shared memory", blockIdx.x, i, shared_bytes);
    }
}

/// The start of dynamic shared memory.
template <class T> inline T* dynamic_shared() { return reinterpret_cast<T*>(state.dynamic); }

template <class T> inline word to_word(T value) {
    static_assert(sizeof(T) <= sizeof(word), "a shuffle moves at most 8 bytes");
    word bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T> inline T from_word(word bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T> inline T shuffle(unsigned mask, T value, unsigned source, int line) {
    return from_word<T>(meet(Meeting::shuffle, mask, line, to_word(value), source));
}
inline unsigned own_lane() { return state.current % LANES; }

} // namespace host

#define HERE int line = __builtin_LINE()
inline void __syncthreads(HERE) { host::meet(host::Meeting::block, ~0u, line); }
inline int __syncthreads_count(int predicate, HERE) {
    return static_cast<int>(host::meet(host::Meeting::block_count, ~0u, line, predicate != 0));
}
inline int __syncthreads_or(int predicate, HERE) { return __syncthreads_count(predicate, line) != 0; }
inline int __syncthreads_and(int predicate, HERE) { return __syncthreads_count(!predicate, line) == 0; }
inline void __syncwarp(unsigned mask = ~0u, HERE) { host::meet(host::Meeting::warp, mask, line); }
inline unsigned __ballot_sync(unsigned mask, int predicate, HERE) {
    return static_cast<unsigned>(host::meet(host::Meeting::ballot, mask, line, predicate != 0));
}
inline int __any_sync(unsigned mask, int predicate, HERE) { return __ballot_sync(mask, predicate, line) != 0; }
inline int __all_sync(unsigned mask, int predicate, HERE) { return __ballot_sync(mask, predicate, line) == mask; }
template <class T> inline unsigned __match_any_sync(unsigned mask, T value, HERE) {
    return static_cast<unsigned>(host::meet(host::Meeting::match, mask, line, host::to_word(value)));
}
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, HERE) {
    unsigned base = host::own_lane() & ~static_cast<unsigned>(width - 1);
    return host::shuffle(mask, value, base + (static_cast<unsigned>(source) & static_cast<unsigned>(width - 1)), line);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, HERE) {
    unsigned own = host::own_lane(), other = own ^ static_cast<unsigned>(bits);
    // As on the device: lanes of later segments may read from earlier ones, not the other way round.
    return host::shuffle(mask, value, (other / width) > (own / width) ? own : other, line);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, HERE) {
    unsigned own = host::own_lane();
    return host::shuffle(mask, value, own % width >= by ? own - by : own, line);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, HERE) {
    unsigned own = host::own_lane();
    return host::shuffle(mask, value, own % width + by < static_cast<unsigned>(width) ? own + by : own, line);
}
inline unsigned __activemask() = delete; // says nothing that a kernel may rely on
#undef HERE

inline void __threadfence() {}
inline void __threadfence_block() {}
template <class T> inline T __ldg(const T* at) { return *at; }

// Lanes run one at a time and are never taken off in between, so that plain code is atomic.
template <class T> struct HostPlain { using type = T; };
#define HOST_ATOMIC(name, expression)                                                             \
    template <class T> inline T name(T* at, typename HostPlain<T>::type value) {                  \
        T old = *at;                                                                              \
        *at = (expression);                                                                       \
        return old;                                                                               \
    }
HOST_ATOMIC(atomicAdd, static_cast<T>(old + value))
HOST_ATOMIC(atomicSub, static_cast<T>(old - value))
HOST_ATOMIC(atomicMin, value < old ? value : old)
HOST_ATOMIC(atomicMax, old < value ? value : old)
HOST_ATOMIC(atomicAnd, static_cast<T>(old & value))
HOST_ATOMIC(atomicOr, static_cast<T>(old | value))
HOST_ATOMIC(atomicXor, static_cast<T>(old ^ value))
HOST_ATOMIC(atomicExch, value)
#undef HOST_ATOMIC
template <class T> inline T atomicCAS(T* at, typename HostPlain<T>::type expected, typename HostPlain<T>::type value) {
    T old = *at;
    if (old == expected) *at = value;
    return old;
}

#define HOST_MIN_MAX(T)                                  \
    inline T min(T a, T b) { return b < a ? b : a; }     \
    inline T max(T a, T b) { return a < b ? b : a; }
HOST_MIN_MAX(int)
HOST_MIN_MAX(unsigned)
HOST_MIN_MAX(long long)
HOST_MIN_MAX(unsigned long long)
#undef HOST_MIN_MAX

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (x >> i & 1) << (31 - i);
    return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return static_cast<unsigned>(((static_cast<unsigned long long>(high) << 32 | low) << (by & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (by & 31));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    unsigned long long bytes = static_cast<unsigned long long>(b) << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = selector >> (4 * i) & 15, byte = static_cast<unsigned>(bytes >> (8 * (s & 7))) & 255;
        out |= (s & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * i);
    }
    return out;
}
inline unsigned __vabsdiffu4(unsigned a, unsigned b) {
    unsigned out = 0;
    for (int i = 0; i < 32; i += 8) {
        unsigned x = a >> i & 255, y = b >> i & 255;
        out |= (x < y ? y - x : x - y) << i;
    }
    return out;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 32; i += 8) c += (a >> i & 255) * (b >> i & 255);
    return c;
}
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 32; i += 8) c += static_cast<signed char>(a >> i & 255) * static_cast<signed char>(b >> i & 255);
    return c;
}
/// Two products of 16-bit values with the low (`lo`) or high (`hi`) two bytes of `b`.
inline int __dp2a_lo(int a, int b, int c) {
    return c + static_cast<short>(a & 65535) * static_cast<signed char>(b & 255) + (a >> 16) * static_cast<signed char>(b >> 8 & 255);
}
inline int __dp2a_hi(int a, int b, int c) { return __dp2a_lo(a, b >> 16, c); }
