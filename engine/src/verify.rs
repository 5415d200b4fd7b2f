//! Reads every byte of an index and checks all that can be checked: checksums, places, bounds, keys, reachability.

use crate::{
    OpenError,
    base::{open_blob, open_codes, read_codebook, shape},
    bits::Bits,
    io::{AlignedBuf, PageFile},
};
use roxanne_core::{
    aside::breathe,
    format::{
        self, FormatError,
        keys::Keys,
        manifest::Manifest,
        nav::Nav,
        page,
        record::{self, Stored},
        superblock::FIRST_PAGE_OFFSET,
    },
    graph::Graph,
    id::NodeId,
};
use std::path::Path;

/// What was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Pages of graph.rx.
    pub pages: u64,
    /// Nodes.
    pub nodes: u64,
    /// Edges.
    pub edges: u64,
    /// Nodes that the entry point does not reach; a build leaves none. Where the graph was not held in memory (`walked`): to which no edge leads.
    pub unreachable: u64,
    /// Whether all edges were held in memory, and all keys against their records: else a key of every 64th node.
    pub walked: bool,
    /// Slots without a node, where the index is changed in place.
    pub free: u64,
    /// Edges to nodes that have left their slot: they are none, and fall out when their list is next written.
    pub stale: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Pages between two calls of `progress`.
const STEP: u64 = 4096;
/// Nodes of which all codes are held against their vectors, where nothing bounds the check.
const ALL_CODES: u64 = 1 << 20;

/// Nodes of which one key is held against its record, where there is no memory for all.
const KEYS_OF: usize = 64;

/// Verifies the index at `path`; `progress(done, total)` counts pages. Holds graph and keys in RAM meanwhile: 4 bytes an edge, 26 a node.
///
/// # Errors
/// The first damage, with file and offset.
pub fn verify(path: impl AsRef<Path>, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, OpenError> {
    verify_within(path, u64::MAX, progress)
}

/// The same within `ram` bytes, as far as 4 bytes a node allow it: where the graph takes more, it is not walked (see [`VerifyReport::walked`]). Where there is
/// such a bound one code a page is held against its vector, which takes a tenth of the time.
///
/// # Errors
/// As [`verify`].
pub fn verify_within(path: impl AsRef<Path>, ram: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, OpenError> {
    let path = path.as_ref();
    let manifest = Manifest::read(path)?;
    let (superblock, layout) = shape(path, &manifest)?;
    let graph_path = path.join(format::GRAPH_FILE);
    superblock.verify_head(&graph_path)?;

    let n = superblock.n;
    let codes = open_codes(path, &manifest, n)?.keeping(2);
    let codebook_blob = open_blob(path, &manifest, format::CODEBOOK_FILE)?;
    let nav = open_blob(path, &manifest, format::NAV_FILE)?;
    let keys = Keys::open(open_blob(path, &manifest, format::KEYS_FILE)?, manifest.n)?;
    [&codes, &codebook_blob, &nav].into_iter().try_for_each(|blob| blob.verify())?;
    let (codec, codebook) = read_codebook(path, &manifest, &codebook_blob)?;
    if codes.len() != n * codebook.subspaces() as u64 {
        return Err(codes.corrupt(0, format!("{} bytes for {n} codes of {} bytes", codes.len(), codebook.subspaces())).into());
    }
    Nav::read(&nav, manifest.n)?;

    let pages = PageFile::open(&graph_path, layout.page_bytes, FIRST_PAGE_OFFSET, superblock.page_count)?;
    let mut buffer = AlignedBuf::new(layout.page_bytes).map_err(|error| FormatError::Io { path: graph_path.clone(), error })?;
    let walked = n.saturating_mul(4 * layout.max_degree as u64 + 26) <= ram;
    let mut graph = walked.then(|| Graph::new(n as usize, layout.max_degree));
    let (mut led_to, mut edge_count) = (Bits::default(), 0);
    // Of one node in so many.
    let keys_of = if walked { 1 } else { KEYS_OF };
    let (mut row, mut record_keys) = (Vec::new(), vec![None; (n as usize).div_ceil(keys_of)]);
    // Which use of its slot each node is, and whether there is one: what edges are held against.
    let mut slots = vec![(0, false); n as usize];
    if manifest.capacity().is_some() {
        for number in 0..superblock.page_count {
            pages.read_page_blocking(number, &mut buffer)?;
            breathe();
            let first = layout.first_node(number) as usize;
            for (slot, state) in slots.iter_mut().skip(first).take(layout.per_page).enumerate() {
                *state = layout.record(&buffer, slot).slot_generation();
            }
        }
    }
    // Codes are those of the vectors: of each where there are few, else of one a page, another slot in each.
    let all_codes = n <= ALL_CODES && ram == u64::MAX;
    let codes_of = |number: u64, slot: usize| all_codes || (number + slot as u64).is_multiple_of(layout.per_page as u64);
    let exact = manifest.stored(path)? == Stored::Full;
    let (mut build_code, mut bits, mut code, mut kept) =
        (Vec::new(), Vec::new(), vec![0; codebook.subspaces()], vec![0; codebook.subspaces()]);
    let mut stale = 0;
    for number in 0..superblock.page_count {
        if number % STEP == 0 {
            progress(number, superblock.page_count);
        }
        let offset = FIRST_PAGE_OFFSET + number * layout.page_bytes as u64;
        let corrupt =
            |detail: String| FormatError::Corrupt { path: graph_path.clone(), offset, detail: format!("page {number}: {detail}") };
        pages.read_page_blocking(number, &mut buffer)?;
        breathe();
        let header = page::check(&buffer, superblock.file_id, number).map_err(|e| corrupt(e.to_string()))?;
        let first = layout.first_node(number);
        let expected = (n - first).min(layout.per_page as u64);
        if u64::from(header.live) != expected {
            return Err(corrupt(format!("{} records, {expected} belong here", header.live)).into());
        }
        for slot in 0..usize::from(header.live) {
            row.clear();
            let (record, node) = (layout.record(&buffer, slot), NodeId((first + slot as u64) as u32));
            let (generation, is_free) = slots[node.index()];
            let edges = record.each_edge(n, |id, tag| match slots[id.index()] {
                (generation, false) if manifest.capacity().is_none() || record::tag(generation) == tag => row.push(id),
                _ => stale += 1,
            });
            edges.map_err(|e| corrupt(e.to_string()))?;
            if is_free && (record.packed().0 > 0 || record.vector().iter().any(|&byte| byte != 0)) {
                return Err(corrupt(format!("slot {slot} has no node and is not empty")).into());
            }
            edge_count += row.len() as u64;
            match &mut graph {
                Some(graph) => graph.set(node, &row),
                None => row.iter().filter(|&&id| id != node).for_each(|id| _ = led_to.insert(id.0)),
            }
            if !is_free && exact && codes_of(number, slot) {
                build_code.clear();
                codec.encode(record.vector(), &mut Vec::new(), &mut build_code);
                let pq_row = codec.pq_row(&build_code, &mut bits);
                codebook.encode_rows(pq_row, pq_row.len(), &mut code);
                let place = node.index() as u64 * kept.len() as u64;
                codes.read_at(place, &mut kept)?;
                if code != kept {
                    return Err(codes.corrupt(place, format!("the code of node {node} is not that of its vector")).into());
                }
            }
            if !is_free && generation == 0 && node.index() % keys_of == 0 {
                record_keys[node.index() / keys_of] = Some(record.key().0);
            }
        }
    }
    progress(superblock.page_count, superblock.page_count);
    keys.verify(|node| record_keys[node / keys_of].filter(|_| node % keys_of == 0))?;
    let free = slots.iter().filter(|(_, is_free)| *is_free).count() as u64;
    let entry = NodeId(superblock.entry as u32);
    if slots[entry.index()].1 {
        let detail = format!("the entry point is node {entry}, which has left");
        return Err(FormatError::Corrupt { path: graph_path, offset: 0, detail }.into());
    }
    let reached = match &graph {
        Some(graph) => graph.reach(entry, &mut vec![false; graph.n()]).len() as u64,
        // No edge need lead to the entry.
        None => led_to.len() + u64::from(led_to.insert(entry.0)),
    };
    Ok(VerifyReport {
        pages: superblock.page_count,
        nodes: n - free,
        edges: edge_count,
        unreachable: (n - free).saturating_sub(reached),
        walked,
        free,
        stale,
        bytes: manifest.total_bytes(),
    })
}
