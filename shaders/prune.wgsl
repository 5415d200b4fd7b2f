// prune: RobustPrune (core/src/prune.rs) of each row's reservoir: rounds alpha 1 and alpha; ids out in (distance, id) order, zeros
// behind the last.
//
// rows [. x stride] u8, reservoirs [n x width] of which the first lengths[row] are sorted, none twice; degrees [n],
// neighbors [n x max_degree]. An entry is vec2(number, distance); a candidate's code is row `number` of rows.
// A workgroup a row, 64 invocations; rows beyond 65,535 go on in y. Driven by the kept: each newly kept candidate is compared with all
// later ones at once, those it covers are marked for the rounds they are covered in. Workgroup memory: 8,448 bytes; width at most 1,024.
// Twin: ../kernels/prune.cu. `first` falls away (the host binds the batch's reservoirs), and so does `staged`.
// Equal to prune of builder/src/backend/cpu.rs.

struct Params {
    stride: u32,
    row_count: u32,
    width: u32,
    max_degree: u32,
    alpha_numerator: u32,
    alpha_denominator: u32,
}

const MOST: u32 = 1024u;
const LANES: u32 = 64u;
const KEPT: u32 = 1u;
// Bit of "covered in round r": COVERED << r.
const COVERED: u32 = 2u;

@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> reservoirs: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read_write> degrees: array<u32>;
@group(0) @binding(4) var<storage, read_write> neighbors: array<u32>;
@group(0) @binding(5) var<uniform> params: Params;

var<workgroup> marks: array<u32, MOST>;
var<workgroup> norms: array<u32, MOST>;
var<workgroup> kept_of: array<u32, LANES>;

// floor(distance * denominator / numerator) in 32 bits: alpha >= 1, and both below 2^16 (the host's promise).
fn reach(distance: u32) -> u32 {
    let whole = distance / params.alpha_numerator;
    let rest = distance % params.alpha_numerator;
    return whole * params.alpha_denominator + rest * params.alpha_denominator / params.alpha_numerator;
}

fn norm(row: u32) -> u32 {
    if (metric != L2) {
        return 0u;
    }
    let quads = params.stride / 16u;
    var sum = 0u;
    for (var i = 0u; i < quads; i++) {
        let words = rows[row * quads + i];
        sum += norm_term(words.x) + norm_term(words.y) + norm_term(words.z) + norm_term(words.w);
    }
    return sum;
}

fn sum_of_terms(a: u32, b: u32) -> u32 {
    let quads = params.stride / 16u;
    var sum = 0u;
    for (var i = 0u; i < quads; i++) {
        let x = rows[a * quads + i];
        let y = rows[b * quads + i];
        sum += term(x.x, y.x) + term(x.y, y.y) + term(x.z, y.z) + term(x.w, y.w);
    }
    return sum;
}

@compute @workgroup_size(64)
fn prune(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= params.row_count) {
        return;
    }
    let first = row * params.width;
    let count = lengths[row];
    for (var i = lane; i < count; i += LANES) {
        marks[i] = 0u;
        norms[i] = norm(reservoirs[first + i].x);
    }
    var degree = 0u;
    for (var round = 0u; round < 2u; round++) {
        for (var at = 0u; at < count; at++) {
            // No way around the barriers, so that every compiler sees that all invocations meet there.
            workgroupBarrier();
            let mark = marks[at];
            workgroupBarrier();
            if (degree == params.max_degree || (mark & (KEPT | COVERED << round)) != 0u) {
                continue;
            }
            degree++;
            if (lane == 0u) {
                marks[at] = mark | KEPT;
            }
            let kept = reservoirs[first + at].x;
            for (var i = at + 1u + lane; i < count; i += LANES) {
                let candidate = reservoirs[first + i];
                let before = marks[i];
                // What the second round covers, the first covers as well.
                if ((before & (KEPT | COVERED << 1u)) != 0u) {
                    continue;
                }
                let distance = distance_of(sum_of_terms(kept, candidate.x), norms[at], norms[i]);
                var now = before;
                if (distance <= candidate.y) {
                    now |= COVERED;
                }
                if (distance <= reach(candidate.y)) {
                    now |= COVERED << 1u;
                }
                marks[i] = now;
            }
        }
    }
    workgroupBarrier();
    // Every invocation writes the kept ones of a stretch of its own.
    let share = (count + LANES - 1u) / LANES;
    let begin = min(lane * share, count);
    let end = min(begin + share, count);
    var mine = 0u;
    for (var i = begin; i < end; i++) {
        mine += marks[i] & KEPT;
    }
    kept_of[lane] = mine;
    workgroupBarrier();
    var out = row * params.max_degree;
    for (var other = 0u; other < lane; other++) {
        out += kept_of[other];
    }
    for (var i = begin; i < end; i++) {
        if ((marks[i] & KEPT) != 0u) {
            neighbors[out] = reservoirs[first + i].x;
            out++;
        }
    }
    for (var i = degree + lane; i < params.max_degree; i += LANES) {
        neighbors[row * params.max_degree + i] = 0u;
    }
    if (lane == 0u) {
        degrees[row] = degree;
    }
}
