//! The last pass: nodes stream by in their final order, the inbox of each is appended, rows become ids, pages are sealed and written.

use super::{
    Shared,
    disk::Target,
    journal::{Journal, Record, ShardDone},
    segments::{SegmentReader, place_of},
    shard::{INBOX, LEFT, NODES, ORDER, TRAVELLING_BYTES, number},
};
use crate::BuildError;
use rayon::prelude::*;
use roxanne_core::{
    format::{
        self,
        keys::KeyList,
        manifest::FileEntry,
        page::{self, PageHeader},
        superblock::{BUILT, FIRST_PAGE_OFFSET, MAGIC, Superblock},
    },
    id::NodeId,
};
use std::{collections::BTreeMap, fs, ops::Range, sync::Arc};

/// Bytes of pages that are made in parallel and written in one call, and such calls between two records of the journal.
const BATCH_BYTES: usize = 4 << 20;
const BATCHES_A_RECORD: u64 = 128;

/// What is left to be joined: all shards, or one of them in a rehearsal.
pub(super) struct Shards<'a> {
    pub(super) shared: &'a Shared<'a>,
    /// By number; a rehearsal knows one alone.
    pub(super) done: &'a BTreeMap<usize, ShardDone>,
    /// The first id of each shard, and the end: [shards + 1].
    pub(super) first_id: &'a [u64],
}

impl Shards<'_> {
    /// The id of every row.
    pub(super) fn ids(&self) -> Result<Vec<NodeId>, BuildError> {
        let n = self.shared.job.plan.n;
        // A row that a rehearsal does not build goes anywhere.
        let mut ids: Vec<NodeId> = (0..n as u32).map(NodeId).collect();
        for done in self.done.values() {
            let mut next = self.first_id[done.shard];
            let mut file = self.open(done, ORDER, 0, done.files[ORDER].bytes)?;
            while let Some(rows) = file.next()? {
                for row in rows.chunks_exact(4).map(number) {
                    // A row that is none is missed by the count below.
                    if let Some(id) = ids.get_mut(row as usize) {
                        *id = NodeId(next as u32);
                        next += 1;
                    }
                }
            }
            if next != self.first_id[done.shard + 1] {
                let path = self.shared.left(LEFT[ORDER], done.shard, done.files[ORDER]);
                return Err(BuildError::ShardDamaged { path, detail: format!("its rows end at id {next}") });
            }
        }
        Ok(ids)
    }

    /// Opens a file that a shard left.
    pub(super) fn open(&self, done: &ShardDone, kind: usize, from: u64, end: u64) -> Result<SegmentReader, BuildError> {
        let (shared, shard) = (self.shared, done.shard);
        SegmentReader::open(&shared.disk, &shared.left(LEFT[kind], shard, done.files[kind]), shared.identity(LEFT[kind], shard), from, end)
    }

    /// Edges that came home to a shard, (target row, distance, neighbor row) in that order.
    fn inbox(&self, home: usize) -> Result<Vec<[u32; 3]>, BuildError> {
        let mut edges = Vec::new();
        for done in self.done.values() {
            let (start, end) = (home.checked_sub(1).map_or(0, |before| done.inbox_ends[before]), done.inbox_ends[home]);
            if start < end {
                let mut file = self.open(done, INBOX, start, end)?;
                while let Some(some) = file.next()? {
                    edges.extend(some.chunks_exact(TRAVELLING_BYTES).map(|e| [number(&e[..4]), number(&e[4..8]), number(&e[8..])]));
                }
            }
        }
        edges.par_sort_unstable();
        edges.dedup();
        Ok(edges)
    }

    /// Sees to it that `joined` has the shards whose vectors have ids in this range, and no others.
    fn join(&self, ids: Range<u64>, joined: &mut BTreeMap<usize, Joined>) -> Result<(), BuildError> {
        joined.retain(|&shard, _| self.first_id[shard + 1] > ids.start);
        for (&shard, done) in self.done {
            let overlaps = done.core > 0 && self.first_id[shard] < ids.end && self.first_id[shard + 1] > ids.start;
            if overlaps && !joined.contains_key(&shard) {
                joined.insert(shard, Joined { inbox: self.inbox(shard)?, bridge: self.bridge(shard)? });
            }
        }
        Ok(())
    }

    /// Where the shards that have vectors are joined: an edge to the entry of the next from a row of this one with room for it.
    fn bridge(&self, shard: usize) -> Result<Option<(u32, u32)>, BuildError> {
        let next = self.done.range(shard + 1..).map(|(_, done)| done).find(|done| done.core > 0);
        match (next, self.done[&shard].host) {
            (None, _) => Ok(None),
            (Some(_), u32::MAX) => Err(BuildError::Unreachable {
                reached: self.first_id[shard + 1],
                n: self.shared.job.plan.n,
                max_degree: self.shared.layout.max_degree,
            }),
            (Some(next), host) => Ok(Some((host, next.entry))),
        }
    }
}

/// What the nodes of one shard get beside their own edges.
struct Joined {
    inbox: Vec<[u32; 3]>,
    bridge: Option<(u32, u32)>,
}

impl Joined {
    /// The rows that a node points at: those of its own shard's graph, then what came home, nearest first, as far as there is room.
    fn neighbors_of(&self, node: &[u8], max_degree: usize, out: &mut Vec<u32>) {
        let (row, degree) = (number(&node[..4]), number(&node[4..8]) as usize);
        out.clear();
        out.extend(node[8..8 + 4 * degree].chunks_exact(4).map(number));
        if let Some((_, to)) = self.bridge.filter(|(from, to)| *from == row && !out.contains(to)) {
            out.push(to);
        }
        let start = self.inbox.partition_point(|edge| edge[0] < row);
        for &[_, _, neighbor] in self.inbox[start..].iter().take_while(|edge| edge[0] == row) {
            if out.len() == max_degree {
                break;
            }
            if neighbor != row && !out.contains(&neighbor) {
                out.push(neighbor);
            }
        }
    }
}

/// Nodes of all shards, one after the other.
struct Nodes<'a> {
    shards: &'a Shards<'a>,
    /// The next node, and the file that it is in.
    next: u64,
    open: Option<(usize, SegmentReader)>,
}

impl Nodes<'_> {
    /// Fills `out` with the nodes that come next.
    fn read(&mut self, mut out: &mut [u8]) -> Result<(), BuildError> {
        let (shards, width) = (self.shards, self.shards.shared.node_bytes());
        while !out.is_empty() {
            let shard = shards.first_id.partition_point(|&first| first <= self.next) - 1;
            let done = &shards.done[&shard];
            let reader = match &mut self.open {
                Some((of, reader)) if *of == shard => reader,
                place => {
                    let (from, within) = place_of(self.next - shards.first_id[shard], width);
                    let mut reader = shards.open(done, NODES, from, done.files[NODES].bytes)?;
                    reader.read(&mut vec![0; within * width])?;
                    &mut place.insert((shard, reader)).1
                }
            };
            let count = ((shards.first_id[shard + 1] - self.next) as usize).min(out.len() / width);
            let (part, rest) = out.split_at_mut(count * width);
            if reader.read(part)? != part.len() {
                let path = shards.shared.left(LEFT[NODES], shard, done.files[NODES]);
                return Err(BuildError::ShardDamaged { path, detail: format!("it ends before node {}", self.next + count as u64) });
            }
            out = rest;
            self.next += count as u64;
        }
        Ok(())
    }
}

/// What pages are made of.
pub(super) struct Pages<'a> {
    pub(super) shards: &'a Shards<'a>,
    pub(super) ids: &'a [NodeId],
    pub(super) keys: &'a KeyList,
    pub(super) file_id: u64,
}

impl Pages<'_> {
    /// Writes the pages of graph.rx in `range`, from the last that is known to be there on; in a rehearsal to nowhere.
    pub(super) fn write(&self, range: Range<u64>, journal: &mut Journal, records: &[Record]) -> Result<FileEntry, BuildError> {
        let (shared, layout) = (self.shards.shared, &self.shards.shared.layout);
        let (watch, n, width) = (shared.job.watch, shared.job.plan.n, shared.node_bytes());
        let page_bytes = layout.page_bytes as u64;
        let path = shared.directory.join(format::GRAPH_FILE);
        let target = if shared.job.rehearsal.is_none() { Some(Target::open(&path)?) } else { None };
        watch.phase("pages", range.end - range.start, "pages");
        let written = records.iter().rev().find_map(|r| if let Record::Pages { pages } = r { Some(*pages) } else { None });
        let mut next = written.unwrap_or(range.start);
        watch.advance(next - range.start)?;
        if let Some(target) = &target {
            self.write_head(target)?;
        }
        let mut nodes = Nodes { shards: self.shards, next: layout.first_node(next), open: None };
        let mut joined: BTreeMap<usize, Joined> = BTreeMap::new();
        let (mut bytes, mut unsaved) = (Vec::new(), 0);
        let batch_pages = (BATCH_BYTES as u64 / page_bytes).max(1);
        while next < range.end {
            let count = batch_pages.min(range.end - next);
            let (first, end) = (layout.first_node(next), layout.first_node(next + count).min(n));
            bytes.resize((end - first) as usize * width, 0);
            nodes.read(&mut bytes)?;
            self.shards.join(first..end, &mut joined)?;
            let mut blocks = shared.disk.buffer((count * page_bytes) as usize);
            let pages = &mut blocks.bytes_mut()[..(count * page_bytes) as usize];
            pages.par_chunks_mut(layout.page_bytes).zip(bytes.par_chunks(layout.per_page * width)).enumerate().for_each_init(
                || (Vec::new(), Vec::new()),
                |(rows, neighbors), (at, (page, nodes))| {
                    let number_of_page = next + at as u64;
                    page.fill(0);
                    for (slot, node) in nodes.chunks_exact(width).enumerate() {
                        let id = layout.first_node(number_of_page) + slot as u64;
                        let shard = self.shards.first_id.partition_point(|&f| f <= id) - 1;
                        joined[&shard].neighbors_of(node, layout.max_degree, rows);
                        neighbors.clear();
                        neighbors.extend(rows.iter().map(|&row| self.ids[row as usize]));
                        let row = u64::from(number(&node[..4]));
                        layout.write(page, slot, self.keys.record_key(row), &node[8 + 4 * layout.max_degree..], neighbors);
                    }
                    let live = (nodes.len() / width) as u16;
                    page::seal(page, PageHeader { file_id: self.file_id, page: number_of_page, live, ..PageHeader::default() });
                },
            );
            if let Some(target) = &target {
                shared.disk.write(target, FIRST_PAGE_OFFSET + next * page_bytes, blocks, (count * page_bytes) as usize)?;
            }
            next += count;
            unsaved += 1;
            if let Some(target) = target.as_ref().filter(|_| unsaved == BATCHES_A_RECORD || next == range.end) {
                shared.disk.settle()?;
                target.sync()?;
                journal.add(&Record::Pages { pages: next })?;
                self.remove_nodes(layout.first_node(next));
                unsaved = 0;
            }
            watch.advance(count)?;
        }
        Ok(FileEntry { name: format::GRAPH_FILE.to_string(), bytes: FIRST_PAGE_OFFSET + range.end * page_bytes, payload_bytes: 0 })
    }

    fn write_head(&self, target: &Arc<Target>) -> Result<(), BuildError> {
        let (shared, layout) = (self.shards.shared, &self.shards.shared.layout);
        let entry = self.shards.done.values().find(|done| done.core > 0).map_or(0, |done| self.ids[done.entry as usize].0);
        let superblock = Superblock {
            checksum: 0,
            magic: MAGIC,
            version: u64::from(format::VERSION),
            epoch: BUILT,
            file_id: self.file_id,
            n: shared.job.plan.n,
            page_count: layout.page_count(shared.job.plan.n),
            page_bytes: layout.page_bytes as u64,
            record_bytes: layout.record_bytes as u64,
            id_bits: layout.id_bits as u64,
            max_degree: layout.max_degree as u64,
            entry: u64::from(entry),
        };
        let head = superblock.to_head();
        let mut blocks = shared.disk.buffer(head.len());
        blocks.bytes_mut()[..head.len()].copy_from_slice(&head);
        shared.disk.write(target, 0, blocks, head.len())
    }

    /// Nodes below `id` are on their pages: the files that hold no others make room for pages to come.
    fn remove_nodes(&self, id: u64) {
        for done in self.shards.done.values().filter(|done| self.shards.first_id[done.shard + 1] <= id) {
            let _ = fs::remove_file(self.shards.shared.left(LEFT[NODES], done.shard, done.files[NODES]));
        }
    }
}
