//! The last pass: nodes stream by in their final order, the inbox of each is appended, rows become ids, pages are sealed and written.

use super::{
    Shared, io,
    journal::{Journal, Record, ShardDone},
    shard::{TRAVELLING_BYTES, number},
};
use crate::BuildError;
use rayon::prelude::*;
use roxanne_core::{
    format::{
        self, FormatError,
        manifest::FileEntry,
        page::{self, PageHeader},
        superblock::{FIRST_PAGE_OFFSET, MAGIC, Superblock},
    },
    id::NodeId,
};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
};

/// Pages that are made in parallel and written in one call, and calls between two records of the journal.
const BATCH_PAGES: u64 = 2048;
const UNIT_BATCHES: u64 = 64;

/// The id of every row.
pub(super) fn ids_of_rows(shared: &Shared<'_>, first_id: &[u64]) -> Result<Vec<NodeId>, BuildError> {
    let mut ids = vec![NodeId(u32::MAX); shared.job.plan.n as usize];
    for (shard, &first) in first_id[..shared.shards].iter().enumerate() {
        let path = shared.path("order", shard);
        let rows = fs::read(&path).map_err(io(&path))?;
        for (bytes, id) in rows.chunks_exact(4).zip(first..) {
            ids[number(bytes) as usize] = NodeId(id as u32);
        }
    }
    Ok(ids)
}

/// Edges that came home to a shard, (target row, distance, neighbor row) in that order.
fn inbox(shared: &Shared<'_>, home: usize) -> Result<Vec<(u32, u32, u32)>, BuildError> {
    let mut edges = Vec::new();
    for shard in 0..shared.shards {
        let path = shared.path("inbox", shard);
        let file = File::open(&path).map_err(io(&path))?;
        let mut ends = [0; 16];
        file.read_exact_at(&mut ends, home as u64 * 8).map_err(io(&path))?;
        let [start, end] = [&ends[..8], &ends[8..]].map(|word| u64::from(number(&word[4..])) << 32 | u64::from(number(&word[..4])));
        let mut bytes = vec![0; (end - start) as usize * TRAVELLING_BYTES];
        file.read_exact_at(&mut bytes, (shared.shards as u64 + 1) * 8 + start * TRAVELLING_BYTES as u64).map_err(io(&path))?;
        edges.extend(bytes.chunks_exact(TRAVELLING_BYTES).map(|e| (number(&e[..4]), number(&e[4..8]), number(&e[8..]))));
    }
    edges.par_sort_unstable();
    edges.dedup();
    Ok(edges)
}

/// What pages of one shard need.
struct Open {
    nodes: File,
    inbox: Vec<(u32, u32, u32)>,
    /// Edge to the next shard that has vectors: from the row, to the row.
    bridge: Option<(u32, u32)>,
}

/// Writes graph.rx, from the last page that is known to be there on.
pub(super) fn write(
    shared: &Shared<'_>,
    generation: u64,
    done: &[ShardDone],
    first_id: &[u64],
    ids: &[NodeId],
    journal: &mut Journal,
    records: &[Record],
) -> Result<FileEntry, BuildError> {
    let (watch, layout, n) = (shared.job.watch, &shared.layout, shared.job.plan.n);
    let (page_count, page_bytes) = (layout.page_count(n), layout.page_bytes as u64);
    let file_id = format::file_id(generation, format::GRAPH_FILE);
    let path = shared.directory.join(format::GRAPH_FILE);
    let full: Vec<&ShardDone> = done.iter().filter(|d| d.core > 0).collect();
    let entry = full.first().map_or(0, |d| ids[d.entry as usize].0);
    let superblock = Superblock {
        checksum: 0,
        magic: MAGIC,
        version: u64::from(format::VERSION),
        epoch: 1,
        file_id,
        n,
        page_count,
        page_bytes,
        record_bytes: layout.record_bytes as u64,
        id_bits: layout.id_bits as u64,
        max_degree: layout.max_degree as u64,
        entry: u64::from(entry),
    };
    watch.phase("pages", page_count, "pages");
    let written = records.iter().rev().find_map(|r| if let Record::Pages { pages } = r { Some(*pages) } else { None });
    let mut next = written.unwrap_or(0);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(io(&path))?;
    file.write_all_at(&superblock.to_head(), 0).map_err(io(&path))?;
    watch.advance(next)?;
    let keys = &*shared.builder.keys_of(shared.dataset());
    let mut open: BTreeMap<usize, Open> = BTreeMap::new();
    let (mut nodes, mut batch) = (Vec::new(), vec![0u8; (BATCH_PAGES * page_bytes) as usize]);
    let mut unsaved = 0;
    while next < page_count {
        let count = BATCH_PAGES.min(page_count - next);
        let (first, end) = (layout.first_node(next), layout.first_node(next + count).min(n));
        read_nodes(shared, first..end, first_id, &full, &mut open, &mut nodes)?;
        let pages = &mut batch[..(count * page_bytes) as usize];
        pages.par_chunks_mut(layout.page_bytes).enumerate().for_each_init(Vec::new, |neighbors, (at, page)| {
            page.fill(0);
            let number_of_page = next + at as u64;
            let start = layout.first_node(number_of_page);
            let live = (end - start).min(layout.per_page as u64) as usize;
            for slot in 0..live {
                let id = start + slot as u64;
                let shard = first_id.partition_point(|&f| f <= id) - 1;
                let node = &nodes[(id - first) as usize * shared.node_bytes()..][..shared.node_bytes()];
                let row = number(&node[..4]);
                neighbors_of(node, row, layout.max_degree, &open[&shard], neighbors);
                let vector = &node[8 + 4 * layout.max_degree..];
                let neighbors: Vec<NodeId> = neighbors.iter().map(|&row| ids[row as usize]).collect();
                layout.write(page, slot, keys.record_key(u64::from(row)), vector, &neighbors);
            }
            page::seal(page, PageHeader { file_id, page: number_of_page, live: live as u16, ..PageHeader::default() });
        });
        file.write_all_at(pages, FIRST_PAGE_OFFSET + next * page_bytes).map_err(io(&path))?;
        next += count;
        unsaved += 1;
        if unsaved == UNIT_BATCHES || next == page_count {
            file.sync_data().map_err(io(&path))?;
            journal.add(&Record::Pages { pages: next })?;
            unsaved = 0;
        }
        watch.advance(count)?;
    }
    let bytes = FIRST_PAGE_OFFSET + page_count * page_bytes;
    file.set_len(bytes).and_then(|()| file.sync_all()).map_err(io(&path))?;
    Ok(FileEntry { name: format::GRAPH_FILE.to_string(), bytes, payload_bytes: 0 })
}

/// The rows that a node points at: those of its own shard's graph, then what came home, nearest first, as far as there is room.
fn neighbors_of(node: &[u8], row: u32, max_degree: usize, open: &Open, out: &mut Vec<u32>) {
    out.clear();
    let degree = number(&node[4..8]) as usize;
    out.extend(node[8..8 + 4 * degree].chunks_exact(4).map(number));
    if let Some((_, to)) = open.bridge.filter(|(from, to)| *from == row && !out.contains(to)) {
        out.push(to);
    }
    let start = open.inbox.partition_point(|edge| edge.0 < row);
    for &(_, _, neighbor) in open.inbox[start..].iter().take_while(|edge| edge.0 == row) {
        if out.len() == max_degree {
            break;
        }
        if neighbor != row && !out.contains(&neighbor) {
            out.push(neighbor);
        }
    }
}

/// Reads the nodes of a run of ids, and opens the shards that they are of; those before are closed.
fn read_nodes(
    shared: &Shared<'_>,
    ids: std::ops::Range<u64>,
    first_id: &[u64],
    full: &[&ShardDone],
    open: &mut BTreeMap<usize, Open>,
    nodes: &mut Vec<u8>,
) -> Result<(), BuildError> {
    let width = shared.node_bytes() as u64;
    nodes.resize(((ids.end - ids.start) * width) as usize, 0);
    open.retain(|&shard, _| first_id[shard + 1] > ids.start);
    for shard in (0..shared.shards).filter(|&s| first_id[s] < ids.end && first_id[s + 1] > ids.start) {
        let path = shared.path("nodes", shard);
        if let std::collections::btree_map::Entry::Vacant(place) = open.entry(shard) {
            let at = full.iter().position(|d| d.shard == shard);
            let bridge = at.and_then(|at| full.get(at + 1).map(|next| (full[at].host, next.entry)));
            if bridge.is_some_and(|(host, _)| host == u32::MAX) {
                return Err(BuildError::Unreachable {
                    reached: first_id[shard + 1],
                    n: shared.job.plan.n,
                    max_degree: shared.layout.max_degree,
                });
            }
            place.insert(Open { nodes: File::open(&path).map_err(io(&path))?, inbox: inbox(shared, shard)?, bridge });
        }
        let (from, to) = (ids.start.max(first_id[shard]), ids.end.min(first_id[shard + 1]));
        let part = &mut nodes[((from - ids.start) * width) as usize..((to - ids.start) * width) as usize];
        open[&shard]
            .nodes
            .read_exact_at(part, (from - first_id[shard]) * width)
            .map_err(|error| BuildError::Format(FormatError::Io { path: path.clone(), error }))?;
    }
    Ok(())
}
