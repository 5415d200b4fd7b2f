//! The second pass: one shard's graph, in memory, and what it leaves on disk: its nodes in their final order, their codes, and the edges of its
//! ghosts, which travel home.

use super::{
    Shared,
    disk::Target,
    journal::{Left, Routed, ShardDone},
    route::distance,
    segments::{SegmentReader, SegmentWriter},
};
use crate::{
    BuildError, Report,
    backend::{Backend, BuildCodes},
    fixup::{self, Fixed},
    graph_build::{BuiltGraph, build_graph},
    shuffle,
};
use rayon::prelude::*;
use roxanne_core::{graph::Graph, huge, id::NodeId, random::CounterRng};
use std::{
    fs::{self, File, TryLockError},
    path::PathBuf,
};

/// Rows that are encoded at once, and nodes that are made at once.
const ENCODE_ROWS: usize = 1 << 17;
const NODE_ROWS: usize = 1 << 14;

/// The kinds of files that a shard leaves.
pub(super) const LEFT: [&str; 4] = ["nodes", "order", "codes", "inbox"];
pub(super) const NODES: usize = 0;
pub(super) const ORDER: usize = 1;
pub(super) const CODES: usize = 2;
pub(super) const INBOX: usize = 3;

/// A little-endian u32.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// The members of a shard, in the order of the input.
struct Members {
    rows: Vec<u32>,
    /// The shard where each is core.
    homes: Vec<u32>,
    codes: BuildCodes,
}

impl Members {
    fn read(shared: &Shared<'_>, routed: &Routed, shard: usize) -> Result<Members, BuildError> {
        let (count, width, stride) = (routed.members[shard] as usize, shared.member_bytes(), shared.codec.stride());
        let (mut rows, mut homes) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut bytes: Vec<u8> = huge::zeroed(count * stride);
        let path = shared.path("members", shard);
        let mut file = SegmentReader::open(&shared.disk, &path, shared.identity("members", shard), 0, routed.member_ends[shard])?;
        while let Some(members) = file.next()? {
            for member in members.chunks_exact(width) {
                let (numbers, code) = member.split_at(8);
                // More than was routed is no member: the count below says so.
                if let Some(place) = bytes.get_mut(rows.len() * stride..(rows.len() + 1) * stride) {
                    place.copy_from_slice(code);
                }
                rows.push(number(&numbers[..4]));
                homes.push(number(&numbers[4..]));
            }
        }
        if rows.len() != count {
            return Err(BuildError::ShardDamaged { path, detail: format!("{} members where {count} were routed", rows.len()) });
        }
        Ok(Members { rows, homes, codes: BuildCodes { metric: shared.codec.build_metric(), stride, bytes } })
    }

    /// The vectors of core members, in their order.
    fn vectors(shared: &Shared<'_>, routed: &Routed, shard: usize) -> Result<Vec<u8>, BuildError> {
        let mut all = Vec::with_capacity(routed.cores[shard] as usize * shared.layout.row_bytes);
        if shared.keeps_vectors() {
            let path = shared.path("vectors", shard);
            let mut file = SegmentReader::open(&shared.disk, &path, shared.identity("vectors", shard), 0, routed.vector_ends[shard])?;
            while let Some(vectors) = file.next()? {
                all.extend_from_slice(vectors);
            }
        }
        Ok(all)
    }
}

/// Builds a shard and notes that it is done. Nobody else can meanwhile.
pub(super) fn build<B: Backend>(
    shared: &Shared<'_>,
    backend: &B,
    routed: &Routed,
    shard: usize,
    report: &mut Report,
) -> Result<ShardDone, BuildError> {
    let members_path = shared.path("members", shard);
    let lock = match File::open(&members_path) {
        Ok(file) => Some(file),
        // Nothing was ever routed to it.
        Err(_) if routed.members[shard] == 0 => None,
        Err(error) => return Err(super::io(&members_path)(error)),
    };
    match lock.as_ref().map_or(Ok(()), File::try_lock) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(BuildError::Locked { path: members_path }),
        Err(TryLockError::Error(error)) => return Err(super::io(&members_path)(error)),
    }
    let work = ShardWork { shared, routed, shard };
    let done = if routed.cores[shard] == 0 { work.nothing()? } else { work.build(backend, report)? };
    done.write(shared.directory, shared.fingerprint, &shared.own_name)?;
    for kind in ["members", "vectors"] {
        let _ = fs::remove_file(shared.path(kind, shard));
    }
    Ok(done)
}

struct ShardWork<'a> {
    shared: &'a Shared<'a>,
    routed: &'a Routed,
    shard: usize,
}

/// A shard's own vectors, numbered from 0, and its graph between them. A *node* has a number in the graph of all members besides.
struct Core {
    nodes: Vec<NodeId>,
    codes: BuildCodes,
    graph: Graph,
    /// Neighbors each has in `graph` before any is added.
    before: Vec<u16>,
}

impl ShardWork<'_> {
    /// A shard that no vector is core in: its files are empty.
    fn nothing(&self) -> Result<ShardDone, BuildError> {
        let mut files = [Left::default(); 4];
        for (kind, left) in LEFT.into_iter().zip(&mut files) {
            *left = self.leave(kind, 1, |_| Ok(()))?;
        }
        let (inbox, inbox_ends) = self.write_inbox(&[])?;
        files[INBOX] = inbox;
        let (ghosts, entry) = (self.routed.members[self.shard], u32::MAX);
        Ok(ShardDone { shard: self.shard, core: 0, ghosts, entry, host: u32::MAX, fixed: 0, files, inbox_ends })
    }

    fn build<B: Backend>(&self, backend: &B, report: &mut Report) -> Result<ShardDone, BuildError> {
        let (shared, watch) = (self.shared, self.shared.job.watch);
        watch.phase("members", self.routed.members[self.shard], "rows");
        let Members { rows, homes, codes } = Members::read(shared, self.routed, self.shard)?;
        let own = self.shard as u32;
        let mut params = shared.builder.params.graph(shared.job.plan.dim)?;
        params.seed = CounterRng::new(params.seed).part(0x54A2).at(self.shard as u64);
        let BuiltGraph { codes, order, graph, work, .. } = build_graph(codes, &params, backend, watch)?;
        report.work.add(&work);
        let row_of = |node: NodeId| rows[order[node.index()].index()];
        let home_of = |node: NodeId| homes[order[node.index()].index()];

        watch.phase("ghosts", graph.n() as u64, "rows");
        let mut files = [Left::default(); 4];
        let (inbox, inbox_ends) = self.write_inbox(&ghost_edges(&graph, &codes, own, shared.builder.params.inbox, home_of, row_of))?;
        files[INBOX] = inbox;
        let core = Core::of(&graph, &codes, |node| home_of(node) == own);
        drop(codes);
        let Core { nodes, codes, graph: mut inside, before } = core;
        let max_degree = graph.max_degree();
        // A row has room when its neighbors elsewhere leave some.
        let room = |inside: &Graph, at: NodeId| {
            let outside = graph.neighbors(nodes[at.index()]).len() - usize::from(before[at.index()]);
            inside.neighbors(at).len() + outside < max_degree
        };
        let entry = fixup::entry_point(&codes, params.seed);
        let no_candidates = |nodes: &[u32]| Ok(vec![Vec::new(); nodes.len()]);
        let Fixed { edges, reached } = fixup::link_unreachable(&codes, no_candidates, entry, &mut inside, room)?;
        let (fixed, n) = (work.fixed_edges + edges, nodes.len() as u64);
        if reached != n {
            return Err(BuildError::Unreachable { reached, n, max_degree });
        }

        watch.phase("order", n, "rows");
        let mut final_order = shuffle::page_order(&inside, shared.layout.per_page, watch)?;
        // Pages on disk begin where ids divide: the first of the shard may belong to a page that the shard before begun.
        let per_page = shared.layout.per_page as u64;
        let first_id: u64 = self.routed.cores[..self.shard].iter().sum();
        final_order.rotate_right(((first_id.next_multiple_of(per_page) - first_id) as usize).min(nodes.len()));
        let row_at = |at: NodeId| row_of(nodes[at.index()]);
        let host = final_order.iter().find(|&&at| room(&inside, at)).map_or(u32::MAX, |&at| row_at(at));

        watch.phase("codes", n, "rows");
        let width = shared.codebook.subspaces();
        let mut pq = Vec::with_capacity(nodes.len() * width);
        let loaded = backend.load(&codes)?;
        for first in (0..nodes.len()).step_by(ENCODE_ROWS) {
            let range = first..nodes.len().min(first + ENCODE_ROWS);
            watch.advance(range.len() as u64)?;
            pq.extend(backend.encode(&loaded, &shared.codec, &shared.codebook, range)?);
        }
        drop(loaded);
        files[CODES] =
            self.leave("codes", width, |out| final_order.iter().try_for_each(|at| out.push(&pq[at.index() * width..][..width])))?;
        drop(pq);
        files[ORDER] = self.leave("order", 4, |out| final_order.iter().try_for_each(|&at| out.push(&row_at(at).to_le_bytes())))?;

        watch.phase("nodes", n, "rows");
        let vectors = Members::vectors(shared, self.routed, self.shard)?;
        // Vectors lie in the order in which core members came.
        let mut vector_of = vec![0; if shared.keeps_vectors() { rows.len() } else { 0 }];
        vector_of.iter_mut().zip(&homes).filter(|(_, home)| **home == own).zip(0u32..).for_each(|((place, _), at)| *place = at);
        if shared.keeps_vectors() && vectors.len() != nodes.len() * shared.layout.row_bytes {
            let detail = format!("{} bytes of vectors where {} are its own", vectors.len(), nodes.len());
            return Err(BuildError::ShardDamaged { path: shared.path("vectors", self.shard), detail });
        }
        let row_bytes = shared.layout.row_bytes;
        files[NODES] = self.leave("nodes", shared.node_bytes(), |out| {
            let mut some = vec![0; NODE_ROWS * shared.node_bytes()];
            for order_part in final_order.chunks(NODE_ROWS) {
                let some = &mut some[..order_part.len() * shared.node_bytes()];
                some.par_chunks_exact_mut(shared.node_bytes()).zip(order_part).for_each(|(bytes, &at)| {
                    let node = nodes[at.index()];
                    // As it was pruned, then what the fix-up added.
                    let added = inside.neighbors(at)[usize::from(before[at.index()])..].iter().map(|n| nodes[n.index()]);
                    let (head, rest) = bytes.split_at_mut(8);
                    let (neighbors, vector) = rest.split_at_mut(4 * max_degree);
                    neighbors.fill(0);
                    let mut degree = 0u32;
                    let all = graph.neighbors(node).iter().copied().chain(added);
                    for (place, neighbor) in neighbors.chunks_exact_mut(4).zip(all) {
                        place.copy_from_slice(&row_of(neighbor).to_le_bytes());
                        degree += 1;
                    }
                    head[..4].copy_from_slice(&row_of(node).to_le_bytes());
                    head[4..].copy_from_slice(&degree.to_le_bytes());
                    vector.copy_from_slice(if shared.keeps_vectors() {
                        &vectors[vector_of[order[node.index()].index()] as usize * row_bytes..][..row_bytes]
                    } else {
                        &codes.row(at.0)[..row_bytes]
                    });
                });
                out.push(some)?;
                watch.advance(order_part.len() as u64)?;
            }
            Ok(())
        })?;
        let ghosts = self.routed.members[self.shard] - n;
        Ok(ShardDone { shard: self.shard, core: n, ghosts, entry: row_at(entry), host, fixed, files, inbox_ends })
    }

    /// Writes a file that the shard leaves; its name tells what is in it.
    fn leave(
        &self,
        kind: &'static str,
        width: usize,
        fill: impl FnOnce(&mut SegmentWriter<'_>) -> Result<(), BuildError>,
    ) -> Result<Left, BuildError> {
        let (shared, shard) = (self.shared, self.shard);
        let temporary: PathBuf = shared.directory.join(format!("{kind}.{shard}.{}", shared.own_name));
        let mut writer = SegmentWriter::new(&shared.disk, &Target::open(&temporary)?, shared.identity(kind, shard), width, 0);
        fill(&mut writer)?;
        let (bytes, hash) = writer.finish()?;
        let left = Left { bytes, hash };
        let path = shared.left(kind, shard, left);
        fs::rename(&temporary, &path).map_err(super::io(&path))?;
        Ok(left)
    }

    /// Writes edges, which are sorted, by home; gives where those of each home end.
    fn write_inbox(&self, edges: &[Travelling]) -> Result<(Left, Vec<u64>), BuildError> {
        let mut ends = Vec::new();
        let left = self.leave("inbox", TRAVELLING_BYTES, |out| {
            let mut rest = edges;
            for home in 0..self.shared.shards as u32 {
                let (its, others) = rest.split_at(rest.partition_point(|edge| edge.home == home));
                for edge in its {
                    out.push(bytemuck::bytes_of(&[edge.target.to_le(), edge.distance.to_le(), edge.neighbor.to_le()]))?;
                }
                out.flush()?;
                ends.push(out.offset());
                rest = others;
            }
            Ok(())
        })?;
        Ok((left, ends))
    }
}

impl Core {
    /// The nodes that `is_own`, with the edges between them.
    fn of(graph: &Graph, codes: &BuildCodes, is_own: impl Fn(NodeId) -> bool) -> Core {
        let nodes: Vec<NodeId> = (0..graph.n() as u32).map(NodeId).filter(|&node| is_own(node)).collect();
        let mut core_of = vec![u32::MAX; graph.n()];
        nodes.iter().zip(0..).for_each(|(node, core)| core_of[node.index()] = core);
        let mut inside = Graph::new(nodes.len(), graph.max_degree());
        inside.chunks_mut(NODE_ROWS).into_par_iter().zip(nodes.par_chunks(NODE_ROWS)).for_each(|((degrees, neighbors), nodes)| {
            for ((degree, row), &node) in degrees.iter_mut().zip(neighbors.chunks_exact_mut(graph.max_degree())).zip(nodes) {
                let own = graph.neighbors(node).iter().map(|n| core_of[n.index()]).filter(|&core| core != u32::MAX);
                for (place, core) in row.iter_mut().zip(own) {
                    *place = NodeId(core);
                    *degree += 1;
                }
            }
        });
        let mut bytes: Vec<u8> = huge::zeroed(nodes.len() * codes.stride);
        bytes.par_chunks_exact_mut(codes.stride).zip(&nodes).for_each(|(row, node)| row.copy_from_slice(codes.row(node.0)));
        let before = (0..nodes.len() as u32).map(|core| inside.neighbors(NodeId(core)).len() as u16).collect();
        Core { nodes, codes: BuildCodes { bytes, ..*codes }, graph: inside, before }
    }
}

/// An edge on its way: to the row `target` of shard `home`, which will point at `neighbor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Travelling {
    home: u32,
    target: u32,
    distance: u32,
    neighbor: u32,
}

/// Bytes of one on disk, without its home.
pub(super) const TRAVELLING_BYTES: usize = 12;

/// The nearest edges of every ghost, at most `most`, but for those to vectors of its own shard, which judged them itself; sorted.
fn ghost_edges(
    graph: &Graph,
    codes: &BuildCodes,
    own: u32,
    most: usize,
    home_of: impl Fn(NodeId) -> u32 + Sync,
    row_of: impl Fn(NodeId) -> u32 + Sync,
) -> Vec<Travelling> {
    let ghosts = (0..graph.n() as u32).into_par_iter().map(NodeId).filter(|&node| home_of(node) != own);
    let edges_of = |node: NodeId| {
        let (home, target, home_of, row_of) = (home_of(node), row_of(node), &home_of, &row_of);
        let news = graph.neighbors(node).iter().filter(move |&&neighbor| home_of(neighbor) != home);
        news.take(most).map(move |&neighbor| Travelling {
            home,
            target,
            distance: distance(codes, node.0, neighbor.0),
            neighbor: row_of(neighbor),
        })
    };
    let mut edges: Vec<Travelling> = ghosts.flat_map_iter(edges_of).collect();
    edges.par_sort_unstable();
    edges
}
