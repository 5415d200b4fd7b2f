// prune: degrees [grid], neighbors [grid x max_degree] <- reservoirs [n x width], lengths [n]: RobustPrune of rows first .. first + grid.
//
// A row's candidates are entries (distance, id) in rising order, none twice. Driven by the kept, as `RowPrune` of the specification: each
// newly kept neighbor is compared with all later candidates at once, and covers those with numerator * d(s, c) <= denominator * d(row, c),
// for the rounds alpha = 1 and alpha. The next to keep is the first bit of a mask. Ids out in order of (distance, id), then zeros.
// 1 <= width <= 1024; lengths are clamped to width; a row is not among its own candidates.
// Launch: a block a row, block 128. Dynamic shared memory: 12 * width + (staged ? width * (stride + 4) : 0) bytes: ids, distances and norms
// [width], and the candidates' rows at a pitch of stride + 4 bytes, an odd number of words, so that lanes that each read a row of their own
// find different banks. Not staged, every comparison reads both rows from global memory (from L2, when lucky).
// Twin: ../shaders/prune.wgsl; specification: `prune` of ../builder/src/backend/cpu.rs, roxanne_core::prune; must equal it.
// Floor: one gather of length rows, and kept * open candidates * stride / 4 dp4a: candidates that both rounds cover are compared no more.
#include "common.cuh"

constexpr u32 BLOCK = 128;
/// Of an SM: what registers must leave room for (ptxas aims lower without it, and spills).
constexpr u32 BLOCKS_AT_ONCE = 8;
constexpr u32 MAX_WIDTH = 1024;
constexpr u32 WORDS = MAX_WIDTH / 32;
constexpr u32 ROUNDS = 2;
/// Lanes that share a candidate whose row is read from global memory.
constexpr u32 TEAM = 8;
constexpr u32 PIECE_BYTES = 16;

struct Alpha {
    u32 numerator;
    u32 denominator;
};

// A metric is a sum over words; `distance` makes it one, from the norms of both sides where it has norms.
struct L2 {
    static constexpr bool HAS_NORMS = true;
    DEVICE u32 add(u32 a, u32 b, u32 sum) { return dot4(a, b, sum); }
    DEVICE u32 distance(u32 sum, u32 norms) { return norms - 2 * sum; }
};
struct L1 {
    static constexpr bool HAS_NORMS = false;
    DEVICE u32 add(u32 a, u32 b, u32 sum) { return differ4(a, b, sum); }
    DEVICE u32 distance(u32 sum, u32) { return sum; }
};
struct Hamming {
    static constexpr bool HAS_NORMS = false;
    DEVICE u32 add(u32 a, u32 b, u32 sum) { return sum + __popc(a ^ b); }
    DEVICE u32 distance(u32 sum, u32) { return sum; }
};

/// The candidates of this block's row, and where they stand.
struct Candidates {
    const u8* rows;
    u32 stride;
    u32 count;
    u32* ids;
    u32* distances;
    u32* norms;
    /// Their rows, stride + 4 bytes apart, or null.
    u32* staged;

    __device__ __forceinline__ const uint4* row(u32 at) const {
        return reinterpret_cast<const uint4*>(rows + static_cast<u64>(ids[at]) * stride);
    }
    __device__ __forceinline__ const u32* staged_row(u32 at) const { return staged + at * (stride / 4 + 1); }
};

/// The sum of the metric over two rows in shared memory, by one lane.
template <class Metric> DEVICE u32 staged_sum(const Candidates& candidates, u32 a, u32 b) {
    const u32 *left = candidates.staged_row(a), *right = candidates.staged_row(b);
    u32 sum = 0;
    for (u32 word = 0; word < candidates.stride / 4; word++) sum = Metric::add(left[word], right[word], sum);
    return sum;
}

/// The same over two rows in global memory, by TEAM lanes, all of which get it; the whole warp comes here.
template <class Metric> DEVICE u32 team_sum(const Candidates& candidates, u32 a, u32 b) {
    const uint4 *left = candidates.row(a), *right = candidates.row(b);
    u32 sum = 0;
    for (u32 piece = lane_id() % TEAM; piece < candidates.stride / PIECE_BYTES; piece += TEAM) {
        uint4 x = left[piece], y = right[piece];
        sum = Metric::add(x.w, y.w, Metric::add(x.z, y.z, Metric::add(x.y, y.y, Metric::add(x.x, y.x, sum))));
    }
    UNROLL
    for (u32 step = TEAM / 2; step > 0; step /= 2) sum += __shfl_xor_sync(FULL_MASK, sum, step);
    return sum;
}

/// Takes up the candidates of a row: what is asked of all of them once. Ends in a barrier.
template <class Metric> DEVICE void load(const Candidates& candidates, const u64* reservoir) {
    for (u32 at = threadIdx.x; at < candidates.count; at += BLOCK) {
        candidates.ids[at] = entry_number(reservoir[at]);
        candidates.distances[at] = entry_distance(reservoir[at]);
    }
    __syncthreads();
    if (candidates.staged) {
        u32 pieces = candidates.stride / PIECE_BYTES;
        for (u32 at = threadIdx.x / TEAM; at < candidates.count; at += BLOCK / TEAM) {
            const uint4* row = candidates.row(at);
            u32* to = candidates.staged + at * (candidates.stride / 4 + 1);
            for (u32 piece = threadIdx.x % TEAM; piece < pieces; piece += TEAM) {
                uint4 words = row[piece];
                to[4 * piece] = words.x, to[4 * piece + 1] = words.y, to[4 * piece + 2] = words.z, to[4 * piece + 3] = words.w;
            }
        }
        __syncthreads();
        if (Metric::HAS_NORMS) {
            for (u32 at = threadIdx.x; at < candidates.count; at += BLOCK) candidates.norms[at] = staged_sum<Metric>(candidates, at, at);
        }
    } else if (Metric::HAS_NORMS) {
        for (u32 base = 0; base < candidates.count; base += BLOCK / TEAM) {
            u32 at = base + threadIdx.x / TEAM, there = min(at, candidates.count - 1);
            u32 norm = team_sum<Metric>(candidates, there, there);
            if (at == there && threadIdx.x % TEAM == 0) candidates.norms[at] = norm;
        }
    }
    __syncthreads();
}

/// Takes those out of `open` [ROUNDS][WORDS] that candidate `at`, kept in `round`, covers. `undecided` is, in lane l, word l of the mask of
/// candidates that are open in this round or a later one.
template <class Metric> DEVICE void cover(const Candidates& candidates, u32 (*open)[WORDS], u32 undecided, u32 at, u32 round, Alpha alpha) {
    u32 team = candidates.staged ? 1 : TEAM;
    for (u32 base = at + 1; base < candidates.count; base += BLOCK / team) {
        u32 later = base + threadIdx.x / team;
        u32 word = later / 32, bit = 1u << later % 32;
        bool is_open = __shfl_sync(FULL_MASK, undecided, word % WORDS) & bit && later < candidates.count;
        if (!__any_sync(FULL_MASK, is_open)) continue;
        // A team goes together with the others of its warp; who has nothing open compares `at` with itself.
        u32 other = is_open ? later : at;
        u32 sum = candidates.staged ? staged_sum<Metric>(candidates, at, other) : team_sum<Metric>(candidates, at, other);
        u64 distance = Metric::distance(sum, Metric::HAS_NORMS ? candidates.norms[at] + candidates.norms[other] : 0);
        u64 from_row = candidates.distances[other];
        if (!is_open || threadIdx.x % team != 0) continue;
        if (round == 0 && distance <= from_row) atomicAnd(&open[0][word], ~bit);
        if (alpha.numerator * distance <= alpha.denominator * from_row) atomicAnd(&open[1][word], ~bit);
    }
}

/// The first bit from `from` on of a mask whose word l lane l has, or MAX_WIDTH; the same in all lanes of a warp, which all come here.
DEVICE u32 first_open(u32 word, u32 from) {
    u32 lane = lane_id();
    if (lane < from / 32) word = 0;
    if (lane == from / 32) word &= ~lanes_below(from % 32);
    u32 words = __ballot_sync(FULL_MASK, word != 0);
    if (words == 0) return MAX_WIDTH;
    u32 first = __ffs(words) - 1;
    return first * 32 + __ffs(__shfl_sync(FULL_MASK, word, first)) - 1;
}

template <class Metric>
DEVICE void prune(u32 (*open)[WORDS], u32* kept, const u8* rows, u32 stride, u64 first, const u64* reservoirs, const u32* lengths,
                  u32 width, u32 max_degree, Alpha alpha, u32 staged, u32* degrees, u32* neighbors) {
    static_assert(WORDS == WARP, "a word a lane");
    DYNAMIC_SHARED(u32, shared);
    u64 row = first + blockIdx.x;
    u32 count = min(lengths[row], width);
    Candidates candidates{rows, stride, count, shared, shared + width, shared + 2 * width, staged ? shared + 3 * width : nullptr};
    if (threadIdx.x < WORDS) {
        u32 before = threadIdx.x * 32;
        u32 all = count >= before + 32 ? ~0u : count > before ? lanes_below(count - before) : 0;
        for (u32 round = 0; round < ROUNDS; round++) open[round][threadIdx.x] = all;
        kept[threadIdx.x] = 0;
    }
    load<Metric>(candidates, reservoirs + row * width);

    u32 degree = 0;
    for (u32 round = 0; round < ROUNDS; round++) {
        for (u32 from = 0; from < MAX_WIDTH && degree < max_degree;) {
            u32 undecided = open[round][lane_id()] | open[1][lane_id()];
            u32 at = first_open(open[round][lane_id()], from);
            if (at == MAX_WIDTH) break;
            degree++;
            from = at + 1;
            // All have read what `cover` changes.
            __syncthreads();
            if (threadIdx.x == 0) {
                kept[at / 32] |= 1u << at % 32;
                atomicAnd(&open[1][at / 32], ~(1u << at % 32));
            }
            cover<Metric>(candidates, open, undecided, at, round, alpha);
            __syncthreads();
        }
    }

    u32* out = neighbors + static_cast<u64>(blockIdx.x) * max_degree;
    for (u32 at = threadIdx.x; at < count; at += BLOCK) {
        if (!(kept[at / 32] >> at % 32 & 1)) continue;
        u32 rank = __popc(kept[at / 32] & lanes_below(at % 32));
        for (u32 word = 0; word < at / 32; word++) rank += __popc(kept[word]);
        out[rank] = candidates.ids[at];
    }
    for (u32 rank = degree + threadIdx.x; rank < max_degree; rank += BLOCK) out[rank] = 0;
    if (threadIdx.x == 0) degrees[blockIdx.x] = degree;
}

#define PRUNE(entry, metric)                                                                                               \
    KERNEL void __launch_bounds__(BLOCK, BLOCKS_AT_ONCE)                                                                   \
        entry(const u8* rows, u32 stride, u64 first, const u64* reservoirs, const u32* lengths, u32 width, u32 max_degree, \
              u32 alpha_numerator, u32 alpha_denominator, u32 staged, u32* degrees, u32* neighbors) {                      \
        __shared__ u32 open[ROUNDS][WORDS];                                                                                \
        __shared__ u32 kept[WORDS];                                                                                        \
        prune<metric>(open, kept, rows, stride, first, reservoirs, lengths, width, max_degree,                             \
                      Alpha{alpha_numerator, alpha_denominator}, staged, degrees, neighbors);                              \
    }
PRUNE(prune_l2, L2)
PRUNE(prune_l1, L1)
PRUNE(prune_hamming, Hamming)
