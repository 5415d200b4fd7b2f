// encode: PQ codes (core/src/pq.rs). A code is the smallest c with the largest starts[c] + sum of y * centroid, all in wrapping i32.
//
// rows [. x stride] u8, of which first .. first + count are encoded; offsets [subspaces + 1]; rotation [dim x dim] i16, anything where
// `rotated` is 0; centroids [dim x 256] i16; starts [subspaces x 256] i32; codes [count x ceil(subspaces / 4)] words of four codes each.
// i16 come two in a word. Coordinate j of a row is its byte j, or with `bits` 255 times its bit j; x = coordinate - 128.
// A workgroup for four subspaces of 16 vectors, 256 invocations, one a centroid; workgroups beyond 65,535 go on in y.
// Workgroup memory: 1,152 bytes.
// Twin: ../kernels/encode.cu. Its codes are bytes; words here, since WGSL writes nothing smaller. A null rotation is `rotated` 0.

struct Params {
    stride: u32,
    first: u32,
    count: u32,
    dim: u32,
    bits: u32,
    subspaces: u32,
    fraction_bits: u32,
    rotated: u32,
}

const VECTORS: u32 = 16u;
const COORDINATES: u32 = 16u;
const CENTROIDS: u32 = 256u;
const CODES_IN_WORD: u32 = 4u;
const CENTER: i32 = 128;
// Fraction bits of the rotation's entries.
const ENTRY_BITS: u32 = 14u;
const LEAST: i32 = -0x7fffffff - 1;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> offsets: array<u32>;
@group(0) @binding(2) var<storage, read> rotation: array<u32>;
@group(0) @binding(3) var<storage, read> centroids: array<u32>;
@group(0) @binding(4) var<storage, read> starts: array<i32>;
@group(0) @binding(5) var<storage, read_write> codes: array<u32>;
@group(0) @binding(6) var<uniform> params: Params;

// Fixed-point coordinates [COORDINATES][VECTORS] of the stretch at hand.
var<workgroup> coordinates: array<i32, COORDINATES * VECTORS>;
var<workgroup> largest: array<atomic<i32>, VECTORS>;
var<workgroup> nearest: array<atomic<u32>, VECTORS>;

// Half `index % 2` of a word of two i16.
fn half_of(word: u32, index: u32) -> i32 {
    return extractBits(bitcast<i32>(word), index % 2u * 16u, 16u);
}

// x of a row that begins at word `start`.
fn centered(start: u32, j: u32) -> i32 {
    if (params.bits != 0u) {
        return 255 * i32(extractBits(rows[start + j / 32u], j % 32u, 1u)) - CENTER;
    }
    return i32(extractBits(rows[start + j / 4u], j % 4u * 8u, 8u)) - CENTER;
}

// y: coordinate j in fixed point, after the rotation where there is one.
fn coordinate(vector: u32, j: u32) -> i32 {
    let start = (params.first + vector) * (params.stride / 4u);
    if (params.rotated == 0u) {
        return centered(start, j) << params.fraction_bits;
    }
    var sum = 0;
    let row = j * params.dim;
    for (var i = 0u; i < params.dim; i++) {
        sum += half_of(rotation[(row + i) / 2u], row + i) * centered(start, i);
    }
    let shift = ENTRY_BITS - params.fraction_bits;
    return clamp((sum + (1 << (shift - 1u))) >> shift, -32767, 32767);
}

@compute @workgroup_size(256)
fn encode(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let words = (params.subspaces + CODES_IN_WORD - 1u) / CODES_IN_WORD;
    let blocks = (params.count + VECTORS - 1u) / VECTORS;
    let index = group.y * groups.x + group.x;
    if (index >= blocks * words) {
        return;
    }
    let first = index / words * VECTORS;
    let word = index % words;
    let staged_vector = first + lane % VECTORS;
    // Codes of vector `first + lane`, in the first 16 invocations.
    var code = 0u;
    for (var s = word * CODES_IN_WORD; s < min((word + 1u) * CODES_IN_WORD, params.subspaces); s++) {
        if (lane < VECTORS) {
            atomicStore(&largest[lane], LEAST);
            atomicStore(&nearest[lane], CENTROIDS);
        }
        let begin = offsets[s];
        let end = offsets[s + 1u];
        let start = starts[s * CENTROIDS + lane];
        var scores = array<vec4<i32>, 4>(vec4<i32>(start), vec4<i32>(start), vec4<i32>(start), vec4<i32>(start));
        for (var stretch = begin; stretch < end; stretch += COORDINATES) {
            let staged = stretch + lane / VECTORS;
            var y = 0;
            if (staged < end && staged_vector < params.count) {
                y = coordinate(staged_vector, staged);
            }
            workgroupBarrier();
            coordinates[lane] = y;
            workgroupBarrier();
            for (var c = 0u; c < min(COORDINATES, end - stretch); c++) {
                let at = (stretch + c) * CENTROIDS + lane;
                let centroid = half_of(centroids[at / 2u], at);
                for (var v = 0u; v < 4u; v++) {
                    let y = c * VECTORS + v * 4u;
                    scores[v] += centroid * vec4<i32>(coordinates[y], coordinates[y + 1u], coordinates[y + 2u], coordinates[y + 3u]);
                }
            }
        }
        workgroupBarrier();
        for (var v = 0u; v < VECTORS; v++) {
            atomicMax(&largest[v], scores[v / 4u][v % 4u]);
        }
        workgroupBarrier();
        for (var v = 0u; v < VECTORS; v++) {
            if (scores[v / 4u][v % 4u] == atomicLoad(&largest[v])) {
                atomicMin(&nearest[v], lane);
            }
        }
        workgroupBarrier();
        if (lane < VECTORS) {
            code |= atomicLoad(&nearest[lane]) << (s % CODES_IN_WORD * 8u);
        }
    }
    if (lane < VECTORS && first + lane < params.count) {
        codes[(first + lane) * words + word] = code;
    }
}
