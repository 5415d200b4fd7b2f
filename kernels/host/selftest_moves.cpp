// The kernels that move, sort, merge and encode, against loops that a reader can check by eye. Exit code 0 when all agree, else 1.
//
// g++ -std=c++20 -O2 -DROXANNE_HOST -I kernels kernels/host/selftest_moves.cpp kernels/host/kernels.cpp -o selftest_moves
//
// One line a check. Every check runs under several orders of lanes, with outputs poisoned before; buffers end in a guard that must stay.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <tuple>
#include <vector>

using u8 = uint8_t;
using i16 = int16_t;
using u32 = uint32_t;
using i32 = int32_t;
using u64 = unsigned long long;

extern "C" void roxanne_host_seed(unsigned long long seed);
extern "C" int roxanne_host_launch(const char* entry, unsigned long long grid, unsigned block, unsigned shared_bytes, void** args,
                                   char* message, unsigned long long message_bytes);

namespace {

constexpr u64 ORDERS[] = {0, 1, 2, 77};
constexpr u32 SIZES[] = {0, 1, 31, 32, 33, 255, 256, 257, 2047, 2048, 2049, 4095, 4096, 4097, 10000};
constexpr u32 NONE = 0xffffffffu;
constexpr u64 NO_ENTRY = ~0ull;

bool all_agree = true;

/// One check: everything asked of it, and the first thing that was wrong.
struct Check {
    std::string name, wrong;
    u64 asked = 0;
    explicit Check(const char* name) : name(name) {}
    void that(bool agrees, const std::string& where) {
        asked++;
        if (!agrees && wrong.empty()) wrong = where;
    }
    ~Check() {
        if (wrong.empty()) printf("ok    %s (%llu comparisons)\n", name.c_str(), asked);
        else printf("WRONG %s: %s\n", name.c_str(), wrong.c_str());
        fflush(stdout);
        all_agree = all_agree && wrong.empty() && asked > 0;
    }
};

/// Device memory: `count` values, poisoned where none are given, 16-byte aligned as malloc aligns, and a guard behind them.
template <class T> struct Buffer {
    static constexpr size_t GUARD = 16;
    size_t count;
    T* at;
    explicit Buffer(size_t count) : count(count), at(static_cast<T*>(malloc((count + GUARD) * sizeof(T)))) {
        memset(static_cast<void*>(at), 0xcd, (count + GUARD) * sizeof(T));
    }
    explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) { std::copy(values.begin(), values.end(), at); }
    Buffer(const Buffer&) = delete;
    ~Buffer() { free(at); }
    T& operator[](size_t i) { return at[i]; }
    std::vector<T> values() const { return std::vector<T>(at, at + count); }
    bool is_guarded() const {
        const u8* guard = reinterpret_cast<const u8*>(at + count);
        return std::all_of(guard, guard + GUARD * sizeof(T), [](u8 b) { return b == 0xcd; });
    }
    /// Equal, and nothing written behind the end.
    bool is(const std::vector<T>& expected) const { return is_guarded() && values() == expected; }
};

template <class T> T value_of(const T& value) { return value; }
template <class T> T* value_of(const Buffer<T>& buffer) { return buffer.at; }

/// Launches with arguments of exactly the types that the kernel takes.
template <class... A> void launch(const char* entry, u64 grid, u32 block, u32 shared_bytes, const A&... arguments) {
    auto values = std::make_tuple(value_of(arguments)...);
    char message[512];
    int code = std::apply(
        [&](auto&... value) {
            void* pointers[] = {const_cast<void*>(static_cast<const void*>(&value))...};
            return roxanne_host_launch(entry, grid, block, shared_bytes, pointers, message, sizeof message);
        },
        values);
    if (code != 0) {
        printf("WRONG launch: %s\n", message);
        exit(1);
    }
}

/// SplitMix64 by counter.
struct Random {
    u64 state;
    u64 next() {
        u64 z = state += 0x9e3779b97f4a7c15ull;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        return z ^ z >> 31;
    }
    u32 below(u64 bound) { return static_cast<u32>(next() % bound); }
};

u64 blocks_for(u64 count, u64 each) { return std::max<u64>(1, (count + each - 1) / each); }
std::string text(const char* a, u64 x, const char* b = "", u64 y = 0, const char* c = "", u64 z = 0) {
    return std::string(a) + " " + std::to_string(x) + (*b ? std::string(" ") + b + " " + std::to_string(y) : "") +
           (*c ? std::string(" ") + c + " " + std::to_string(z) : "");
}

std::vector<u64> prefix_sums(const std::vector<u32>& values) {
    std::vector<u64> sums{0};
    for (u32 v : values) sums.push_back(sums.back() + v);
    return sums;
}

void scans() {
    Check whole("scan_tiles, scan_sums, scan_apply: offsets of every count, and their total"), middle("scan_sums alone, many tiles");
    Random random{1};
    for (u64 order : ORDERS) {
        roxanne_host_seed(order);
        for (u32 n : SIZES) {
            for (u64 span : {2ull, 1000ull, 1ull << 32}) {
                std::vector<u32> values(n);
                for (u32& v : values) v = random.below(span) + (span == 1ull << 32 ? 0 : 1);
                u64 tiles = (n + 2047) / 2048;
                Buffer<u32> in(values);
                Buffer<u64> sums(tiles + 1), offsets(n + 1);
                launch("scan_tiles", blocks_for(n, 2048), 256, 0, in, u64{n}, sums);
                launch("scan_sums", 1, 256, 0, sums, tiles);
                launch("scan_apply", blocks_for(n, 2048), 256, 0, in, u64{n}, sums, offsets);
                whole.that(offsets.is(prefix_sums(values)) && sums.is_guarded(), text("n", n, "span", span, "order", order));
            }
        }
        for (u64 tiles : {0, 1, 255, 256, 257, 1000}) {
            std::vector<u64> values(tiles + 1), expected(tiles + 1);
            u64 sum = 0;
            for (u64 t = 0; t < tiles; t++) expected[t] = sum, sum += values[t] = random.next() >> 12;
            expected[tiles] = sum;
            values[tiles] = 99;
            Buffer<u64> sums(values);
            launch("scan_sums", 1, 256, 0, sums, tiles);
            middle.that(sums.is(expected), text("tiles", tiles, "order", order));
        }
    }
}

/// One pass on the device; keys and values are replaced.
void sort_pass(std::vector<u32>& keys, std::vector<u32>& values, u32 shift, Check& check, const std::string& where) {
    u64 n = keys.size(), tiles = (n + 4095) / 4096, slots = 256 * tiles, scan_tiles = (slots + 2047) / 2048;
    Buffer<u32> in(keys), in_values(values), counts(slots), out(n), out_values(n);
    Buffer<u64> sums(scan_tiles + 1), offsets(slots + 1);
    launch("sort_count", std::max<u64>(1, tiles), 256, 0, in, n, shift, tiles, counts);
    launch("scan_tiles", blocks_for(slots, 2048), 256, 0, counts, slots, sums);
    launch("scan_sums", 1, 256, 0, sums, scan_tiles);
    launch("scan_apply", blocks_for(slots, 2048), 256, 0, counts, slots, sums, offsets);
    launch("sort_scatter", std::max<u64>(1, tiles), 256, 0, in, in_values, n, shift, tiles, offsets, out, out_values);
    check.that(counts.is_guarded() && out.is_guarded() && out_values.is_guarded() && offsets[slots] == n, where + " (guards)");
    keys = out.values();
    values = out_values.values();
}

void sorts() {
    Check pass("sort_count, sort_scatter: one pass is stable"), whole("four passes sort, equal keys in the order of their values");
    Random random{2};
    for (u64 order : ORDERS) {
        roxanne_host_seed(order);
        for (u32 n : SIZES) {
            for (u32 kind = 0; kind < 4; kind++) {
                std::vector<u32> keys(n), values(n);
                for (u32 i = 0; i < n; i++) {
                    u32 drawn = random.below(1ull << 32);
                    u32 of_kind[] = {drawn, 0x01020304, drawn % 3 * 0x01010101, drawn % 5 ? NONE : drawn % 700};
                    keys[i] = of_kind[kind];
                    values[i] = i;
                }
                auto by = [&](u32 shift, u32 mask) {
                    std::vector<u32> places(n), sorted(n);
                    for (u32 i = 0; i < n; i++) places[i] = i;
                    auto digit = [&](u32 place) { return keys[place] >> shift & mask; };
                    std::stable_sort(places.begin(), places.end(), [&](u32 a, u32 b) { return digit(a) < digit(b); });
                    for (u32 i = 0; i < n; i++) sorted[i] = keys[places[i]];
                    return std::make_pair(sorted, places);
                };
                std::string where = text("n", n, "kind", kind, "order", order);
                for (u32 shift : {0, 8, 24}) {
                    auto out_keys = keys, out_values = values;
                    sort_pass(out_keys, out_values, shift, pass, where);
                    pass.that(std::make_pair(out_keys, out_values) == by(shift, 255), where + text(" shift", shift));
                }
                auto out_keys = keys, out_values = values;
                for (u32 shift = 0; shift < 32; shift += 8) sort_pass(out_keys, out_values, shift, whole, where);
                whole.that(std::make_pair(out_keys, out_values) == by(0, NONE), where);
            }
        }
    }
}

void simple_moves() {
    Check pick("pick"), first("first_cells"), rename("rename"), offsets_of("cell_offsets"), checks("check_ids");
    Random random{3};
    for (u64 order : ORDERS) {
        roxanne_host_seed(order);
        for (u32 n : SIZES) {
            std::string where = text("n", n, "order", order);
            u64 grid = blocks_for(n, 256);
            std::vector<u32> expected(n), ids(n);
            for (u32 i = 0; i < n; i++) ids[i] = i;

            std::vector<u64> places(n);
            std::vector<u32> source(777);
            for (u32& s : source) s = random.below(1ull << 32);
            for (u32 i = 0; i < n; i++) expected[i] = source[places[i] = random.below(777)];
            Buffer<u32> from(source), picked(n);
            launch("pick", grid, 256, 0, from, Buffer<u64>(places), u64{n}, picked);
            pick.that(picked.is(expected), where);

            for (u32 fanout : {1, 3, 10}) {
                const u32 cells = 50;
                std::vector<u32> nearest(u64{n} * fanout), new_order(n), renamed(u64{n} * fanout), first_keys(n);
                for (u64 i = 0; i < nearest.size(); i++) nearest[i] = i % fanout && random.below(4) == 0 ? NONE : random.below(cells);
                std::vector<u32> tour(cells);
                for (u32 c = 0; c < cells; c++) tour[c] = (c * 7 + 3) % cells;
                for (u32 i = 0; i < n; i++) new_order[i] = (u64{i} * 7919 + 5) % n;
                for (u32 i = 0; i < n; i++) {
                    first_keys[i] = tour[nearest[u64{i} * fanout]];
                    for (u32 f = 0; f < fanout; f++) {
                        u32 choice = nearest[u64{new_order[i]} * fanout + f];
                        renamed[u64{i} * fanout + f] = choice == NONE ? NONE : tour[choice];
                    }
                }
                Buffer<u32> choices(nearest), stops(tour), keys(n), values(n), out(renamed.size());
                launch("first_cells", grid, 256, 0, choices, fanout, stops, u64{n}, keys, values);
                first.that(keys.is(first_keys) && values.is(ids), where + text(" fanout", fanout));
                launch("rename", grid, 256, 0, choices, Buffer<u32>(new_order), stops, fanout, u64{n}, out);
                rename.that(out.is(renamed), where + text(" fanout", fanout));
            }

            for (u32 cells : {0, 1, 255, 1000}) {
                std::vector<u32> keys(n);
                for (u32& k : keys) k = cells == 0 || random.below(5) == 0 ? NONE : random.below(cells);
                std::sort(keys.begin(), keys.end());
                std::vector<u64> lower(cells + 1);
                for (u32 c = 0; c <= cells; c++) lower[c] = static_cast<u64>(std::lower_bound(keys.begin(), keys.end(), c) - keys.begin());
                Buffer<u64> out(cells + 1);
                launch("cell_offsets", blocks_for(cells + 1, 256), 256, 0, Buffer<u32>(keys), u64{n}, cells, out);
                offsets_of.that(out.is(lower), where + text(" cells", cells));
            }

            for (u64 bound : {0ull, 1ull, 500ull, 1ull << 32}) {
                u64 bad = 0;
                for (u32& e : expected) bad += (e = random.below(4) ? random.below(600) : NONE) >= bound;
                Buffer<u64> wrong(std::vector<u64>{1ull << 40});
                launch("check_ids", grid, 256, 0, Buffer<u32>(expected), u64{n}, bound, wrong);
                checks.that(wrong.is({(1ull << 40) + bad}), where + text(" bound", bound));
            }
        }
    }
}

void moves_by_group() {
    Check cells("cell_keys: every choice of every member, tile by tile"), runs("copy_runs"), unique("unique");
    Random random{4};
    for (u64 order : ORDERS) {
        roxanne_host_seed(order);
        for (u32 fanout : {1, 2, 7}) {
            std::vector<u64> offsets{0}, leader_offsets{0}, tiles;
            for (u32 size : {1, 0, 127, 128, 129, 300}) {
                for (u64 first = 0; first < size; first += 128) tiles.push_back(u64{offsets.size() - 1} << 32 | first);
                offsets.push_back(offsets.back() + size);
                leader_offsets.push_back(leader_offsets.back() + 5 + size / 10);
            }
            std::vector<u32> members(offsets.back()), nearest(members.size() * fanout), keys(nearest.size()), values(nearest.size());
            for (u32& m : members) m = random.below(1u << 30);
            for (size_t c = 0; c + 1 < offsets.size(); c++) {
                for (u64 i = offsets[c] * fanout; i < offsets[c + 1] * fanout; i++) {
                    nearest[i] = random.below(6) == 0 ? NONE : random.below(5);
                    keys[i] = nearest[i] == NONE ? NONE : static_cast<u32>(leader_offsets[c] + nearest[i]);
                    values[i] = members[i / fanout];
                }
            }
            Buffer<u32> out_keys(keys.size()), out_values(keys.size());
            launch("cell_keys", tiles.size(), 256, 0, Buffer<u32>(members), Buffer<u64>(offsets), Buffer<u64>(leader_offsets),
                   Buffer<u64>(tiles), fanout, Buffer<u32>(nearest), out_keys, out_values);
            cells.that(out_keys.is(keys) && out_values.is(values), text("fanout", fanout, "order", order));
        }

        std::vector<u32> source(20000), copied(20000, 0xcdcdcdcd);
        for (u32& s : source) s = random.below(1ull << 32);
        std::vector<u64> list;
        u64 target = 3;
        for (u32 length : SIZES) {
            if (target + length > copied.size() || length > 4096) continue;
            u64 start = random.below(source.size() - length);
            list.insert(list.end(), {start, target, length});
            std::copy_n(source.begin() + static_cast<long>(start), length, copied.begin() + static_cast<long>(target));
            target += length + 1;
        }
        Buffer<u32> out(copied.size());
        launch("copy_runs", list.size() / 3, 256, 0, Buffer<u32>(source), Buffer<u64>(list), out);
        runs.that(out.is(copied), text("order", order));

        for (u32 capacity : {1, 2, 64, 512, 4096}) {
            for (u64 span : {1ull, 40ull, 3000ull, 0xffffffffull}) {
                std::vector<u32> ids, lengths, expected_lengths;
                std::vector<u64> starts;
                std::vector<std::vector<u32>> expected;
                for (u32 length : {0u, 1u, 2u, 31u, 33u, 255u, 256u, 257u, 2049u, capacity - 1, capacity}) {
                    if (length > capacity) continue;
                    starts.push_back(ids.size());
                    lengths.push_back(length);
                    std::set<u32> distinct;
                    for (u32 i = 0; i < length; i++) ids.push_back(random.below(span)), distinct.insert(ids.back());
                    ids.push_back(12345);
                    expected.emplace_back(distinct.begin(), distinct.end());
                    expected_lengths.push_back(static_cast<u32>(distinct.size()));
                }
                Buffer<u32> device(ids), counts(lengths);
                launch("unique", starts.size(), 256, 4 * capacity, device, Buffer<u64>(starts), counts, capacity);
                bool agrees = counts.is(expected_lengths) && device.is_guarded();
                for (size_t g = 0; agrees && g < starts.size(); g++) {
                    agrees = std::equal(expected[g].begin(), expected[g].end(), device.at + starts[g]);
                    agrees = agrees && device[starts[g] + lengths[g]] == 12345;
                }
                unique.that(agrees, text("capacity", capacity, "span", span, "order", order));
            }
        }
    }
}

void offers() {
    Check check("merge_count, merge_scatter: each pair of a leaf is offered once to both ends, unless a threshold refuses it");
    Random random{5};
    for (u64 order : ORDERS) {
        roxanne_host_seed(order);
        for (u32 k : {1, 3, 5, 10, 16}) {
            for (u32 span : {1u, 4u, 1u << 29}) {
                const u32 n = 400;
                std::vector<u64> offsets{0}, lists;
                std::vector<u32> members, thresholds(n);
                for (u32& t : thresholds) t = random.below(3) ? NONE : random.below(span);
                std::vector<std::multiset<u64>> expected(n);
                for (u32 size : {1, 2, 0, 3, 33, 128, 129, 300}) {
                    std::vector<u32> ids(n);
                    for (u32 i = 0; i < n; i++) ids[i] = i;
                    for (u32 i = 0; i < size; i++) std::swap(ids[i], ids[i + random.below(n - i)]);
                    std::sort(ids.begin(), ids.begin() + size);
                    members.insert(members.end(), ids.begin(), ids.begin() + size);
                    offsets.push_back(members.size());
                    std::vector<u32> distances(size * size);
                    for (u32 p = 0; p < size; p++)
                        for (u32 q = 0; q < p; q++) distances[p * size + q] = distances[q * size + p] = random.below(span);
                    std::set<std::pair<u32, u32>> pairs;
                    for (u32 p = 0; p < size; p++) {
                        std::vector<u64> list;
                        for (u32 q = 0; q < size; q++) {
                            if (q != p) list.push_back(u64{distances[p * size + q]} << 32 | q);
                        }
                        std::sort(list.begin(), list.end());
                        list.resize(k, NO_ENTRY);
                        for (u64 e : list) {
                            u32 q = static_cast<u32>(e);
                            if (e != NO_ENTRY) pairs.insert({p, q}), pairs.insert({q, p});
                        }
                        lists.insert(lists.end(), list.begin(), list.end());
                    }
                    for (auto [p, q] : pairs) {
                        u32 distance = distances[p * size + q];
                        if (distance <= thresholds[ids[p]]) expected[ids[p]].insert(u64{distance} << 32 | ids[q]);
                    }
                }
                std::string where = text("k", k, "span", span, "order", order);
                u64 leaves = offsets.size() - 1;
                std::vector<u32> expected_counts(n);
                for (u32 row = 0; row < n; row++) expected_counts[row] = static_cast<u32>(expected[row].size());
                Buffer<u32> ids(members), refuse(thresholds), counts(std::vector<u32>(n, 0));
                Buffer<u64> starts(offsets), found(lists);
                launch("merge_count", leaves, 128, 0, ids, starts, found, k, refuse, counts);
                check.that(counts.is(expected_counts), where + " (counts)");
                std::vector<u64> places = prefix_sums(expected_counts);
                u64 total = places.back();
                places.pop_back();
                Buffer<u64> cursors(places), out(total);
                launch("merge_scatter", leaves, 128, 0, ids, starts, found, k, refuse, cursors, out);
                check.that(out.is_guarded() && cursors.is_guarded(), where + " (guards)");
                for (u32 row = 0; row < n; row++) {
                    std::multiset<u64> got(out.at + places[row], out.at + places[row] + expected_counts[row]);
                    check.that(got == expected[row] && cursors[row] == places[row] + expected_counts[row], where + text(" row", row));
                }
            }
        }
    }
}

void merges() {
    Check check("merge: the nearest `width` distinct of a row and its offers, over several rounds");
    Random random{6};
    for (u64 order : ORDERS) {
        roxanne_host_seed(order);
        for (u32 width : {1, 10, 31, 32, 33, 96, 128, 200, 1000, 1024}) {
            for (u32 n : {1, 31, 32, 33, 70}) {
                if (width > 200 && n != 33) continue;
                // Few distinct entries, so that many arrive twice; and many.
                for (u32 span : {width / 2 + 2, 4 * width + 40}) {
                    std::vector<u64> rows(u64{n} * width, 0xcdcdcdcdcdcdcdcdull);
                    Buffer<u64> reservoirs(rows);
                    Buffer<u32> lengths(std::vector<u32>(n, 0)), thresholds(std::vector<u32>(n, NONE));
                    std::vector<std::vector<u64>> expected(n);
                    std::vector<u32> expected_thresholds(n, NONE);
                    for (u32 round = 0; round < 4; round++) {
                        std::vector<u32> counts(n);
                        std::vector<u64> offered;
                        for (u32 row = 0; row < n; row++) {
                            bool is_hub = row == n / 2 && round % 2 == 0;
                            u32 of_kind[] = {0, 1, random.below(3 * width + 3), random.below(40), random.below(40), random.below(40)};
                            counts[row] = is_hub ? 3000 : of_kind[random.below(6)];
                            std::set<u64> all(expected[row].begin(), expected[row].end());
                            for (u32 i = 0; i < counts[row]; i++) {
                                u64 entry = u64{random.below(9)} << 32 | random.below(span);
                                const std::vector<u64>& held = expected[row];
                                if (!held.empty() && random.below(4) == 0) entry = held[random.below(held.size())];
                                offered.push_back(entry);
                                all.insert(entry);
                            }
                            if (counts[row] == 0) continue;
                            expected[row].assign(all.begin(), all.end());
                            if (all.size() > width) expected[row].resize(width);
                            if (expected[row].size() == width) expected_thresholds[row] = static_cast<u32>(expected[row].back() >> 32);
                        }
                        // A row that gets nothing keeps even a threshold that is not its own.
                        for (u32 row = 0; row < n; row++) {
                            if (counts[row] == 0 && random.below(2)) expected_thresholds[row] = thresholds[row] = 4711;
                            else if (expected[row].size() < width && counts[row] > 0) expected_thresholds[row] = NONE;
                        }
                        u32 room = 32;
                        while (room < width) room *= 2;
                        u32 block = width > 200 ? 64 : 32u << random.below(4);
                        launch("merge", blocks_for(n, block), block, 8 * 2 * room * (block / 32), u64{n}, Buffer<u64>(prefix_sums(counts)),
                               Buffer<u64>(offered), width, reservoirs, lengths, thresholds);
                        std::string where = text("width", width, "n", n, "order", order) + text(" span", span, "round", round);
                        check.that(thresholds.is(expected_thresholds), where + " (thresholds)");
                        check.that(reservoirs.is_guarded() && lengths.is_guarded(), where + " (guards)");
                        for (u32 row = 0; row < n; row++) {
                            const u64* at = reservoirs.at + u64{row} * width;
                            bool agrees = std::equal(expected[row].begin(), expected[row].end(), at);
                            check.that(agrees && lengths[row] == expected[row].size(), where + text(" row", row));
                        }
                    }
                }
            }
        }
    }
}

/// The contract of `encode` in plain loops, sums in u32 because they wrap.
struct Encoding {
    u32 dim, stride, bits, subspaces, fraction_bits;
    std::vector<u8> rows;
    std::vector<u32> offsets;
    std::vector<i16> rotation, centroids;
    std::vector<i32> starts;

    i32 centered(u64 row, u32 j) const {
        const u8* at = rows.data() + row * stride;
        return (bits ? (at[j / 8] >> (j % 8) & 1 ? 255 : 0) : at[j]) - 128;
    }

    std::vector<i32> fixed_point(u64 row) const {
        std::vector<i32> y(dim);
        for (u32 i = 0; i < dim; i++) {
            if (rotation.empty()) {
                y[i] = centered(row, i) * (1 << fraction_bits);
                continue;
            }
            u32 sum = 0;
            for (u32 j = 0; j < dim; j++) sum += static_cast<u32>(rotation[u64{i} * dim + j] * centered(row, j));
            y[i] = std::clamp(static_cast<i32>(sum + (1u << (13 - fraction_bits))) >> (14 - fraction_bits), -32767, 32767);
        }
        return y;
    }

    std::vector<u8> codes(u64 first, u32 count) const {
        std::vector<u8> codes;
        for (u64 row = first; row < first + count; row++) {
            std::vector<i32> y = fixed_point(row);
            for (u32 s = 0; s < subspaces; s++) {
                u32 best = 0;
                i32 best_score = 0;
                for (u32 k = 0; k < 256; k++) {
                    u32 score = static_cast<u32>(starts[s * 256 + k]);
                    for (u32 j = offsets[s]; j < offsets[s + 1]; j++) score += static_cast<u32>(y[j] * centroids[u64{j} * 256 + k]);
                    if (k == 0 || static_cast<i32>(score) > best_score) best = k, best_score = static_cast<i32>(score);
                }
                codes.push_back(static_cast<u8>(best));
            }
        }
        return codes;
    }
};

void encodes() {
    Check plain("encode, not rotated"), rotated("encode, rotated"), packed("encode of bits"), wide("encode of vectors wider than a window");
    Random random{7};
    auto test = [&](Check& check, u32 dim, u32 subspaces, bool rotate, u32 bits, u32 fraction_bits, u32 count, u32 scale) {
        Encoding e{dim, 0, bits, subspaces, fraction_bits, {}, {}, {}, {}, {}};
        const u64 first = 3;
        e.stride = ((bits ? (dim + 7) / 8 : dim) + 31) / 32 * 32;
        e.rows.resize((first + count) * e.stride);
        for (u8& b : e.rows) b = static_cast<u8>(random.below(256));
        for (u32 s = 0; s <= subspaces; s++) e.offsets.push_back(s * (dim / subspaces) + std::min(s, dim % subspaces));
        if (rotate) e.rotation.resize(u64{dim} * dim);
        for (i16& r : e.rotation) r = static_cast<i16>(random.below(2 * scale) - scale);
        e.centroids.resize(u64{dim} * 256);
        for (i16& c : e.centroids) c = static_cast<i16>(random.below(2 * scale) - scale);
        e.starts.resize(u64{subspaces} * 256);
        for (i32& s : e.starts) s = -static_cast<i32>(random.below(scale));
        // Twins among the centroids, so that there are ties; one subspace where all are equal.
        for (u64 j = 0; j < dim; j++) {
            for (u32 k = 0; k < 256; k++) {
                if (k % 3 == 2) e.centroids[j * 256 + k] = e.centroids[j * 256 + (k * 37 + 11) % 256];
                if (j < e.offsets[1]) e.centroids[j * 256 + k] = subspaces > 1 ? 5 : e.centroids[j * 256 + k];
            }
        }
        for (u64 i = 0; i < e.starts.size(); i++) {
            if (i % 3 == 2 || (subspaces > 1 && i < 256)) e.starts[i] = -7;
        }
        std::vector<u8> expected = e.codes(first, count);
        Buffer<u8> rows(e.rows);
        Buffer<u32> offsets(e.offsets);
        Buffer<i16> rotation(e.rotation), centroids(e.centroids);
        Buffer<i32> starts(e.starts);
        for (u64 order : {0, 5}) {
            roxanne_host_seed(order);
            Buffer<u8> codes(u64{count} * subspaces);
            const i16* matrix = rotate ? rotation.at : nullptr;
            launch("encode", (count + 15) / 16, 256, 0, rows, e.stride, first, count, dim, bits, subspaces, offsets, fraction_bits, matrix,
                   centroids, starts, codes);
            std::string where = text("dim", dim, "subspaces", subspaces, "count", count) + text(" scale", scale, "order", order);
            check.that(codes.is(expected), where);
        }
    };
    for (u32 dim : {1, 3, 31, 33, 100, 128, 1000}) {
        for (u32 subspaces : std::set<u32>{1, (dim + 6) / 7, (dim + 3) / 4, dim}) {
            for (u32 scale : {3u, 4000u, 32768u}) {
                u32 count = dim > 200 ? 5 : 1 + random.below(40);
                test(plain, dim, subspaces, false, 0, random.below(8), count, scale);
                test(packed, dim, subspaces, false, 1, random.below(8), count, scale);
                if (dim <= 200 || subspaces < 200) test(rotated, dim, subspaces, true, random.below(4) == 0, random.below(8), count, scale);
            }
        }
    }
    for (u32 count : {1, 15, 16, 17, 33}) test(plain, 32, 16, false, 0, 7, count, 9000);
    test(rotated, 1024, 96, true, 0, 2, 4, 600);
    for (u32 dim : {1024, 1025, 2048, 2500, 8192, 8224}) {
        test(wide, dim, 7, false, 0, 3, 3, 2000);
        test(wide, dim, 300, false, 0, 0, 2, 32768);
        test(wide, dim, 64, false, 1, 4, 2, 2000);
    }
}

void roof() {
    Check check("roof_int8: all of its work reaches the sink");
    const u32 iterations = 3;
    // As mma: every product of column k of A with row k of B, eight chains; as dp4a: each lane's own sums.
    u32 of_mma = 0, of_dots = 0;
    for (u32 k = 0; k < 32; k++) {
        u32 column = 0, row = 0;
        for (u32 lane = k % 16 / 4; lane < 32; lane += 4) {
            for (u32 i : {k / 16 * 2, k / 16 * 2 + 1}) column += (lane * 0x01030507 + i) >> k % 4 * 8 & 255;
            row += (lane * 0x07050301 + k / 16) >> k % 4 * 8 & 255;
        }
        of_mma += column * row * iterations * 8;
    }
    for (u32 lane = 0; lane < 32; lane++) {
        for (u32 chain = 0; chain < 8; chain++) {
            u32 sum = lane * 0x01030507 + chain;
            for (u32 dot = 0; dot < 32 * iterations; dot++) {
                u32 before = sum;
                for (u32 byte = 0; byte < 32; byte += 8) sum += (before >> byte & 255) * ((lane * 0x07050301 + 1) >> byte & 255);
            }
            of_dots += sum;
        }
    }
    for (u64 order : ORDERS) {
        roxanne_host_seed(order);
        Buffer<i32> sink(1);
        launch("roof_int8", 2, 96, 0, iterations, sink);
        u32 got = static_cast<u32>(sink[0]);
        check.that(sink.is_guarded() && (got == of_mma || got == of_dots), text("order", order));
    }
}

} // namespace

int main() {
    scans();
    sorts();
    simple_moves();
    moves_by_group();
    offers();
    merges();
    encodes();
    roof();
    return all_agree ? 0 : 1;
}
