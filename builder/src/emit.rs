//! Writing a generation: every file in its final order, synced; the manifest last.

use crate::{BuildError, backend::BuildCodes, input::Content, progress::Watch};
use rayon::prelude::*;
use roxanne_core::{
    dataset::Dataset,
    format::{
        self, FormatError,
        blob::BlobWriter,
        keys::KeyList,
        manifest::FileEntry,
        nav::Nav,
        page::{self, PageHeader},
        record::RecordLayout,
        superblock::{BUILT, FIRST_PAGE_OFFSET, MAGIC, Superblock},
    },
    graph::Graph,
    id::NodeId,
};
use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use xxhash_rust::xxh3::xxh3_64;

/// Pages that are made in parallel and then written in one call.
const BATCH_PAGES: usize = 2048;

/// What graph.rx is made of. A *node* is numbered as the graph is, a *row* as the input is, an *id* as the index will be:
/// `order[id] = node`, `new_of[node] = id`, `row_of[node] = row`.
pub struct GraphFile<'a> {
    /// Where the vectors are read from.
    pub dataset: &'a Dataset,
    /// The codes by node.
    pub codes: &'a BuildCodes,
    /// Whether their first bytes are what records hold.
    pub records_are_codes: bool,
    /// Neighbors by node.
    pub graph: &'a Graph,
    /// Nodes in the order of their ids.
    pub order: &'a [NodeId],
    /// Ids by node.
    pub new_of: &'a [NodeId],
    /// Rows of the input by node.
    pub row_of: &'a [NodeId],
    /// The node that reaches all others.
    pub entry: NodeId,
    /// The user's keys by row.
    pub keys: &'a KeyList,
    /// The shape of a page.
    pub layout: RecordLayout,
    /// What the rows were when codes were made of them.
    pub content: Content,
}

impl GraphFile<'_> {
    /// Writes graph.rx into `directory`; without one, makes every page and keeps none.
    ///
    /// # Errors
    /// What the disk or the dataset says; a stop.
    pub fn write(&self, directory: Option<&Path>, generation: u64, watch: &Watch<'_>) -> Result<FileEntry, BuildError> {
        let path = directory.unwrap_or(Path::new("")).join(format::GRAPH_FILE);
        let io = |error| FormatError::Io { path: path.clone(), error };
        let (n, layout) = (self.order.len() as u64, &self.layout);
        let file_id = format::file_id(generation, format::GRAPH_FILE);
        let page_count = layout.page_count(n);
        let superblock = Superblock {
            checksum: 0,
            magic: MAGIC,
            version: u64::from(format::VERSION),
            epoch: BUILT,
            file_id,
            n,
            page_count,
            page_bytes: layout.page_bytes as u64,
            record_bytes: layout.record_bytes as u64,
            id_bits: layout.id_bits as u64,
            max_degree: layout.max_degree as u64,
            entry: u64::from(self.new_of[self.entry.index()].0),
        };
        watch.phase("pages", page_count, "pages");
        let mut file = directory.map(|_| File::create_new(&path)).transpose().map_err(io)?;
        if let Some(file) = &mut file {
            file.write_all(&superblock.to_head()).map_err(io)?;
        }
        let mut batch = vec![0u8; BATCH_PAGES * layout.page_bytes];
        let mut first = 0;
        let row_sum = AtomicU64::new(0);
        while first < page_count {
            let count = (page_count - first).min(BATCH_PAGES as u64) as usize;
            let pages = &mut batch[..count * layout.page_bytes];
            pages.par_chunks_mut(layout.page_bytes).enumerate().try_for_each_init(
                || (Vec::new(), Vec::new()),
                |(row, neighbors), (at, page)| {
                    let sum = self.fill(first + at as u64, file_id, page, row, neighbors)?;
                    row_sum.fetch_add(sum, Relaxed);
                    Ok::<(), BuildError>(())
                },
            )?;
            if let Some(file) = &mut file {
                file.write_all(pages).map_err(io)?;
            }
            first += count as u64;
            watch.advance(count as u64)?;
        }
        if !self.records_are_codes && row_sum.into_inner() != self.content.row_sum {
            return Err(BuildError::InputChanged { source_name: self.dataset.source().to_string() });
        }
        if let Some(file) = &file {
            file.sync_all().map_err(io)?;
        }
        Ok(FileEntry {
            name: format::GRAPH_FILE.to_string(),
            bytes: FIRST_PAGE_OFFSET + page_count * layout.page_bytes as u64,
            payload_bytes: 0,
        })
    }

    /// Makes a page; gives the sum of the hashes of the rows that were read for it.
    fn fill(&self, number: u64, file_id: u64, page: &mut [u8], row: &mut Vec<u8>, neighbors: &mut Vec<NodeId>) -> Result<u64, BuildError> {
        let mut row_sum = 0u64;
        page.fill(0);
        let first = self.layout.first_node(number) as usize;
        let nodes = &self.order[first..(first + self.layout.per_page).min(self.order.len())];
        for (slot, &node) in nodes.iter().enumerate() {
            let input_row = u64::from(self.row_of[node.index()].0);
            let vector = if self.records_are_codes {
                &self.codes.row(node.0)[..self.layout.row_bytes]
            } else {
                self.dataset.read_rows(input_row, 1, row)?;
                row_sum = row_sum.wrapping_add(xxh3_64(row));
                row.as_slice()
            };
            neighbors.clear();
            neighbors.extend(self.graph.neighbors(node).iter().map(|&neighbor| self.new_of[neighbor.index()]));
            self.layout.write(page, slot, self.keys.record_key(input_row), vector, neighbors);
        }
        page::seal(page, PageHeader { file_id, page: number, live: nodes.len() as u16, ..PageHeader::default() });
        Ok(row_sum)
    }
}

/// A blob file of a generation that is being written.
pub(crate) struct Blob {
    name: String,
    writer: BlobWriter,
}

impl Blob {
    /// Begins it in `directory`; without one, every page is made and none kept.
    pub(crate) fn begin(directory: Option<&Path>, generation: u64, name: &str) -> Result<Blob, BuildError> {
        let file_id = format::file_id(generation, name);
        let writer = match directory {
            Some(directory) => BlobWriter::create(&directory.join(name), file_id)?,
            None => BlobWriter::null(file_id),
        };
        Ok(Blob { name: name.to_string(), writer })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        Ok(self.writer.write(bytes)?)
    }

    pub(crate) fn finish(self) -> Result<FileEntry, BuildError> {
        let payload_bytes = self.writer.finish()?;
        Ok(FileEntry { name: self.name, bytes: format::blob::file_bytes(payload_bytes), payload_bytes })
    }
}

/// Writes one blob file of `directory`; without one, makes every page and keeps none.
///
/// # Errors
/// What the disk says.
pub fn write_blob(
    directory: Option<&Path>,
    generation: u64,
    name: &str,
    fill: impl FnOnce(&mut BlobWriter) -> Result<(), FormatError>,
) -> Result<FileEntry, BuildError> {
    let mut blob = Blob::begin(directory, generation, name)?;
    fill(&mut blob.writer)?;
    blob.finish()
}

/// The navigation graph over new ids.
pub fn renumber_nav(mut nav: Nav, new_of: &[NodeId]) -> Nav {
    nav.ids.iter_mut().for_each(|id| *id = new_of[id.index()]);
    nav
}
