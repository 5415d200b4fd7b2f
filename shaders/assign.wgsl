// assign: for every member of a cluster the places of its k (the contract's fanout) nearest leaders in the cluster's group of leaders,
// nearest first, ties to the smaller place; all ones where there are fewer.
//
// rows [n x stride] u8, members [m], leaders [l], nearest [m x k]. Group g has members[offsets[g] .. offsets[g + 1]] and leaders
// [leader_offsets[g] .. leader_offsets[g + 1]]; a tile (g, first) is the members at places first .. min(first + 64, size) of group g.
// A workgroup a tile, 64 invocations; tiles beyond 65,535 go on in y. Workgroup memory: product.wgslh.
// Twin: ../kernels/assign.cu. Its norms, ordinal_bits, width of a candidate and cap fall away; fanout is the pipeline's constant k;
// offsets are 32-bit, because the host cuts batches. Equal to assign of builder/src/backend/cpu.rs.

struct Params {
    stride: u32,
    tile_count: u32,
}

@group(0) @binding(1) var<storage, read> members: array<u32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read> leaders: array<u32>;
@group(0) @binding(4) var<storage, read> leader_offsets: array<u32>;
@group(0) @binding(5) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> nearest: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;

@compute @workgroup_size(64)
fn assign(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if (index >= params.tile_count) {
        return;
    }
    let tile = tiles[index];
    let member = offsets[tile.x] + tile.y + lane;
    let is_member = member < offsets[tile.x + 1u];
    var row = NO_ROW;
    if (is_member) {
        row = members[member];
    }
    let first = leader_offsets[tile.x];
    let count = leader_offsets[tile.x + 1u] - first;
    clear_list();
    for (var start = 0u; start < count; start += TILE_COLUMNS) {
        let column_count = min(TILE_COLUMNS, count - start);
        var column = NO_ROW;
        if (lane < column_count) {
            column = leaders[first + start + lane];
        }
        let row_norm = product(lane, params.stride, row, column);
        for (var c = 0u; c < column_count; c++) {
            offer(distance_to(lane, row_norm, c), start + c);
        }
    }
    if (is_member) {
        for (var i = 0u; i < k; i++) {
            nearest[member * k + i] = list_places[i];
        }
    }
}
