// The shim, and the kernels assign, leaf_knn, prune and norms, against plain loops. One line a check; exit code 1 when one fails.
//
//     g++ -std=c++20 -O2 -DROXANNE_HOST -I kernels kernels/host/selftest.cpp -o selftest && ./selftest
//
// With -DROXANNE_HOST_ARCH=750 the product is dp4a instead of mma.
#include "kernels.cpp"
#include <algorithm>
#include <string>
#include <vector>

// Kernels that show what the shim finds.
namespace wrong_file {
KERNEL void lane_missing(u32* out) {
    if (threadIdx.x == 40) return;
    __syncwarp();
    out[threadIdx.x] = 1;
}
KERNEL void barrier_and_warp(u32* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else if (threadIdx.x > 32) {
        __syncwarp();
    }
    out[threadIdx.x] = 1;
}
KERNEL void two_barriers(u32* out) {
    if (threadIdx.x % 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}
KERNEL void no_barrier(u32* out) {
    STATIC_SHARED(u32, turned, 64);
    turned[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = turned[63 - threadIdx.x];
}
KERNEL void with_barrier(u32* out) {
    STATIC_SHARED(u32, turned, 64);
    turned[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = turned[63 - threadIdx.x];
}
KERNEL void unset_shared(u32* out) {
    DYNAMIC_SHARED(u32, shared);
    STATIC_SHARED(u32, more, 1);
    out[threadIdx.x] = shared[threadIdx.x] | more[0];
}
KERNEL void past_shared(u32*) {
    DYNAMIC_SHARED(u32, shared);
    shared[64] = 1;
}
KERNEL void words(u32* out) {
    u32 lane = lane_id();
    out[threadIdx.x] = __ballot_sync(FULL_MASK, lane % 3 == 0) ^ __match_any_sync(FULL_MASK, lane / 5) ^
                       __shfl_xor_sync(FULL_MASK, lane, 8) ^ __shfl_up_sync(FULL_MASK, lane, 3) ^
                       __shfl_down_sync(FULL_MASK, lane, 2, 8) ^ warp_sum(lane) ^
                       static_cast<u32>(__syncthreads_count(threadIdx.x < 5));
}
TABLE(ENTRY(lane_missing) ENTRY(barrier_and_warp) ENTRY(two_barriers)
      ENTRY(no_barrier) ENTRY(with_barrier) ENTRY(unset_shared) ENTRY(past_shared) ENTRY(words))
} // namespace wrong_file

static int failures = 0;
static bool report(const std::string& what, bool good, const std::string& why = "") {
    printf("%s %s%s%s\n", good ? "ok    " : "FAILED", what.c_str(), why.empty() ? "" : ": ", why.c_str());
    failures += !good;
    return good;
}

/// Launches with the arguments as they are.
template <class... A> static std::string launch(const char* entry, u64 grid, u32 block, u64 shared_bytes, A... values) {
    void* args[] = {&values...};
    char message[512];
    int code = roxanne_host_launch(entry, grid, block, static_cast<u32>(shared_bytes), args, message, sizeof message);
    return code == 0 ? "" : "code " + std::to_string(code) + ": " + message;
}

struct Random {
    u64 state;
    u32 below(u32 limit) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<u32>((state >> 33) % limit);
    }
};

/// An output that starts as garbage and notices a write behind its end.
template <class T> struct Output {
    std::vector<T> values;
    explicit Output(size_t count) : values(count + 64) { memset(values.data(), 0xa5, values.size() * sizeof(T)); }
    T* data() { return values.data(); }
    bool kept_guard() const {
        const u8* tail = reinterpret_cast<const u8*>(values.data() + values.size() - 64);
        return std::all_of(tail, tail + 64 * sizeof(T), [](u8 byte) { return byte == 0xa5; });
    }
};

enum Metric { METRIC_L2, METRIC_L1, METRIC_HAMMING };
static const char* const METRIC_NAMES[] = {"l2", "l1", "hamming"};

struct Data {
    Metric metric;
    u32 stride;
    const u8* rows;
    std::vector<u32> norms;

    u32 distance(u32 a, u32 b) const {
        const u8 *x = rows + static_cast<u64>(a) * stride, *y = rows + static_cast<u64>(b) * stride;
        u32 sum = 0;
        for (u32 i = 0; i < stride; i++) {
            int d = x[i] - y[i];
            sum += static_cast<u32>(metric == METRIC_L2 ? d * d : metric == METRIC_L1 ? std::abs(d) : __builtin_popcount(x[i] ^ y[i]));
        }
        return sum;
    }
    u32 norm(u32 row) const {
        u32 sum = 0;
        for (u32 i = 0; i < stride; i++) sum += rows[static_cast<u64>(row) * stride + i] * rows[static_cast<u64>(row) * stride + i];
        return sum;
    }
};

static std::vector<u8> random_rows(u32 n, u32 stride, u32 span, u64 seed) {
    Random random{seed};
    std::vector<u8> rows(static_cast<size_t>(n) * stride);
    // Spans of 1 and 2 are extreme values: all equal, or 0 and 255.
    for (u8& value : rows) value = static_cast<u8>(span == 2 ? 255 * random.below(2) : random.below(span));
    return rows;
}

struct Groups {
    std::vector<u64> offsets{0};
    std::vector<u32> members;
    void push(const std::vector<u32>& ids) {
        members.insert(members.end(), ids.begin(), ids.end());
        offsets.push_back(members.size());
    }
    std::vector<u64> tiles() const {
        std::vector<u64> tiles;
        for (u64 g = 0; g + 1 < offsets.size(); g++) {
            for (u64 first = 0; first < offsets[g + 1] - offsets[g]; first += 128) tiles.push_back(g << 32 | first);
        }
        return tiles;
    }
};

/// `size` of the ids below n, rising.
static std::vector<u32> choose(u32 n, u32 size, Random& random) {
    std::vector<u32> ids(n);
    for (u32 i = 0; i < n; i++) ids[i] = i;
    for (u32 i = 0; i < size; i++) std::swap(ids[i], ids[i + random.below(n - i)]);
    ids.resize(size);
    std::sort(ids.begin(), ids.end());
    return ids;
}

/// Bits for the ordinals of a group of this size, or 32 where narrow keys do not hold its distances.
static u32 ordinal_bits(u64 columns, u32 largest) {
    u32 bits = 0;
    while ((1ull << bits) < (columns + 7) / 8 * 2) bits++;
    return largest < (1ull << (32 - bits)) - 1 ? bits : 32;
}

static std::string check_nearest(const Data& data, const char* entry, bool narrow, const Groups& groups, const Groups* leaders, u32 k,
                                 u64 seed) {
    u64 members = groups.members.size(), widest = 0;
    u32 largest = 0;
    std::vector<u64> expected(members * k, NO_ENTRY);
    const Groups& columns = leaders ? *leaders : groups;
    for (size_t g = 0; g + 1 < groups.offsets.size(); g++) {
        widest = std::max(widest, columns.offsets[g + 1] - columns.offsets[g]);
        for (u64 m = groups.offsets[g]; m < groups.offsets[g + 1]; m++) {
            std::vector<u64> all;
            for (u64 c = columns.offsets[g]; c < columns.offsets[g + 1]; c++) {
                u32 distance = data.distance(groups.members[m], columns.members[c]);
                largest = std::max(largest, distance);
                if (leaders || c != m) all.push_back(make_entry(distance, static_cast<u32>(c - columns.offsets[g])));
            }
            std::sort(all.begin(), all.end());
            for (u32 i = 0; i < k && i < all.size(); i++) expected[m * k + i] = all[i];
        }
    }
    u32 bits = narrow ? ordinal_bits(widest, largest) : 0;
    if (bits == 32) return "narrow keys are too small for this test";
    std::vector<u64> tiles = groups.tiles();
    roxanne_host_seed(seed);
    const u32* norms = data.metric == METRIC_L2 ? data.norms.data() : nullptr;
    std::string at = " (seed " + std::to_string(seed) + ")";
    if (leaders) {
        Output<u32> out(members * k);
        std::string error = launch(entry, tiles.size(), 256, 0, data.rows, norms, data.stride, groups.members.data(), groups.offsets.data(),
                                   leaders->members.data(), leaders->offsets.data(), tiles.data(), k, bits, out.data());
        if (!error.empty()) return error + at;
        for (u64 i = 0; i < members * k; i++) {
            if (out.values[i] != entry_number(expected[i])) return "value " + std::to_string(i) + " differs" + at;
        }
        return out.kept_guard() ? "" : "wrote behind the end" + at;
    }
    Output<u64> out(members * k);
    std::string error = launch(entry, tiles.size(), 256, 0, data.rows, norms, data.stride, groups.members.data(), groups.offsets.data(),
                               tiles.data(), k, bits, out.data());
    if (!error.empty()) return error + at;
    for (u64 i = 0; i < members * k; i++) {
        if (out.values[i] != expected[i]) return "entry " + std::to_string(i) + " differs" + at;
    }
    return out.kept_guard() ? "" : "wrote behind the end" + at;
}

struct Variant {
    Metric metric;
    bool narrow;
    u32 cap;
};
static std::string name_of(const char* stem, const Variant& v) {
    return std::string(stem) + "_" + METRIC_NAMES[v.metric] + (v.narrow ? "_narrow_" : "_wide_") + std::to_string(v.cap);
}
static const Variant ASSIGN[] = {{METRIC_L2, true, 1},  {METRIC_L2, true, 3},   {METRIC_L2, true, 10},      {METRIC_L2, true, 16},
                                 {METRIC_L2, false, 1}, {METRIC_L2, false, 3},  {METRIC_L2, false, 10},     {METRIC_L2, false, 16},
                                 {METRIC_L1, true, 3},  {METRIC_L1, true, 16},  {METRIC_L1, false, 16},     {METRIC_HAMMING, true, 3},
                                 {METRIC_HAMMING, true, 16}, {METRIC_HAMMING, false, 16}};
static const Variant LEAF_KNN[] = {{METRIC_L2, true, 3},  {METRIC_L2, true, 5},  {METRIC_L2, true, 10},  {METRIC_L2, true, 16},
                                   {METRIC_L2, false, 3}, {METRIC_L2, false, 5}, {METRIC_L2, false, 10}, {METRIC_L2, false, 16},
                                   {METRIC_L1, true, 5},  {METRIC_L1, true, 16}, {METRIC_L1, false, 16}, {METRIC_HAMMING, true, 5},
                                   {METRIC_HAMMING, true, 16}, {METRIC_HAMMING, false, 16}};

static Data make_data(Metric metric, u32 stride, const std::vector<u8>& rows) {
    Data data{metric, stride, rows.data(), {}};
    for (u32 row = 0; row < rows.size() / stride; row++) data.norms.push_back(data.norm(row));
    return data;
}

/// Every variant on groups of every awkward size, with short rows; then few sizes with every awkward row length.
static void test_nearest() {
    const u32 N = 320, SIZES[] = {0, 1, 2, 15, 16, 17, 63, 64, 65, 0, 127, 128, 129, 256, 300}, FEW[] = {1, 17, 66, 130};
    const u32 LEADERS[] = {0, 1, 2, 7, 8, 9, 15, 17, 63, 64, 65, 129, 200, 10, 3};
    for (bool is_assign : {true, false}) {
        for (const Variant& v : is_assign ? std::vector<Variant>(std::begin(ASSIGN), std::end(ASSIGN))
                                          : std::vector<Variant>(std::begin(LEAF_KNN), std::end(LEAF_KNN))) {
            std::string name = name_of(is_assign ? "assign" : "leaf_knn", v), why;
            u64 seed = 1;
            auto run = [&](u32 stride, u32 span, const std::vector<u32>& sizes, u32 k) {
                if (!why.empty()) return;
                std::vector<u8> rows = random_rows(N, stride, span, stride + span);
                Data data = make_data(v.metric, stride, rows);
                Random random{seed};
                Groups groups, leaders;
                for (size_t i = 0; i < sizes.size(); i++) {
                    groups.push(choose(N, sizes[i], random));
                    leaders.push(choose(N, LEADERS[i], random));
                }
                why = check_nearest(data, name.c_str(), v.narrow, groups, is_assign ? &leaders : nullptr, k, seed++);
                if (!why.empty()) why += ", stride " + std::to_string(stride) + " span " + std::to_string(span) + " k " + std::to_string(k);
            };
            std::vector<u32> all(std::begin(SIZES), std::end(SIZES)), few(std::begin(FEW), std::end(FEW));
            for (u32 span : {256u, 3u, 1u}) run(32, span, all, v.cap);
            for (u32 stride : {64u, 96u, 128u, 160u, 768u, 1056u}) run(stride, 256, few, v.cap);
            for (u32 k = 1; k < v.cap; k++) run(32, 4, few, k);
            run(128, 2, few, v.cap);
            report(name, why.empty(), why);
        }
    }
}

/// Rows whose place in memory, id * stride, passes 2^32: a sparse mapping, of which a few pages are touched.
static void test_far_rows() {
    const u32 STRIDE = 128, NEAR = 40;
    const u64 BYTES = 5ull << 30;
    void* map = mmap(nullptr, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return void(report("rows beyond 4 GiB", true, "SKIPPED: no such mapping here"));
    u8* rows = static_cast<u8*>(map);
    std::vector<u32> ids;
    const u64 beyond = (1ull << 32) / STRIDE;
    for (u32 i = 0; i < NEAR; i++) ids.push_back(i);
    for (u32 i = 0; i < NEAR; i++) ids.push_back(static_cast<u32>(beyond + i));
    Random random{5};
    Data data{METRIC_L2, STRIDE, rows, std::vector<u32>(beyond + NEAR)};
    for (u32 id : ids) {
        for (u32 i = 0; i < STRIDE; i++) rows[static_cast<u64>(id) * STRIDE + i] = static_cast<u8>(random.below(256));
        data.norms[id] = data.norm(id);
    }
    Groups groups;
    groups.push(ids);
    std::string why = check_nearest(data, "leaf_knn_l2_narrow_5", true, groups, nullptr, 5, 3);
    report("leaf_knn of rows beyond 4 GiB", why.empty(), why);
    why = check_nearest(data, "assign_l2_narrow_10", true, groups, &groups, 10, 4);
    report("assign of rows beyond 4 GiB", why.empty(), why);
    munmap(map, BYTES);
}

/// `roxanne_core::prune::robust_prune`, word for word.
static std::vector<u32> robust_prune(const Data& data, const std::vector<u64>& candidates, u32 max_degree, u64 numerator, u64 denominator) {
    std::vector<bool> is_kept(candidates.size());
    u32 count = 0;
    for (int round = 0; round < 2; round++) {
        u64 up = round ? numerator : 1, down = round ? denominator : 1;
        for (size_t at = 0; at < candidates.size() && count < max_degree; at++) {
            bool covered = is_kept[at];
            for (size_t s = 0; s < at && !covered; s++) {
                u32 between = data.distance(entry_number(candidates[s]), entry_number(candidates[at]));
                covered = is_kept[s] && up * between <= down * entry_distance(candidates[at]);
            }
            if (covered) continue;
            is_kept[at] = true;
            count++;
        }
    }
    std::vector<u32> kept;
    for (size_t at = 0; at < candidates.size(); at++) {
        if (is_kept[at]) kept.push_back(entry_number(candidates[at]));
    }
    return kept;
}

static std::string check_prune(const Data& data, u32 n, u32 width, u32 max_degree, u32 numerator, u32 denominator,
                               bool staged, u64 first, u64 seed) {
    Random random{seed};
    Output<u64> reservoirs(static_cast<size_t>(n) * width);
    std::vector<u32> lengths;
    std::vector<std::vector<u32>> expected;
    for (u32 row = 0; row < n; row++) {
        u32 length = std::min(row < 3 ? row : row % 3 == 0 ? width : random.below(width + 1), n - 1);
        std::vector<u64> candidates;
        for (u32 id : choose(n, std::min(length + 1, n), random)) {
            if (id != row && candidates.size() < length) candidates.push_back(make_entry(data.distance(row, id), id));
        }
        std::sort(candidates.begin(), candidates.end());
        std::copy(candidates.begin(), candidates.end(), reservoirs.data() + static_cast<size_t>(row) * width);
        lengths.push_back(static_cast<u32>(candidates.size()));
        if (row >= first) expected.push_back(robust_prune(data, candidates, max_degree, numerator, denominator));
    }
    u64 grid = n - first;
    Output<u32> degrees(grid), neighbors(grid * max_degree);
    roxanne_host_seed(seed);
    u64 shared_bytes = 12ull * width + (staged ? static_cast<u64>(width) * (data.stride + 4) : 0);
    std::string entry = std::string("prune_") + METRIC_NAMES[data.metric];
    std::string error = launch(entry.c_str(), grid, 128, shared_bytes, data.rows, data.stride, first, reservoirs.data(), lengths.data(),
                               width, max_degree, numerator, denominator, static_cast<u32>(staged), degrees.data(), neighbors.data());
    if (!error.empty()) return error;
    for (u64 b = 0; b < grid; b++) {
        std::vector<u32> want = expected[b];
        if (degrees.values[b] != want.size()) return "degree of row " + std::to_string(first + b) + " differs";
        want.resize(max_degree, 0);
        if (!std::equal(want.begin(), want.end(), neighbors.data() + b * max_degree))
            return "row " + std::to_string(first + b) + " differs";
    }
    return degrees.kept_guard() && neighbors.kept_guard() ? "" : "wrote behind the end";
}

static void test_prune() {
    struct Case {
        u32 n, stride, span, width, max_degree, numerator;
        u64 first;
    };
    const Case CASES[] = {
        {1, 32, 256, 8, 4, 120, 0}, {2, 32, 256, 1, 4, 120, 0}, {40, 32, 256, 31, 64, 120, 3}, {70, 64, 256, 64, 8, 120, 0},
        {60, 96, 3, 40, 12, 150, 1}, {90, 32, 1, 65, 9, 120, 0}, {120, 128, 256, 96, 48, 120, 90}, {40, 160, 2, 33, 1, 120, 0},
        {40, 32, 9, 32, 0, 120, 0}, {140, 32, 5, 129, 200, 100, 130}, {40, 768, 256, 32, 16, 1000, 20},
        {1100, 32, 256, 1024, 64, 120, 1096},
        {1060, 32, 4, 1024, 1024, 120, 1050},
    };
    for (Metric metric : {METRIC_L2, METRIC_L1, METRIC_HAMMING}) {
        for (bool staged : {true, false}) {
            std::string why;
            u64 seed = 1;
            for (const Case& c : CASES) {
                std::vector<u8> rows = random_rows(c.n, c.stride, c.span, c.n);
                Data data = make_data(metric, c.stride, rows);
                for (int again = 0; again < 2 && why.empty(); again++) {
                    why = check_prune(data, c.n, c.width, c.max_degree, c.numerator, 100, staged, c.first, seed++);
                    if (!why.empty()) why += ", n " + std::to_string(c.n) + " seed " + std::to_string(seed - 1);
                }
            }
            report(std::string("prune_") + METRIC_NAMES[metric] + (staged ? ", staged" : ", not staged"), why.empty(), why);
        }
    }
}

static void test_norms() {
    bool good = true;
    for (u32 n : {0u, 1u, 7u, 33u}) {
        for (u32 stride : {32u, 96u, 128u, 160u, 1056u, 8224u}) {
            std::vector<u8> rows = random_rows(n, stride, n == 7 ? 2 : 256, n + stride);
            Data data = make_data(METRIC_L2, stride, rows);
            Output<u32> out(n);
            roxanne_host_seed(n);
            std::string error = launch("norms", (n + 1) / 2 + 1, 64, 0, rows.data(), stride, static_cast<u64>(n), out.data());
            good &= error.empty() && out.kept_guard() && std::equal(data.norms.begin(), data.norms.end(), out.data());
        }
    }
    report("norms", good);
}

static void test_shim() {
    Output<u32> out(64);
    for (const char* entry : {"lane_missing", "barrier_and_warp", "two_barriers", "past_shared", "no such kernel"}) {
        std::string error = launch(entry, 1, 64, 256, out.data());
        report("the shim refuses " + std::string(entry), !error.empty(), error);
    }
    for (const char* entry : {"no_barrier", "with_barrier", "unset_shared", "words"}) {
        std::vector<std::vector<u32>> results;
        for (u64 seed = 0; seed < 6; seed++) {
            roxanne_host_seed(seed);
            std::string error = launch(entry, 1, 64, 256, out.data());
            if (!error.empty()) report(entry, false, error);
            results.emplace_back(out.values.begin(), out.values.begin() + 64);
        }
        bool same = std::all_of(results.begin(), results.end(), [&](const auto& r) { return r == results[0]; });
        bool should = std::string(entry) == "with_barrier" || std::string(entry) == "words";
        report(std::string(entry) + (should ? " is the same in every order" : " shows in another order"), same == should);
    }
    // By hand: lane 9. Lanes 0, 3, .. 30; lanes 5 .. 9; 9 ^ 8; 9 - 3; 9 + 2; 496; 5.
    roxanne_host_seed(9);
    launch("words", 1, 64, 0, out.data());
    report("votes, matches and shuffles", out.values[9] == (0x49249249u ^ 0x3e0u ^ 1u ^ 6u ^ 11u ^ 496u ^ 5u));
}

int main() {
    setvbuf(stdout, nullptr, _IOLBF, 0);
    test_shim();
    test_norms();
    test_prune();
    test_nearest();
    test_far_rows();
    printf("%s\n", failures ? "FAILED" : "all good");
    return failures != 0;
}
