//! A generation, opened: its shape proven, its codes and navigation graph in RAM, its pages ready to be read.

use crate::{
    OpenError, SearchError,
    io::{AlignedBuf, PageFile, ReaderKind, cache::PageCache, probe_io_uring},
    kept::{Adjacency, Allowance, Kept},
    key_set::Filter,
    live::{Codes, Live, MakeRoom},
    live_pages::Pages,
    params::Way,
    searcher::{MERGE_IN_FLIGHT, searcher_bytes},
    tuned::read_warm,
};
use roxanne_core::{
    Budget,
    build_codes::{BuildCodec, CODEC_BYTES},
    distance::DistanceFn,
    element::ElementType,
    format::{
        self, FormatError,
        blob::{BLOB_PAGE, BlobReader, file_bytes},
        keys::{KEPT_PAGES, Keys},
        manifest::Manifest,
        nav::Nav,
        page,
        record::{Record, RecordError, RecordLayout, Stored},
        superblock::{FIRST_PAGE_OFFSET, Superblock},
    },
    id::{Key, NodeId},
    metric::Metric,
    pq::Codebook,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// What the process takes beside all that is counted: code, stacks, the allocator, tables of files.
const PROCESS_BYTES: u64 = 12 << 20;

/// Times that a page of an index that is changed in place is read again before it is called damaged.
pub(crate) const REREADS: u32 = 100;

/// How to open an index.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Limits; RAM is checked before anything is loaded. What it leaves beside codes, navigation graph and searchers keeps pages: those that are
    /// wanted most, or all of them where there is room, and then searches are steered by exact distances. Without a limit none are kept.
    pub budget: Budget,
    /// How pages are read.
    pub reader: ReaderKind,
    /// Searchers that memory is set aside for; 0 is one a core. More are refused where the budget is spent.
    pub searchers: usize,
    /// Queries in flight of each of those.
    pub in_flight: usize,
    /// Keep every node's neighbors in RAM, so that a search reads one round of pages and no more. For wide vectors, of which a page holds few; a
    /// departure from "only compressed vectors in RAM".
    pub adjacency_in_ram: bool,
    /// Keep all pages also of an index that is changed in place, where there is room for all that may come to be.
    pub resident: bool,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            budget: Budget::default(),
            reader: ReaderKind::Auto,
            searchers: 0,
            in_flight: 1,
            adjacency_in_ram: false,
            resident: true,
        }
    }
}

/// What an index is.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexInfo {
    /// Its directory.
    pub path: PathBuf,
    /// The generation's number.
    pub generation: u64,
    /// Vectors.
    pub n: u64,
    /// Coordinates of a vector.
    pub dim: usize,
    /// Their type.
    pub element: ElementType,
    /// What records hold of them.
    pub stored: Stored,
    /// What near means.
    pub metric: Metric,
    /// Neighbors of a node at most (R).
    pub max_degree: usize,
    /// Bytes of a PQ code.
    pub code_bytes: usize,
    /// Whether codes are of rotated vectors (OPQ).
    pub rotated: bool,
    /// Nodes of the navigation graph.
    pub nav_nodes: u64,
    /// Bytes of a page: one read.
    pub page_bytes: usize,
    /// Bytes of a node on disk.
    pub record_bytes: usize,
    /// Nodes a page.
    pub records_per_page: usize,
    /// Pages.
    pub page_count: u64,
    /// Bytes of all files.
    pub index_bytes: u64,
    /// Bytes in RAM: codes, codebook, navigation graph, and neighbors where they are kept.
    pub resident_bytes: u64,
    /// Bytes of pages that are, or may come to be, kept in RAM.
    pub kept_bytes: u64,
    /// Whether that is all pages.
    pub all_resident: bool,
    /// Whether every node's neighbors are in RAM.
    pub adjacency_in_ram: bool,
    /// Whether keys are strings.
    pub string_keys: bool,
    /// Whether keys are the rows' numbers.
    pub row_keys: bool,
    /// How it was built: (name, value).
    pub params: Vec<(String, String)>,
    /// How pages are read: "io_uring" or "pread".
    pub reader: &'static str,
    /// Whether reads bypass the kernel's page cache.
    pub direct: bool,
}

pub(crate) struct Base {
    pub(crate) info: IndexInfo,
    pub(crate) file_id: u64,
    pub(crate) layout: RecordLayout,
    pub(crate) entry: NodeId,
    pub(crate) codes: Codes,
    /// Where it is changed in place.
    pub(crate) live: Option<Live>,
    pub(crate) codec: BuildCodec,
    pub(crate) codebook: Codebook,
    pub(crate) nav: Nav,
    pub(crate) keys: Keys,
    pub(crate) distance: DistanceFn,
    pub(crate) pages: Arc<PageFile>,
    pub(crate) reader: ReaderKind,
    pub(crate) kept: Kept,
    pub(crate) adjacency: Option<Adjacency>,
    pub(crate) allowance: Allowance,
    /// Its codes are not in memory, and it is not searched.
    drained: AtomicBool,
    /// Bytes of it that lie in a file until another has taken its place.
    pub(crate) given: AtomicU64,
}

impl Base {
    pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Base, OpenError> {
        Base::open_in(path, options, &mut |_| Ok(()))
    }

    /// The same where `make_room` is told before codes come into memory how many bytes of it they will take so far.
    pub(crate) fn open_in(path: &Path, options: &OpenOptions, make_room: &mut MakeRoom<'_>) -> Result<Base, OpenError> {
        let manifest = Manifest::read(path)?;
        let stored = manifest.stored(path)?;
        let graph_path = path.join(format::GRAPH_FILE);
        let (superblock, layout) = shape(path, &manifest)?;
        let blob = |name: &str| open_blob(path, &manifest, name);
        let (n, capacity) = (superblock.n, manifest.capacity().unwrap_or(superblock.n));
        let code_blob = open_codes(path, &manifest, n)?;
        let codebook_blob = blob(format::CODEBOOK_FILE)?;
        let nav_blob = blob(format::NAV_FILE)?;

        let is_live = manifest.capacity().is_some();
        let adjacency_in_ram = options.adjacency_in_ram && !is_live;
        let adjacency_bytes = if adjacency_in_ram { Adjacency::bytes(&layout, n) } else { 0 };
        let room = if is_live { layout.page_count(capacity) } else { superblock.page_count };
        let live_bytes = if is_live { Live::bytes(capacity, room) } else { 0 };
        // The codebook and the navigation graph are read whole before they become what they are in RAM.
        let loaded =
            code_blob.len() + 2 * codebook_blob.len() + nav_blob.len() + adjacency_bytes + live_bytes + (KEPT_PAGES * BLOB_PAGE) as u64;
        let threads = if options.searchers > 0 { options.searchers } else { thread::available_parallelism().map_or(1, usize::from) };
        let code_bytes = usize::try_from(code_blob.len() / n.max(1)).unwrap_or(usize::MAX);
        let searchers = threads as u64 * searcher_bytes(layout.page_bytes, code_bytes, options.in_flight);
        // Those of the merger.
        let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
        let merging = if is_live { cores * searcher_bytes(layout.page_bytes, code_bytes, MERGE_IN_FLIGHT) } else { 0 };
        let needed = PROCESS_BYTES + loaded + searchers + merging;
        let Some(left) = options.budget.ram.checked_sub(needed) else {
            return Err(OpenError::Budget { path: path.to_path_buf(), needed, allowed: options.budget.ram });
        };
        let (codec, codebook) = read_codebook(path, &manifest, &codebook_blob)?;
        let code_bytes = codebook.subspaces();
        if code_blob.len() != n * code_bytes as u64 {
            let detail = format!("{} bytes for {n} codes of {code_bytes} bytes", code_blob.len());
            return Err(code_blob.corrupt(0, detail).into());
        }
        let codes = Codes::load(&code_blob, code_bytes, capacity, make_room)?;
        make_room(u64::MAX)?;
        let nav = Nav::read(&nav_blob, manifest.n)?;
        // Every hit is named by its key: that costs a page of 64 KiB to read and check, unless it is kept. An eighth of what is left goes to those first.
        let keys_blob = blob(format::KEYS_FILE)?;
        let all_keys = file_bytes(keys_blob.len()) / BLOB_PAGE as u64;
        let share = if options.budget.ram == u64::MAX { 0 } else { left / 8 / BLOB_PAGE as u64 };
        let more_keys = all_keys.min(share).saturating_sub(KEPT_PAGES as u64);
        let key_bytes = more_keys * BLOB_PAGE as u64;
        let left = left - key_bytes;
        let keys = Keys::open_keeping(keys_blob, manifest.n, KEPT_PAGES + more_keys as usize)?;
        let distance = DistanceFn::new(manifest.metric, manifest.element, manifest.dim)
            .map_err(|error| OpenError::Metric { path: path.join(format::MANIFEST_FILE), error })?;
        let pages = PageFile::open(&graph_path, layout.page_bytes, FIRST_PAGE_OFFSET, superblock.page_count)?;
        let file_id = superblock.file_id;
        let check = |number: u64, bytes: &[u8]| check_records(&pages, &layout, file_id, n, number, bytes);
        let adjacency = if adjacency_in_ram { Some(Adjacency::read(&pages, &layout, n, &check)?) } else { None };
        let page_bytes = layout.page_bytes as u64;
        // Of one that is changed in place any page may be written.
        let written = if is_live { room } else { 0 };
        let kept = if options.budget.ram == u64::MAX {
            Kept::Nothing
        } else if (options.resident || !is_live) && left >= Pages::most_bytes(superblock.page_count, written, layout.page_bytes) {
            Kept::all(&pages, written, &check)?
        } else {
            match PageCache::frames_for(left.min(2 * page_bytes * superblock.page_count), page_bytes, room) {
                0 => Kept::Nothing,
                frames => {
                    // A hint that cannot be read is none.
                    let counts = read_warm(path, manifest.generation, superblock.page_count).unwrap_or_default();
                    Kept::some(&pages, room, frames, counts.as_deref(), &check)?
                }
            }
        };
        let no_memory = |error| FormatError::Io { path: graph_path.clone(), error };
        let live = if is_live { Some(Live::new(capacity, room).map_err(no_memory)?) } else { None };
        let allowance = Allowance::new(options.budget.ram.saturating_sub(PROCESS_BYTES + loaded + key_bytes + kept.bytes()));
        let uring = options.reader == ReaderKind::IoUring || (options.reader == ReaderKind::Auto && probe_io_uring().is_ok());
        let info = IndexInfo {
            path: path.to_path_buf(),
            generation: manifest.generation,
            n,
            dim: manifest.dim,
            element: manifest.element,
            stored,
            metric: manifest.metric,
            max_degree: layout.max_degree,
            code_bytes,
            rotated: codebook.is_rotated(),
            nav_nodes: nav.ids.len() as u64,
            page_bytes: layout.page_bytes,
            record_bytes: layout.record_bytes,
            records_per_page: layout.per_page,
            page_count: superblock.page_count,
            index_bytes: manifest.total_bytes(),
            resident_bytes: codes.bytes() + codebook.resident_bytes() + Nav::ram_bytes(nav.ids.len() as u64, nav.graph.max_degree() as u64),
            string_keys: keys.are_strings(),
            row_keys: keys.are_rows(),
            kept_bytes: kept.bytes() + key_bytes,
            all_resident: matches!(kept, Kept::All(_)),
            adjacency_in_ram: adjacency.is_some(),
            params: manifest.params,
            reader: if uring { "io_uring" } else { "pread" },
            direct: pages.direct(),
        };
        Ok(Base {
            info,
            file_id: superblock.file_id,
            layout,
            entry: NodeId(superblock.entry as u32),
            codes,
            codec,
            codebook,
            nav,
            keys,
            distance,
            live,
            pages,
            reader: options.reader,
            kept,
            adjacency,
            allowance,
            drained: AtomicBool::new(false),
            given: AtomicU64::new(0),
        })
    }

    /// Whether searches are refused.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    /// Refuses searches that begin from now on.
    pub(crate) fn drain(&self) {
        self.drained.store(true, Ordering::Release);
    }

    /// Its codes are in memory again.
    pub(crate) fn fill(&self) {
        self.drained.store(false, Ordering::Release);
    }

    /// Which way a search goes that keeps `list_size` candidates.
    pub(crate) fn way(&self, filter: Option<&Filter>, list_size: usize) -> Way {
        match filter {
            Some(filter) if filter.scan_is_cheaper(list_size, self.n()) => Way::Scan,
            _ if self.info.all_resident => Way::Resident,
            None if self.adjacency.is_some() => Way::Adjacency,
            _ => Way::Flash,
        }
    }

    /// Nodes, of which some may be none any more.
    #[inline]
    pub(crate) fn n(&self) -> u64 {
        self.codes.n()
    }

    /// Nodes that there is room for.
    pub(crate) fn room(&self) -> u64 {
        self.live.as_ref().map_or(0, Live::capacity)
    }

    /// The PQ code of a node that there is.
    #[inline]
    pub(crate) fn code(&self, node: NodeId) -> &[u8] {
        self.codes.get(node).unwrap_or_default()
    }

    /// Appends the neighbors of a record, as far as they are the nodes that were meant.
    #[inline]
    pub(crate) fn neighbors(&self, record: Record<'_>, out: &mut Vec<NodeId>) -> Result<(), RecordError> {
        let Some(live) = &self.live else { return record.neighbors(self.n(), out) };
        // What lies beyond is new, and comes into sight with the merge that brought it.
        let n = self.n();
        record.each_edge(live.capacity(), |id, tag| {
            if u64::from(id.0) < n && live.is_current(id, tag) {
                out.push(id);
            }
        })
    }

    /// Whether there is a node in the slot of this record.
    #[inline]
    pub(crate) fn is_used(&self, record: Record<'_>) -> bool {
        self.live.is_none() || !record.slot_generation().1
    }

    /// Whether a page, which was checked, is as new as what was written of it last.
    #[inline]
    pub(crate) fn is_fresh(&self, number: u64, bytes: &[u8]) -> bool {
        self.live.as_ref().is_none_or(|live| live.is_fresh(number, page::lsn(bytes)))
    }

    /// Reads a page into `buffer` and proves it; of a page that is being written, until it is whole.
    pub(crate) fn read_page(&self, number: u64, buffer: &mut [u8]) -> Result<(u64, usize), SearchError> {
        let mut attempts = 0;
        loop {
            self.pages.read_page_blocking(number, buffer)?;
            match self.check_page(number, buffer) {
                Ok(nodes) if self.is_fresh(number, buffer) => return Ok(nodes),
                Err(error) if self.live.is_none() || attempts >= REREADS => return Err(error.into()),
                _ if attempts >= REREADS => return Err(self.stays_old(number).into()),
                _ => attempts += 1,
            }
            thread::yield_now();
        }
    }

    /// Proves that `bytes` is the page `number`; returns its nodes as (first id, count).
    pub(crate) fn check_page(&self, number: u64, bytes: &[u8]) -> Result<(u64, usize), FormatError> {
        // A merge may have brought more than is in sight yet.
        let (first, live) = check_page(&self.pages, &self.layout, self.file_id, self.n().max(self.room()), number, bytes)?;
        Ok((first, live.min(self.in_sight(first))))
    }

    /// Nodes from `first` on.
    fn in_sight(&self, first: u64) -> usize {
        usize::try_from(self.n().saturating_sub(first)).unwrap_or(usize::MAX)
    }

    /// The nodes of a page that was checked before.
    pub(crate) fn nodes_of(&self, number: u64, bytes: &[u8]) -> (u64, usize) {
        let first = self.layout.first_node(number);
        (first, usize::from(page::live(bytes)).min(self.in_sight(first)))
    }

    /// A page that the device gives as it was before it was written.
    pub(crate) fn stays_old(&self, page: u64) -> FormatError {
        self.corrupt(page, "it stays older than what was written of it".to_string())
    }

    /// Reads codes of nodes that a merge brought from the file, which may be written meanwhile.
    pub(crate) fn read_code(&self, blob: &BlobReader, node: NodeId, code: &mut [u8]) -> Result<(), FormatError> {
        let mut attempts = 0;
        loop {
            match blob.read_at(node.index() as u64 * code.len() as u64, code) {
                Err(FormatError::Corrupt { .. }) if attempts < REREADS => attempts += 1,
                outcome => return outcome,
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn corrupt(&self, page: u64, detail: String) -> FormatError {
        corrupt(&self.pages, page, detail)
    }

    /// A page that ends before `node`, which it was read for.
    pub(crate) fn no_record(&self, page: u64, live: usize, node: NodeId) -> FormatError {
        self.corrupt(page, format!("slot {live}: node {node} is not in it"))
    }

    pub(crate) fn bad_record(&self, page: u64, error: &RecordError) -> FormatError {
        self.corrupt(page, error.to_string())
    }

    /// The key and node that `text` names.
    pub(crate) fn find(&self, text: &str) -> Result<Option<(Key, NodeId)>, SearchError> {
        let node = if self.info.string_keys {
            self.keys.find_string(text)?
        } else {
            text.parse().map_or(Ok(None), |number| self.keys.find_number(number))?
        };
        let Some(node) = node else { return Ok(None) };
        let key = self.with_record(node, |record| record.key())?;
        Ok(Some((key, node)))
    }

    /// The key of a node and its vector, as far as its record holds it.
    pub(crate) fn key_and_vector(&self, node: NodeId) -> Result<(Key, Vec<f32>), SearchError> {
        let mut values = vec![0.0; self.info.dim];
        let key = self.with_record(node, |record| {
            match self.info.stored {
                Stored::Full => self.info.element.decode(record.vector(), &mut values),
                Stored::Sq8 => self.codec.decode(record.vector(), &mut values),
            }
            record.key()
        })?;
        Ok((key, values))
    }

    pub(crate) fn with_record<T>(&self, node: NodeId, read: impl FnOnce(Record<'_>) -> T) -> Result<T, SearchError> {
        let number = self.layout.page_of(node);
        let mut buffer =
            AlignedBuf::new(self.layout.page_bytes).map_err(|error| FormatError::Io { path: self.pages.path().to_path_buf(), error })?;
        let (_, live) = self.read_page(number, &mut buffer)?;
        let slot = self.layout.slot_of(node);
        if slot >= live {
            return Err(self.corrupt(number, format!("node {node} is not in it")).into());
        }
        Ok(read(self.layout.record(&buffer, slot)))
    }
}

fn corrupt(pages: &PageFile, page: u64, detail: String) -> FormatError {
    let offset = FIRST_PAGE_OFFSET + page * pages.page_bytes() as u64;
    FormatError::Corrupt { path: pages.path().to_path_buf(), offset, detail: format!("page {page}: {detail}") }
}

/// Proves that `bytes` is page `number` of an index of `n` nodes; returns its nodes as (first id, count).
fn check_page(
    pages: &PageFile,
    layout: &RecordLayout,
    file_id: u64,
    n: u64,
    number: u64,
    bytes: &[u8],
) -> Result<(u64, usize), FormatError> {
    let header = page::check(bytes, file_id, number).map_err(|e| corrupt(pages, number, e.to_string()))?;
    let (first, live) = (layout.first_node(number), usize::from(header.live));
    if live > layout.per_page || first + live as u64 > n {
        return Err(corrupt(pages, number, format!("{live} records in a page for {}, of {n} nodes", layout.per_page)));
    }
    Ok((first, live))
}

/// The same, and that it is full, and that its neighbors are nodes: what a page must be that is not looked at again. Returns its records.
fn check_records(pages: &PageFile, layout: &RecordLayout, file_id: u64, n: u64, number: u64, bytes: &[u8]) -> Result<usize, FormatError> {
    let (first, live) = check_page(pages, layout, file_id, n, number, bytes)?;
    let expected = (n - first).min(layout.per_page as u64);
    if live as u64 != expected {
        return Err(corrupt(pages, number, format!("{live} records, {expected} belong here")));
    }
    let mut neighbors = Vec::with_capacity(layout.max_degree);
    for slot in 0..live {
        neighbors.clear();
        layout.record(bytes, slot).neighbors(n, &mut neighbors).map_err(|e| corrupt(pages, number, e.to_string()))?;
    }
    Ok(live)
}

/// The superblock, proven to agree with the manifest.
pub(crate) fn shape(path: &Path, manifest: &Manifest) -> Result<(Superblock, RecordLayout), OpenError> {
    let graph_path = path.join(format::GRAPH_FILE);
    let superblock = Superblock::read(&graph_path)?;
    let wrong = |detail: String| FormatError::Corrupt { path: graph_path.clone(), offset: 0, detail };
    let degree = superblock.max_degree;
    let layout = Some(degree as usize)
        .filter(|_| (1..=65_535).contains(&degree))
        .zip(manifest.stored(path)?.element(manifest.element))
        .and_then(|(degree, element)| match manifest.capacity() {
            None => RecordLayout::new(element, manifest.dim, degree, manifest.n),
            Some(capacity) => RecordLayout::live(element, manifest.dim, degree, capacity),
        })
        .ok_or_else(|| wrong(format!("no page has records of degree {degree}")))?;
    // What is changed in place may grow; the entry is of those that were built.
    let n = manifest.capacity().map_or(manifest.n, |capacity| superblock.n.clamp(manifest.n, capacity));
    let expected = Superblock {
        checksum: superblock.checksum,
        epoch: superblock.epoch,
        file_id: format::file_id(manifest.generation, format::GRAPH_FILE),
        n,
        page_count: layout.page_count(n),
        page_bytes: layout.page_bytes as u64,
        record_bytes: layout.record_bytes as u64,
        id_bits: layout.id_bits as u64,
        max_degree: layout.max_degree as u64,
        ..superblock
    };
    if superblock != expected || superblock.entry >= manifest.n {
        return Err(wrong(format!("the superblock says {superblock:?}, the manifest makes it {expected:?}")).into());
    }
    Ok((superblock, layout))
}

/// The codes of `n` nodes, which may be more than were built.
pub(crate) fn open_codes(path: &Path, manifest: &Manifest, n: u64) -> Result<BlobReader, FormatError> {
    let blob = open_blob(path, manifest, format::CODES_FILE);
    if manifest.capacity().is_none() {
        return blob;
    }
    let built = manifest.file(format::CODES_FILE).map_or(0, |entry| entry.payload_bytes);
    let code_bytes = built / manifest.n.max(1);
    BlobReader::open_grown(
        &path.join(format::CODES_FILE),
        format::file_id(manifest.generation, format::CODES_FILE),
        n.saturating_mul(code_bytes),
    )
}

pub(crate) fn open_blob(path: &Path, manifest: &Manifest, name: &str) -> Result<BlobReader, FormatError> {
    let Some(entry) = manifest.file(name) else {
        return Err(FormatError::NotAnIndex { path: path.to_path_buf(), detail: format!("its MANIFEST names no {name}") });
    };
    BlobReader::open(&path.join(name), format::file_id(manifest.generation, name), entry.payload_bytes)
}

pub(crate) fn read_codebook(path: &Path, manifest: &Manifest, blob: &BlobReader) -> Result<(BuildCodec, Codebook), OpenError> {
    let bytes = blob.read_all()?;
    let Some((codec, codebook)) = bytes.split_first_chunk::<CODEC_BYTES>() else {
        return Err(blob.corrupt(0, format!("{} bytes", bytes.len())).into());
    };
    let codec = BuildCodec::from_bytes(manifest.element, manifest.metric, manifest.dim, codec)
        .map_err(|error| OpenError::Codec { path: path.join(format::MANIFEST_FILE), error })?;
    let codebook = Codebook::from_bytes(codebook).map_err(|error| OpenError::Codebook { path: path.join(format::CODEBOOK_FILE), error })?;
    if codebook.dim() != codec.pq_dim() || (codebook.is_rotated() && manifest.metric == Metric::Manhattan) {
        return Err(blob.corrupt(0, format!("a codebook for {} coordinates where {} belong", codebook.dim(), codec.pq_dim())).into());
    }
    Ok((codec, codebook))
}
