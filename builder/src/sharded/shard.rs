//! The second pass: one shard's graph, in memory, and what it leaves on disk: its nodes in their final order, their codes, and the edges of its
//! ghosts, which travel home.

use super::{
    Shared, io,
    journal::{Journal, Record, ShardDone},
    route::distance,
};
use crate::{
    BuildError, Report,
    backend::{Backend, BuildCodes},
    fixup,
    graph_build::{BuiltGraph, build_graph},
    shuffle,
};
use roxanne_core::{graph::Graph, id::NodeId, random::CounterRng};
use std::{
    fs::{self, File},
    io::{BufWriter, Read, Write},
    path::Path,
};

/// Members that are read at once.
const READ_ROWS: usize = 1 << 14;
/// Rows that are encoded at once.
const ENCODE_ROWS: usize = 1 << 17;

/// The members of a shard, in the order of the input.
struct Members {
    rows: Vec<u32>,
    /// The shard where each is core.
    homes: Vec<u32>,
    codes: BuildCodes,
}

impl Members {
    fn read(shared: &Shared<'_>, shard: usize) -> Result<Members, BuildError> {
        let (path, width, stride) = (shared.path("members", shard), shared.member_bytes(), shared.codec.stride());
        let mut file = File::open(&path).map_err(io(&path))?;
        let count = file.metadata().map_err(io(&path))?.len() as usize / width;
        let (mut rows, mut homes) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut bytes = Vec::with_capacity(count * stride);
        let mut buffer = vec![0; READ_ROWS * width];
        while rows.len() < count {
            let some = READ_ROWS.min(count - rows.len());
            let part = &mut buffer[..some * width];
            file.read_exact(part).map_err(io(&path))?;
            for member in part.chunks_exact(width) {
                let (numbers, code) = member.split_at(8);
                rows.push(number(&numbers[..4]));
                homes.push(number(&numbers[4..]));
                bytes.extend_from_slice(code);
            }
        }
        Ok(Members { rows, homes, codes: BuildCodes { metric: shared.codec.build_metric(), stride, bytes } })
    }
}

/// A little-endian u32.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// Builds shard `shard`, whose first id is `first_id`, and notes it in the journal.
pub(super) fn build<B: Backend>(
    shared: &Shared<'_>,
    backend: &B,
    shard: usize,
    first_id: u64,
    journal: &mut Journal,
    report: &mut Report,
) -> Result<ShardDone, BuildError> {
    let (watch, builder) = (shared.job.watch, shared.builder);
    let Members { rows, homes, codes } = Members::read(shared, shard)?;
    let own = shard as u32;
    let ghosts = homes.iter().filter(|&&home| home != own).count() as u64;
    let core = rows.len() as u64 - ghosts;
    let mut done = ShardDone { shard, core, ghosts, entry: u32::MAX, host: u32::MAX, fixed: 0 };
    if core == 0 {
        // A shard that nothing came to: its files are empty.
        for kind in ["nodes", "codes", "order"] {
            write_file(&shared.path(kind, shard), |_| Ok(()))?;
        }
        write_inbox(shared, shard, Vec::new())?;
        journal.add(&Record::Shard(done))?;
        return Ok(done);
    }
    let mut params = builder.params.graph(shared.job.plan.dim)?;
    params.seed = CounterRng::new(params.seed).part(0x54A2).at(shard as u64);
    let BuiltGraph { codes, order, graph, work, .. } = build_graph(codes, &params, backend, watch)?;
    report.work.add(&work);
    // From here on a *node* is numbered as the graph is; a core node has a number among core nodes besides.
    let row_of = |node: NodeId| rows[order[node.index()].index()];
    let home_of = |node: NodeId| homes[order[node.index()].index()];
    let nodes = || (0..graph.n() as u32).map(NodeId);

    write_inbox(shared, shard, ghost_edges(&graph, &codes, own, builder.params.inbox, home_of, row_of))?;

    // The graph of core nodes alone: every one must be reached without leaving the shard.
    let core_nodes: Vec<NodeId> = nodes().filter(|&node| home_of(node) == own).collect();
    let mut core_of = vec![u32::MAX; graph.n()];
    core_nodes.iter().zip(0..).for_each(|(node, core)| core_of[node.index()] = core);
    let max_degree = graph.max_degree();
    let mut inside = Graph::new(core_nodes.len(), max_degree);
    for (core, &node) in (0..).zip(&core_nodes) {
        for neighbor in graph.neighbors(node).iter().filter(|n| core_of[n.index()] != u32::MAX) {
            inside.push(NodeId(core), NodeId(core_of[neighbor.index()]));
        }
    }
    let bytes = core_nodes.iter().flat_map(|&node| codes.row(node.0)).copied().collect();
    let core_codes = BuildCodes { bytes, ..codes };
    let before: Vec<u16> = (0..core_nodes.len() as u32).map(|core| inside.neighbors(NodeId(core)).len() as u16).collect();
    let outside = |core: NodeId| graph.neighbors(core_nodes[core.index()]).len() - usize::from(before[core.index()]);
    let room = |inside: &Graph, core: NodeId| inside.neighbors(core).len() + outside(core) < max_degree;
    let entry = fixup::entry_point(&core_codes, params.seed);
    let no_candidates = |nodes: &[u32]| Ok(vec![Vec::new(); nodes.len()]);
    done.fixed = work.fixed_edges + fixup::link_unreachable(&core_codes, no_candidates, entry, &mut inside, room)?;
    let reached = inside.reached_from(entry);
    if reached != core {
        return Err(BuildError::Unreachable { reached, n: core, max_degree });
    }

    watch.phase("order and write", core, "rows");
    let per_page = shared.layout.per_page;
    let mut final_order = shuffle::page_order(&inside, per_page, &watch.quiet())?;
    // Pages on disk begin where ids divide: the first of the shard may belong to a page that the shard before begun.
    let lead = (first_id.next_multiple_of(per_page as u64) - first_id) as usize;
    final_order.rotate_right(lead.min(core as usize));
    let row_at = |core: NodeId| row_of(core_nodes[core.index()]);
    done.entry = row_at(entry);
    done.host = final_order.iter().find(|&&core| room(&inside, core)).map_or(u32::MAX, |&core| row_at(core));

    let raw = if shared.keeps_raw() { fs::read(shared.path("raw", shard)).map_err(io(&shared.path("raw", shard)))? } else { Vec::new() };
    // Vectors lie in the order in which core members came.
    let mut vector_of = vec![u32::MAX; rows.len()];
    (0..rows.len()).filter(|&member| homes[member] == own).zip(0..).for_each(|(member, at)| vector_of[member] = at);
    let row_bytes = shared.layout.row_bytes;
    write_file(&shared.path("nodes", shard), |file| {
        let mut node_bytes = Vec::with_capacity(shared.node_bytes());
        for &core in &final_order {
            let node = core_nodes[core.index()];
            // As it was pruned, then what the fix-up added.
            let added = inside.neighbors(core)[usize::from(before[core.index()])..].iter().map(|n| core_nodes[n.index()]);
            node_bytes.clear();
            node_bytes.extend_from_slice(&row_of(node).to_le_bytes());
            node_bytes.extend_from_slice(&[0; 4]);
            let mut degree = 0u32;
            for neighbor in graph.neighbors(node).iter().copied().chain(added) {
                node_bytes.extend_from_slice(&row_of(neighbor).to_le_bytes());
                degree += 1;
            }
            node_bytes[4..8].copy_from_slice(&degree.to_le_bytes());
            node_bytes.resize(8 + 4 * max_degree, 0);
            if shared.keeps_raw() {
                let at = vector_of[order[node.index()].index()] as usize;
                node_bytes.extend_from_slice(&raw[at * row_bytes..][..row_bytes]);
            } else {
                node_bytes.extend_from_slice(&core_codes.row(core.0)[..row_bytes]);
            }
            file.write_all(&node_bytes)?;
        }
        Ok(())
    })?;
    drop(raw);
    write_file(&shared.path("order", shard), |file| final_order.iter().try_for_each(|&core| file.write_all(&row_at(core).to_le_bytes())))?;
    let bytes = final_order.iter().flat_map(|core| core_codes.row(core.0)).copied().collect();
    let ordered = BuildCodes { bytes, ..core_codes };
    let loaded = backend.load(&ordered)?;
    let mut pq = Vec::with_capacity(ordered.n() * shared.codebook.subspaces());
    for first in (0..ordered.n()).step_by(ENCODE_ROWS) {
        let range = first..ordered.n().min(first + ENCODE_ROWS);
        watch.advance(range.len() as u64)?;
        pq.extend(backend.encode(&loaded, &shared.codec, &shared.codebook, range)?);
    }
    write_file(&shared.path("codes", shard), |file| file.write_all(&pq))?;
    journal.add(&Record::Shard(done))?;
    for kind in ["members", "raw"] {
        let _ = fs::remove_file(shared.path(kind, shard));
    }
    Ok(done)
}

/// An edge on its way: to the row `target` of shard `home`, which will point at `neighbor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Travelling {
    pub(super) home: u32,
    pub(super) target: u32,
    pub(super) distance: u32,
    pub(super) neighbor: u32,
}

/// Bytes of one on disk, without its home.
pub(super) const TRAVELLING_BYTES: usize = 12;

/// The nearest edges of every ghost, at most `most`, but for those to vectors of its own shard, which judged them itself.
fn ghost_edges(
    graph: &Graph,
    codes: &BuildCodes,
    own: u32,
    most: usize,
    home_of: impl Fn(NodeId) -> u32,
    row_of: impl Fn(NodeId) -> u32,
) -> Vec<Travelling> {
    let mut edges = Vec::new();
    for node in (0..graph.n() as u32).map(NodeId).filter(|&node| home_of(node) != own) {
        let (home, target) = (home_of(node), row_of(node));
        let news = graph.neighbors(node).iter().filter(|&&neighbor| home_of(neighbor) != home);
        edges.extend(news.take(most).map(|&neighbor| Travelling {
            home,
            target,
            distance: distance(codes, node.0, neighbor.0),
            neighbor: row_of(neighbor),
        }));
    }
    edges.sort_unstable();
    edges
}

/// Writes edges by home: where each home's begin, [shards + 1] u64, then (target, distance, neighbor).
fn write_inbox(shared: &Shared<'_>, shard: usize, edges: Vec<Travelling>) -> Result<(), BuildError> {
    write_file(&shared.path("inbox", shard), |file| {
        for home in 0..=shared.shards as u32 {
            file.write_all(&(edges.partition_point(|edge| edge.home < home) as u64).to_le_bytes())?;
        }
        for edge in &edges {
            for word in [edge.target, edge.distance, edge.neighbor] {
                file.write_all(&word.to_le_bytes())?;
            }
        }
        Ok(())
    })
}

/// Writes a whole file and syncs it.
fn write_file(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>) -> Result<(), BuildError> {
    let file = File::create(path).map_err(io(path))?;
    let mut writer = BufWriter::with_capacity(1 << 20, &file);
    fill(&mut writer).and_then(|()| writer.flush()).map_err(io(path))?;
    drop(writer);
    file.sync_data().map_err(io(path))
}
