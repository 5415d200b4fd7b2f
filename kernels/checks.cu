// check_ids: wrong += how many of ids [count] are not below n; a thread a value, any block that is a multiple of 32, threads past the end
// do nothing. What comes back from a device is looked at before it is used as an index.
//
// No shared memory. No twin: CUDA's alone (other backends hand their ids to Rust, which checks every index).
// Floor, bytes: 4 * count read.
#include "common.cuh"

KERNEL void check_ids(const u32* ids, u64 count, u64 n, u64* wrong) {
    u64 i = grid_thread();
    u32 votes = __ballot_sync(FULL_MASK, i < count && ids[i] >= n);
    if (votes != 0 && lane_id() == 0) atomicAdd(wrong, u64(__popc(votes)));
}
