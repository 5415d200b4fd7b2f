//! One query at a time: beam search over pages that come from flash.
//!
//! Compressed distances in RAM choose what to read; a page brings exact distances *and* neighbors for every node in it, so one read is made
//! the most of: each node of the page is ranked exactly, and each that would enter the candidate list is expanded then and there. A page
//! is therefore read at most once a query, and whatever it was not good for on arrival it will never be good for later: the list
//! only gets better. Steering is `core::search`, so this file only fetches and feeds.

use crate::{
    SearchError,
    base::Base,
    io::{NodeReader, PageFile, open_reader},
};
use roxanne_core::{
    build_codes::BuildCodec,
    id::{Key, NodeId},
    neighbor::{Distance, Neighbor},
    pq::LookupTable,
    search::{BeamSearch, Space, TopK, VisitedSet, search_in_ram},
};
use std::{sync::Arc, time::Instant};

/// Candidates of the search in the navigation graph: how many places the main search begins at.
const NAV_LIST_SIZE: usize = 32;
/// Most reads in flight for one query.
const MAX_BEAM_WIDTH: usize = 64;
/// Largest list: at 16 bytes a candidate it stays small against any budget.
const MAX_LIST_SIZE: usize = 1 << 20;

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchParams {
    /// Hits wanted.
    pub k: usize,
    /// Candidates kept while searching (L): more finds more and reads more. At least `k` is used.
    pub list_size: usize,
    /// Reads in flight (W): more is faster on an idle device and reads a little more.
    pub beam_width: usize,
}

impl Default for SearchParams {
    fn default() -> SearchParams {
        SearchParams { k: 10, list_size: 64, beam_width: 4 }
    }
}

/// One vector found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its key; the number of a string key (see `Index::key_name`).
    pub key: Key,
    /// Its exact distance under the index's metric.
    pub distance: f32,
}

/// What a search found, and what it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Nearest first; fewer than `k` only when the index holds fewer.
    pub hits: Vec<Hit>,
    /// Its cost.
    pub stats: SearchStats,
}

/// The cost of one search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Pages read.
    pub reads: u64,
    /// Nodes expanded from a page that was read for another.
    pub cache_hits: u64,
    /// Distances computed, compressed and exact.
    pub distances: u64,
    /// Wall time in microseconds.
    pub micros: u64,
}

/// Runs searches on one thread; its scratch is reused from query to query.
pub struct Searcher {
    base: Arc<Base>,
    reader: Box<dyn NodeReader>,
    scratch: Scratch,
}

struct Scratch {
    table: LookupTable,
    nav_search: BeamSearch,
    search: BeamSearch,
    top: TopK<Ranked>,
    pages: VisitedSet,
    /// Nodes taken for expansion, with the page each waits for.
    wanted: Vec<(u64, NodeId)>,
    query: Vec<u8>,
    pq_query: Vec<f32>,
    neighbors: Vec<NodeId>,
    unseen: Vec<NodeId>,
    distances: Vec<u32>,
    stats: SearchStats,
}

/// A node with its exact distance, in the order (distance, node).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    distance: Distance,
    id: NodeId,
    key: Key,
}

impl Searcher {
    pub(crate) fn new(base: Arc<Base>) -> Result<Searcher, SearchError> {
        Searcher::wrapped(base, |reader, _| reader)
    }

    pub(crate) fn wrapped(
        base: Arc<Base>,
        wrap: impl FnOnce(Box<dyn NodeReader>, &Arc<PageFile>) -> Box<dyn NodeReader>,
    ) -> Result<Searcher, SearchError> {
        let reader = wrap(open_reader(&base.pages, base.reader, MAX_BEAM_WIDTH)?, &base.pages);
        let scratch = Scratch {
            table: LookupTable::new(),
            nav_search: BeamSearch::default(),
            search: BeamSearch::default(),
            top: TopK::new(0),
            pages: VisitedSet::default(),
            wanted: Vec::new(),
            query: Vec::new(),
            pq_query: Vec::new(),
            neighbors: Vec::new(),
            unseen: Vec::new(),
            distances: Vec::new(),
            stats: SearchStats::default(),
        };
        Ok(Searcher { base, reader, scratch })
    }

    /// False while reads of a failed search are in flight; then only this thread may go on with it.
    pub(crate) fn is_idle(&self) -> bool {
        self.reader.in_flight() == 0
    }

    /// Finds the nearest vectors of `query` `[dim]`, which must be representable in the index's element type.
    ///
    /// # Errors
    /// A query or parameter that makes no sense; a failing disk; corruption. Never a partial answer.
    pub fn search(&mut self, query: &[f32], params: &SearchParams) -> Result<Answer, SearchError> {
        let start = Instant::now();
        // A search that failed with its reader may have left reads behind; they must not be taken for this one's.
        while self.reader.in_flight() > 0 {
            self.reader.wait(&mut |_| {})?;
        }
        let info = &self.base.info;
        for (name, got, high) in [
            ("k", params.k, MAX_LIST_SIZE),
            ("list_size", params.list_size, MAX_LIST_SIZE),
            ("beam_width", params.beam_width, MAX_BEAM_WIDTH),
        ] {
            if !(1..=high).contains(&got) {
                return Err(SearchError::Param { name, got, low: 1, high });
            }
        }
        if query.len() != info.dim {
            return Err(SearchError::DimensionMismatch { path: info.path.clone(), found: info.dim, asked: query.len() });
        }
        BuildCodec::check_row(info.metric, query)?;
        self.scratch.query.clear();
        info.element.encode(query, &mut self.scratch.query)?;

        self.scratch.begin(&self.base, query, params);
        self.walk(params.beam_width)?;
        let hits = self.scratch.top.drain_sorted().into_iter().map(|r| Hit { key: r.key, distance: r.distance.0 }).collect();
        let mut stats = self.scratch.stats;
        stats.distances += self.scratch.search.distance_count + self.scratch.nav_search.distance_count;
        stats.micros = start.elapsed().as_micros() as u64;
        Ok(Answer { hits, stats })
    }

    /// Reads pages until no candidate waits.
    fn walk(&mut self, beam_width: usize) -> Result<(), SearchError> {
        let Searcher { base, reader, scratch } = self;
        loop {
            while reader.in_flight() < beam_width {
                let Some(candidate) = scratch.search.take() else { break };
                let page = base.layout.page_of(candidate.id);
                scratch.wanted.push((page, candidate.id));
                // Page numbers are ids divided by nodes a page, so they fit a node id.
                if scratch.pages.insert(NodeId(page as u32)) {
                    reader.submit(page, page)?;
                    scratch.stats.reads += 1;
                }
            }
            if reader.in_flight() == 0 {
                return Ok(());
            }
            let mut failed = None;
            reader.wait(&mut |completion| {
                let arrived = match completion.bytes {
                    Ok(bytes) => scratch.arrive(base, completion.page, bytes),
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = arrived {
                    failed.get_or_insert(error);
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }
}

impl Scratch {
    /// Fills the lookup table and the first candidates.
    fn begin(&mut self, base: &Base, query: &[f32], params: &SearchParams) {
        self.stats = SearchStats::default();
        self.wanted.clear();
        self.pages.reset();
        let most = usize::try_from(base.info.n).unwrap_or(usize::MAX);
        self.top.reset(params.k.min(most));
        base.codec.pq_query(query, &mut self.pq_query);
        self.table.fill(&base.codebook, base.codec.lookup_kind(), &self.pq_query);

        let mut space = NavSpace { base, table: &self.table };
        search_in_ram(&mut space, &[base.nav.entry], NAV_LIST_SIZE, &mut self.nav_search, |_| {});
        self.search.reset(params.list_size.max(params.k).min(most));
        // The entry reaches every node, which the sampled ones need not.
        let entry = Neighbor { distance: self.table.distance(base.code(base.entry)), id: base.entry };
        let found = self.nav_search.found().map(|place| Neighbor { distance: place.distance, id: base.nav.ids[place.id.index()] });
        for start in found.chain([entry]) {
            if self.search.visit(start.id) {
                self.search.push(start);
            }
        }
    }

    /// Makes the most of a page.
    fn arrive(&mut self, base: &Base, number: u64, bytes: &[u8]) -> Result<(), SearchError> {
        let (first, live) = base.check_page(number, bytes)?;
        let record = |id: NodeId| base.layout.record(bytes, (u64::from(id.0) - first) as usize);
        for slot in 0..live {
            let (id, record) = (NodeId((first + slot as u64) as u32), base.layout.record(bytes, slot));
            let distance = Distance(base.distance.distance(&self.query, record.vector()));
            self.top.offer(Ranked { distance, id, key: record.key() });
        }
        self.stats.distances += live as u64;
        // Those it was read for come first: they make the list better before the others are judged by it.
        let mut at = 0;
        while at < self.wanted.len() {
            if self.wanted[at].0 == number {
                let (_, id) = self.wanted.swap_remove(at);
                if u64::from(id.0) - first >= live as u64 {
                    return Err(base
                        .bad_record(
                            number,
                            &roxanne_core::format::record::RecordError { slot: live, detail: format!("node {id} is not in it") },
                        )
                        .into());
                }
                self.expand(base, number, record(id))?;
            } else {
                at += 1;
            }
        }
        for slot in 0..live {
            let id = NodeId((first + slot as u64) as u32);
            let neighbor = Neighbor { distance: self.table.distance(base.code(id)), id };
            let useful = if self.search.visit(id) {
                let admitted = self.search.admits(neighbor);
                self.search.push_taken(neighbor);
                admitted
            } else {
                self.search.take_this(neighbor)
            };
            if useful {
                self.stats.cache_hits += 1;
                self.expand(base, number, record(id))?;
            }
        }
        Ok(())
    }

    /// Brings a node's unseen neighbors into the candidate list.
    fn expand(&mut self, base: &Base, number: u64, record: roxanne_core::format::record::Record<'_>) -> Result<(), SearchError> {
        self.neighbors.clear();
        record.neighbors(base.info.n, &mut self.neighbors).map_err(|e| base.bad_record(number, &e))?;
        self.unseen.clear();
        let search = &mut self.search;
        self.unseen.extend(self.neighbors.iter().filter(|&&id| search.visit(id)));
        self.table.distances(&base.codes, &self.unseen, &mut self.distances);
        self.search.distance_count += self.unseen.len() as u64;
        for (&id, &distance) in self.unseen.iter().zip(&self.distances) {
            self.search.push(Neighbor { distance, id });
        }
        Ok(())
    }
}

/// The navigation graph under compressed distances.
struct NavSpace<'a> {
    base: &'a Base,
    table: &'a LookupTable,
}

impl Space for NavSpace<'_> {
    fn distance(&mut self, place: NodeId) -> u32 {
        self.table.distance(self.base.code(self.base.nav.ids[place.index()]))
    }
    fn expand(&mut self, place: NodeId, neighbors: &mut Vec<NodeId>) {
        neighbors.extend_from_slice(self.base.nav.graph.neighbors(place));
    }
}
