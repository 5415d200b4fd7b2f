// merge: each row's reservoir and its offers become the nearest `width` distinct entries of both, sorted.
//
// offer_offsets [n + 1], offers [offer_offsets[n]], reservoirs [n x width] of which the first lengths[row] are a sorted run, in and out;
// all ones behind the run. An entry is vec2(number, distance): the bytes of the u64 `distance << 32 | number`.
// A workgroup a row, 64 invocations; rows beyond 65,535 go on in y. Offers are taken `half` at a time: sorted together with the run by a
// bitonic network, and packed without duplicates. Workgroup memory: 8,448 bytes.
// `half` is a constant of the pipeline: a power of two from 32 to 512, at least width.
// Twin: `merge` of ../kernels/merge.cu; merge_count, merge_scatter and the thresholds are the host's. Equal to builder/src/reservoir.rs.

struct Params {
    row_count: u32,
    width: u32,
}

override half: u32;
const MOST: u32 = 1024u;
const LANES: u32 = 64u;
const NO_ENTRY: vec2<u32> = vec2<u32>(0xffffffffu, 0xffffffffu);

@group(0) @binding(0) var<storage, read> offer_offsets: array<u32>;
@group(0) @binding(1) var<storage, read> offers: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> reservoirs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> lengths: array<u32>;
@group(0) @binding(4) var<uniform> params: Params;

var<workgroup> entries: array<vec2<u32>, MOST>;
var<workgroup> firsts: array<u32, LANES>;

fn is_before(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// Sorts the first 2 * half of `entries`; begins and ends with a barrier.
fn sort(lane: u32) {
    for (var run = 2u; run <= 2u * half; run *= 2u) {
        for (var step = run / 2u; step > 0u; step /= 2u) {
            workgroupBarrier();
            for (var pair = lane; pair < half; pair += LANES) {
                let low = 2u * pair - (pair & (step - 1u));
                let a = entries[low];
                let b = entries[low + step];
                if (is_before(b, a) == ((low & run) == 0u)) {
                    entries[low] = b;
                    entries[low + step] = a;
                }
            }
        }
    }
    workgroupBarrier();
}

// Moves the first `width` distinct of the sorted `entries` to the front, all ones behind them; returns how many there are.
fn pack(lane: u32, width: u32) -> u32 {
    let share = max(2u * half / LANES, 1u);
    let begin = min(lane * share, 2u * half);
    let end = min(begin + share, 2u * half);
    var mine: array<vec2<u32>, MOST / LANES>;
    var count = 0u;
    for (var i = begin; i < end; i++) {
        let entry = entries[i];
        var is_first = any(entry != NO_ENTRY);
        if (is_first && i > 0u) {
            is_first = any(entry != entries[i - 1u]);
        }
        if (is_first) {
            mine[count] = entry;
            count++;
        }
    }
    firsts[lane] = count;
    workgroupBarrier();
    var before = 0u;
    var all = 0u;
    for (var other = 0u; other < LANES; other++) {
        if (other < lane) {
            before += firsts[other];
        }
        all += firsts[other];
    }
    for (var i = 0u; i < count && before + i < width; i++) {
        entries[before + i] = mine[i];
    }
    let kept = min(all, width);
    for (var i = kept + lane; i < half; i += LANES) {
        entries[i] = NO_ENTRY;
    }
    return kept;
}

@compute @workgroup_size(64)
fn merge(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= params.row_count) {
        return;
    }
    let first = row * params.width;
    let length = lengths[row];
    for (var i = lane; i < half; i += LANES) {
        var entry = NO_ENTRY;
        if (i < length) {
            entry = reservoirs[first + i];
        }
        entries[i] = entry;
    }
    var kept = length;
    let end = offer_offsets[row + 1u];
    for (var start = offer_offsets[row]; start < end; start += half) {
        for (var i = lane; i < half; i += LANES) {
            var entry = NO_ENTRY;
            if (start + i < end) {
                entry = offers[start + i];
            }
            entries[half + i] = entry;
        }
        sort(lane);
        kept = pack(lane, params.width);
    }
    workgroupBarrier();
    for (var i = lane; i < params.width; i += LANES) {
        reservoirs[first + i] = entries[i];
    }
    // The barrier above stands between the reads of this length and its change.
    if (lane == 0u) {
        lengths[row] = kept;
    }
}
