// groups: moves of members between groups, while a partition is cut on the device. Streaming kernels; blocks of 256 unless said.
//
// pick          a thread a value: picked[i] = ids[places[i]].
// cell_keys     a block a tile of assign (128 members): (cell, member) for every choice, at member's place * fanout + f.
// first_cells   a thread a row: (place on the tour of its first choice, row).
// rename        a thread a row: its choices by their place on the tour, in the new order of rows.
// cell_offsets  a thread a cell of 0 ..= cells: how many of the sorted keys are smaller.
// copy_runs     a block a run of (start, target, length).
// unique        a block a group: sorted and without duplicates, in place; ids below u32::MAX. Dynamic shared memory: 4 * capacity bytes,
//               capacity a power of two, at least every length and at most 4096; static: 32 bytes.
// A thread a value: grid at least max(1, ceil(count / block)), and threads past the end do nothing.
// No twin: CUDA's alone (other backends cut on the CPU, builder/src/partition.rs).
// Floor, bytes: pick 16; cell_keys 4 + 4 / fanout in, 8 out, a choice; first_cells 4 in (32 as sectors go), 8 out; rename 4 + 4 a
// choice; copy_runs 8; unique 4 in, at most 4 out.
#include "common.cuh"

constexpr u32 BLOCK = 256;
constexpr u32 WARPS = BLOCK / WARP;
// Members that a tile of assign has.
constexpr u32 TILE = 128;
// No such leader; also larger than any id.
constexpr u32 NONE = 0xffffffffu;

KERNEL void pick(const u32* ids, const u64* places, u64 count, u32* picked) {
    u64 i = grid_thread();
    if (i < count) picked[i] = ids[places[i]];
}

KERNEL void cell_keys(const u32* members, const u64* offsets, const u64* leader_offsets, const u64* tiles, u32 fanout, const u32* nearest,
                      u32* keys, u32* values) {
    u64 tile = tiles[blockIdx.x];
    u32 cluster = u32(tile >> 32), first = u32(tile);
    u64 start = offsets[cluster] + first;
    u64 left = offsets[cluster + 1] - start;
    u32 choices = u32(left < TILE ? left : TILE) * fanout;
    u64 leaders = leader_offsets[cluster];
    for (u32 i = threadIdx.x; i < choices; i += blockDim.x) {
        u64 at = start * fanout + i;
        u32 leader = nearest[at];
        keys[at] = leader == NONE ? NONE : u32(leaders + leader);
        values[at] = members[start + i / fanout];
    }
}

KERNEL void first_cells(const u32* nearest, u32 fanout, const u32* tour, u64 n, u32* keys, u32* values) {
    u64 row = grid_thread();
    if (row >= n) return;
    u32 choice = nearest[row * fanout];
    keys[row] = choice == NONE ? NONE : tour[choice];
    values[row] = u32(row);
}

KERNEL void rename(const u32* nearest, const u32* order, const u32* tour, u32 fanout, u64 n, u32* renamed) {
    u64 row = grid_thread();
    if (row >= n) return;
    const u32* from = nearest + u64(order[row]) * fanout;
    for (u32 f = 0; f < fanout; f++) renamed[row * fanout + f] = from[f] == NONE ? NONE : tour[from[f]];
}

KERNEL void cell_offsets(const u32* keys, u64 n, u32 cells, u64* offsets) {
    u64 cell = grid_thread();
    if (cell > cells) return;
    u64 low = 0, length = n;
    while (length > 0) {
        u64 half = length / 2;
        if (keys[low + half] < cell) {
            low += half + 1;
            length -= half + 1;
        } else {
            length = half;
        }
    }
    offsets[cell] = low;
}

KERNEL void copy_runs(const u32* from, const u64* runs, u32* to) {
    const u64* run = runs + 3 * u64(blockIdx.x);
    u64 start = run[0], target = run[1], length = run[2];
    for (u64 i = threadIdx.x; i < length; i += blockDim.x) to[target + i] = from[start + i];
}

// Sorts `count` ids in shared memory by the whole block; the room up to the next power of two is filled with NONE.
DEVICE void sort_ids(u32* ids, u32 count) {
    u32 room = 2;
    while (room < count) room *= 2;
    for (u32 i = count + threadIdx.x; i < room; i += BLOCK) ids[i] = NONE;
    __syncthreads();
    for (u32 run = 2; run <= room; run *= 2) {
        for (u32 step = run / 2; step > 0; step /= 2) {
            for (u32 pair = threadIdx.x; pair < room / 2; pair += BLOCK) {
                u32 low = 2 * pair - (pair & (step - 1));
                u32 a = ids[low], b = ids[low + step];
                bool falls = (low & run) != 0;
                if ((a > b) != falls) {
                    ids[low] = b;
                    ids[low + step] = a;
                }
            }
            __syncthreads();
        }
    }
}

KERNEL void __launch_bounds__(BLOCK) unique(u32* ids, const u64* starts, u32* lengths, u32 capacity) {
    DYNAMIC_SHARED(u32, sorted);
    STATIC_SHARED(u32, kept_by_warp, WARPS);
    u32 lane = lane_id(), warp = warp_id();
    u32* group = ids + starts[blockIdx.x];
    u32 length = lengths[blockIdx.x];
    // The host keeps this promise; a group that breaks it stays as it is rather than being cut.
    if (length < 2 || length > capacity) return;
    for (u32 i = threadIdx.x; i < length; i += BLOCK) sorted[i] = group[i];
    sort_ids(sorted, length);
    u32 kept = 0;
    for (u32 base = 0; base < length; base += BLOCK) {
        u32 i = base + threadIdx.x;
        bool keep = i < length && (i == 0 || sorted[i] != sorted[i - 1]);
        u32 votes = __ballot_sync(FULL_MASK, keep);
        if (lane == 0) kept_by_warp[warp] = __popc(votes);
        __syncthreads();
        u32 place = kept + __popc(votes & ((1u << lane) - 1));
        for (u32 w = 0; w < WARPS; w++) {
            if (w < warp) place += kept_by_warp[w];
            kept += kept_by_warp[w];
        }
        if (keep) group[place] = sorted[i];
        __syncthreads();
    }
    if (threadIdx.x == 0) lengths[blockIdx.x] = kept;
}
