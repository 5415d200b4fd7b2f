// merge: what leaves found becomes each row's nearest candidates: `reservoirs` [n x width], sorted runs of distinct entries.
//
// merge_count    block of 128 = one leaf, a thread takes every 128th member: adds to counts[row] what its list and those that found it
//                offer.
// merge_scatter  the same walk; takes places from cursors[row] (which start as the prefix sums of the counts) and writes there.
// merge          a warp = 32 rows, block any multiple of 32 threads: those that have offers, one after the other, with all lanes.
//                Dynamic shared memory: 8 * S bytes a warp, S = 2 * max(32, the next power of two of width), 1 <= width <= 1024:
//                the run in the lower half, a chunk of offers in the upper one. Nothing but __syncwarp: warps do not wait for each other.
// Warps of `merge` past the end do nothing; the grid of the other two is the number of leaves.
//
// Result: the smallest `width` of a set under a total order, so it depends neither on the order of offers nor on how leaves are batched.
// Twin: ../shaders/merge.wgsl; specification: builder/src/backend/cpu.rs (merge) and builder/src/reservoir.rs; equal to them.
// Floor, bytes: count and scatter read the lists (8 * members * k) once each, plus an atomic a member and one an offer to the other end;
// merge reads offers once and a row with offers once, and writes what moved of it: at most 8 * (offers + 2 * width) a row.
#include "common.cuh"

// The threshold of a row that is not full: every distance passes.
constexpr u32 NO_THRESHOLD = 0xffffffffu;

// Room for the rows' own runs, and as much again for offers: a warp's half of shared memory, in entries.
DEVICE u32 half_room(u32 width) {
    u32 room = WARP;
    while (room < width) room *= 2;
    return room;
}

// How many of a sorted list are smaller than `bound`.
DEVICE u32 lower_bound(const u64* list, u32 length, u64 bound) {
    u32 low = 0;
    while (length > 0) {
        u32 half = length / 2;
        if (list[low + half] < bound) {
            low += half + 1;
            length -= half + 1;
        } else {
            length = half;
        }
    }
    return low;
}

// The offers of a leaf's lists, counted (`offers` null) or written.
//
// A member takes room for all of its own list at once; what it offers to others goes one by one.
DEVICE void offer_leaf(const u32* members, const u64* offsets, const u64* lists, u32 k, const u32* thresholds, u32* counts, u64* cursors,
                       u64* offers) {
    u64 start = offsets[blockIdx.x];
    u32 size = u32(offsets[blockIdx.x + 1] - start);
    members += start;
    lists += start * k;
    for (u32 place = threadIdx.x; place < size; place += blockDim.x) {
        const u64* list = lists + u64(place) * k;
        u32 row = members[place];
        u32 threshold = thresholds[row];
        u32 own = 0;
        // Sorted, and NO_ENTRY's distance is above any: what is offered is a prefix. A threshold of u32::MAX must not let NO_ENTRY pass.
        while (own < k && list[own] != NO_ENTRY && entry_distance(list[own]) <= threshold) own++;
        u64 at = 0;
        if (own > 0) {
            if (offers) at = atomicAdd(&cursors[row], u64(own));
            else atomicAdd(&counts[row], own);
        }
        for (u32 f = 0; f < k && list[f] != NO_ENTRY; f++) {
            u32 distance = entry_distance(list[f]);
            u32 other_place = entry_number(list[f]);
            u32 other = members[other_place];
            if (offers && f < own) offers[at + f] = make_entry(distance, other);
            // A list holds all that are nearer than its last, so the other has offered itself already.
            if (make_entry(distance, place) <= lists[u64(other_place) * k + k - 1]) continue;
            if (distance > thresholds[other]) continue;
            if (offers) offers[atomicAdd(&cursors[other], u64(1))] = make_entry(distance, row);
            else atomicAdd(&counts[other], 1u);
        }
    }
}

KERNEL void merge_count(const u32* members, const u64* offsets, const u64* lists, u32 k, const u32* thresholds, u32* counts) {
    offer_leaf(members, offsets, lists, k, thresholds, counts, nullptr, nullptr);
}

KERNEL void merge_scatter(const u32* members, const u64* offsets, const u64* lists, u32 k, const u32* thresholds, u64* cursors,
                          u64* offers) {
    offer_leaf(members, offsets, lists, k, thresholds, nullptr, cursors, offers);
}

// Sorts `count` entries in shared memory by one warp, in place; the room up to the next power of two is filled with NO_ENTRY.
DEVICE void sort_entries(u64* entries, u32 count, u32 lane) {
    u32 room = 2;
    while (room < count) room *= 2;
    for (u32 i = count + lane; i < room; i += WARP) entries[i] = NO_ENTRY;
    __syncwarp();
    for (u32 run = 2; run <= room; run *= 2) {
        for (u32 step = run / 2; step > 0; step /= 2) {
            for (u32 pair = lane; pair < room / 2; pair += WARP) {
                u32 low = 2 * pair - (pair & (step - 1));
                u64 a = entries[low], b = entries[low + step];
                bool falls = (low & run) != 0;
                if ((a > b) != falls) {
                    entries[low] = b;
                    entries[low + step] = a;
                }
            }
            __syncwarp();
        }
    }
}

// Merges `count` offers (at most half_room) into the run of `length` entries at `row`; gives the new length.
//
// Entries go straight to their final places: an offer's is its place among the new ones plus its place in the run, a run's entry moves
// by the number of new ones before it. Both are binary searches; nothing is written for what stays where it is.
DEVICE u32 merge_chunk(u64* row, u32 length, u32 width, const u64* offers, u32 count, u64* run, u64* fresh, u32 lane) {
    for (u32 i = lane; i < length; i += WARP) run[i] = row[i];
    for (u32 i = lane; i < count; i += WARP) fresh[i] = offers[i];
    sort_entries(fresh, count, lane);
    // The offers that are new, moved together. What is written over was read before, except a neighbor that was written over by itself.
    u32 added = 0;
    for (u32 base = 0; base < count; base += WARP) {
        u32 i = base + lane;
        bool is_new = i < count && (i == 0 || fresh[i] != fresh[i - 1]);
        u64 offer = is_new ? fresh[i] : NO_ENTRY;
        u32 rank = 0;
        if (is_new) {
            rank = lower_bound(run, length, offer);
            is_new = rank < width && (rank == length || run[rank] != offer);
        }
        u32 votes = __ballot_sync(FULL_MASK, is_new);
        __syncwarp();
        if (is_new) {
            u32 place = added + __popc(votes & ((1u << lane) - 1));
            fresh[place] = offer;
            if (place + rank < width) row[place + rank] = offer;
        }
        added += __popc(votes);
        __syncwarp();
    }
    for (u32 i = lane; added > 0 && i < length; i += WARP) {
        u32 shift = lower_bound(fresh, added, run[i]);
        if (shift > 0 && i + shift < width) row[i + shift] = run[i];
    }
    // The next chunk reads the row and writes over both halves.
    __syncwarp();
    return min(width, length + added);
}

KERNEL void merge(u64 n, const u64* offer_offsets, const u64* offers, u32 width, u64* reservoirs, u32* lengths, u32* thresholds) {
    DYNAMIC_SHARED(u64, shared);
    u32 lane = lane_id(), warp = warp_id();
    u32 room = half_room(width);
    u64* run = shared + u64(warp) * 2 * room;
    u64* fresh = run + room;
    u64 first = grid_warp() * WARP;
    u64 mine = first + lane;
    bool has_offers = mine < n && offer_offsets[mine] < offer_offsets[mine + 1];
    for (u32 pending = __ballot_sync(FULL_MASK, has_offers); pending != 0; pending &= pending - 1) {
        u64 at = first + (__ffs(pending) - 1);
        u64* row = reservoirs + at * width;
        u32 length = lengths[at];
        u64 end = offer_offsets[at + 1];
        for (u64 next = offer_offsets[at]; next < end; next += room) {
            u32 count = u32(end - next < room ? end - next : room);
            length = merge_chunk(row, length, width, offers + next, count, run, fresh, lane);
        }
        if (lane == 0) {
            lengths[at] = length;
            thresholds[at] = length == width ? entry_distance(row[width - 1]) : NO_THRESHOLD;
        }
    }
}
