// leaf_knn: for every member of a leaf its k nearest others there: entries (place in the leaf, distance), nearest first, ties to the
// smaller place, all ones behind the last.
//
// rows [n x stride] u8, members [m], lists [m x k]. Leaf g has members[offsets[g] .. offsets[g + 1]]; a tile (g, first) is the members at
// places first .. min(first + 64, size) of leaf g. An entry is vec2(place, distance): the bytes of the u64 `distance << 32 | place`.
// A workgroup a tile, 64 invocations; tiles beyond 65,535 go on in y. Workgroup memory: product.wgslh.
// Twin: ../kernels/leaf_knn.cu. Its norms, ordinal_bits, width of a candidate and cap fall away; k is a constant of the pipeline; offsets
// are 32-bit, because the host cuts batches. Equal to leaf_knn of builder/src/backend/cpu.rs.

struct Params {
    stride: u32,
    tile_count: u32,
}

@group(0) @binding(1) var<storage, read> members: array<u32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> lists: array<vec2<u32>>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(64)
fn leaf_knn(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if (index >= params.tile_count) {
        return;
    }
    let tile = tiles[index];
    let first = offsets[tile.x];
    let count = offsets[tile.x + 1u] - first;
    let place = tile.y + lane;
    var row = NO_ROW;
    if (place < count) {
        row = members[first + place];
    }
    clear_list();
    for (var start = 0u; start < count; start += TILE_COLUMNS) {
        let column_count = min(TILE_COLUMNS, count - start);
        var column = NO_ROW;
        if (lane < column_count) {
            column = members[first + start + lane];
        }
        let row_norm = product(lane, params.stride, row, column);
        for (var c = 0u; c < column_count; c++) {
            if (start + c != place) {
                offer(distance_to(lane, row_norm, c), start + c);
            }
        }
    }
    if (place < count) {
        for (var i = 0u; i < k; i++) {
            lists[(first + place) * k + i] = vec2<u32>(list_places[i], list_distances[i]);
        }
    }
}
