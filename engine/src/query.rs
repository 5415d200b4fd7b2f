//! One query on its way: what it has seen, what it waits for, what it has found. No I/O.
//!
//! Compressed distances in RAM choose what to read; a page brings exact distances *and* neighbors for every node in it, so one read is made
//! the most of: each node of the page is ranked exactly, and each that would enter the candidate list is expanded then and there. A page is
//! therefore looked at once a query, and whatever it was not good for on arrival it will never be good for later: the list only gets better
//! (unless it is made longer; then pages may be asked for again).

use crate::{
    SearchError,
    base::Base,
    bits::Hidden,
    io::cache::{PageCache, Pinned},
    kept::Kept,
    key_set::Filter,
    live_pages::Pages,
    params::{Answer, Hit, SearchParams, SearchStats, Way},
    ranker::Ranker,
    spaces::{CodeSpace, LEFT, NavSpace, Resident, ResidentSpace},
    trace::Trace,
};
use roxanne_core::{
    format::{FormatError, record::Record},
    id::{Key, NodeId},
    neighbor::{Distance, Neighbor},
    pq::{LookupScratch, LookupTable},
    search::{BeamSearch, Scale, Slack, TopK, VisitedSet, go_on_in_ram, search_in_ram},
};
use std::{
    collections::{BinaryHeap, VecDeque},
    mem,
    time::{Duration, Instant},
};

/// Nodes of the navigation graph that a search of a base begins at which is changed in place and all in RAM.
const MORE_ENTRIES: usize = 32;
/// Candidates of the search in the navigation graph: how many places the main search begins at.
const NAV_LIST_SIZE: usize = 32;

/// A node with its exact distance, in the order (distance, node).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    distance: Distance,
    id: NodeId,
    key: Key,
}

/// See the module. Its memory is used again by the next query.
pub(crate) struct Query {
    /// The caller's name for it.
    pub(crate) tag: u64,
    pub(crate) params: SearchParams,
    pub(crate) way: Way,
    pub(crate) stats: SearchStats,
    /// Pages asked for and not yet looked at.
    pub(crate) waiting: usize,
    filter: Option<Filter>,
    /// Nodes that are passed through and never returned.
    hidden: Option<Hidden>,
    /// Only hits as near as this; `f32::INFINITY` without a limit.
    radius: f32,
    /// Everything ranked stays, for a list that grows.
    keeps_all: bool,
    /// Whether its list grew: nodes may be met again.
    has_grown: bool,
    started: Option<Instant>,
    ranker: Ranker,
    pq_query: Vec<f32>,
    table: LookupTable,
    search: BeamSearch,
    top: TopK<Ranked>,
    /// All that were ranked, where they stay.
    all: Vec<Ranked>,
    /// Pages asked for.
    pages: VisitedSet,
    /// Nodes taken for expansion, with the page each waits for.
    wanted: Vec<(u64, NodeId)>,
    /// Nodes that are read without being expanded, best last.
    to_read: Vec<NodeId>,
    /// Pages in the order they were asked for, and those that came before their turn, where the order counts.
    order: VecDeque<u64>,
    held: Vec<(u64, Vec<u8>)>,
    neighbors: Vec<NodeId>,
    unseen: Vec<NodeId>,
    distances: Vec<u32>,
    met: Vec<Neighbor<u32>>,
    /// What is noted of all that is looked at, where that is wanted.
    pub(crate) trace: Option<Trace>,
}

/// Times that a list grows at most for the sake of nodes that are dead.
const MOST_FOR_THE_DEAD: usize = 8;

/// The list of which so many live as `list_size`, where `dead` of `n` nodes do not; the bound keeps a search a search where few live.
fn list_of_the_living(list_size: usize, dead: u64, n: u64) -> usize {
    let share = n as f64 / n.saturating_sub(dead).max(1) as f64;
    (list_size as f64 * share).min((list_size * MOST_FOR_THE_DEAD) as f64) as usize
}

/// What a query needs while it starts: one serves all queries of a searcher.
#[derive(Default)]
pub(crate) struct Scratch {
    lookup: LookupScratch,
    nav_search: BeamSearch,
}

impl Query {
    pub(crate) fn new() -> Query {
        Query {
            tag: 0,
            params: SearchParams::default(),
            way: Way::Flash,
            stats: SearchStats::default(),
            waiting: 0,
            filter: None,
            hidden: None,
            radius: f32::INFINITY,
            keeps_all: false,
            has_grown: false,
            started: None,
            ranker: Ranker::default(),
            pq_query: Vec::new(),
            table: LookupTable::new(),
            search: BeamSearch::default(),
            top: TopK::new(0),
            all: Vec::new(),
            pages: VisitedSet::default(),
            wanted: Vec::new(),
            to_read: Vec::new(),
            order: VecDeque::new(),
            held: Vec::new(),
            neighbors: Vec::new(),
            unseen: Vec::new(),
            distances: Vec::new(),
            met: Vec::new(),
            trace: None,
        }
    }

    /// Takes up a query whose parameters are in range.
    pub(crate) fn begin(
        &mut self,
        base: &Base,
        vector: &[f32],
        params: &SearchParams,
        filter: Option<Filter>,
        hidden: Option<Hidden>,
    ) -> Result<(), SearchError> {
        if base.is_drained() {
            return Err(SearchError::Drained { path: base.info.path.clone() });
        }
        self.ranker.take(base, vector)?;
        self.params = *params;
        self.started = Some(Instant::now());
        self.stats = SearchStats::default();
        self.waiting = 0;
        self.radius = f32::INFINITY;
        (self.keeps_all, self.has_grown) = (false, false);
        self.all.clear();
        self.wanted.clear();
        self.to_read.clear();
        self.order.clear();
        self.held.clear();
        self.pages.reset();
        let n = base.n();
        let most = usize::try_from(n).unwrap_or(usize::MAX);
        self.top.reset(params.k.min(most));
        let list_size = params.list_size.max(params.k);
        self.way = base.way(filter.as_ref(), list_size);
        // As many of those that match as an unfiltered list would hold.
        let list_size = match &filter {
            Some(Filter::Keys(keys)) if self.way != Way::Scan => keys.list_size(list_size, n),
            _ => list_size,
        };
        // And as many of those that live.
        let list_size = hidden.as_ref().map_or(list_size, |hidden| list_of_the_living(list_size, hidden.linked, n));
        self.search.reset(list_size.min(most));
        if matches!(filter, Some(Filter::Judged(_))) {
            self.search.keep_spilled();
        }
        (self.filter, self.hidden, self.trace) = (filter, hidden, None);
        if !matches!(base.kept, Kept::All(_)) {
            base.codec.pq_query(vector, &mut self.pq_query);
        }
        Ok(())
    }

    /// Notes all that the search looks at, page by page, wherever pages are; before it has started.
    pub(crate) fn note_pages(&mut self, base: &Base, vector: &[f32], trace: Trace) {
        if self.way != Way::Flash {
            self.way = Way::Flash;
            base.codec.pq_query(vector, &mut self.pq_query);
        }
        self.trace = Some(trace);
    }

    /// Finds the first candidates of a query that was taken up.
    pub(crate) fn start(&mut self, base: &Base, scratch: &mut Scratch) {
        let by_codes = match self.way {
            Way::Flash | Way::Adjacency => true,
            Way::Scan => !matches!(base.kept, Kept::All(_)),
            Way::Resident => false,
        };
        if by_codes {
            self.table.fill(&base.codebook, base.codec.lookup_kind(), &self.pq_query, &mut scratch.lookup);
        }
        if self.params.slack > 0.0
            && self.filter.is_none()
            && self.hidden.as_ref().is_none_or(|hidden| hidden.linked == 0)
            && !self.keeps_all
        {
            let scale = if self.way == Way::Resident { Scale::Ranks } else { Scale::Offset(self.table.offset()) };
            self.search.set_slack(Slack { k: self.params.k, share: self.params.slack, scale });
        }
        match self.way {
            Way::Flash => self.enter(base, &mut scratch.nav_search),
            Way::Resident => {}
            Way::Adjacency => self.steer_in_ram(base, &mut scratch.nav_search),
            Way::Scan => self.scan(base),
        }
    }

    /// Keeps all that is ranked from now on within `radius`, and what a longer list would need.
    pub(crate) fn keep_all(&mut self, radius: f32) {
        self.keeps_all = true;
        self.radius = radius;
        self.search.keep_spilled();
    }

    /// Makes the list of a query that has not started as long as `list_size`.
    pub(crate) fn lengthen(&mut self, list_size: usize) {
        self.search.grow(list_size);
    }

    /// Takes an ended query up again with a list of `list_size`.
    pub(crate) fn go_on(&mut self, base: &Base, list_size: usize) {
        // One that is judged is still the same search.
        if !matches!(self.filter, Some(Filter::Judged(_))) {
            self.started = Some(Instant::now());
        }
        self.has_grown = true;
        self.search.grow(list_size);
        match self.way {
            // Nodes that a page was not good for may be wanted now.
            Way::Flash => self.pages.reset(),
            Way::Resident => {}
            Way::Adjacency => {
                self.walk_in_ram(base);
                self.read_list(usize::MAX);
            }
            Way::Scan => self.read_list(usize::MAX),
        }
    }

    /// The best `most` of the list are to be read. Pages that were looked at are not asked for again: all in them was ranked.
    fn read_list(&mut self, most: usize) {
        self.to_read.clear();
        self.to_read.extend(self.search.wanted().take(most).map(|n| n.id));
        self.to_read.reverse();
    }

    /// The list's length, and how many were ranked within the radius.
    pub(crate) fn reach(&mut self) -> (usize, usize) {
        self.all.sort_unstable();
        self.all.dedup();
        (self.search.list_size(), self.all.len())
    }

    /// Lets go of who judges.
    pub(crate) fn forget_filter(&mut self) {
        self.filter = None;
    }

    /// Candidates that it keeps.
    pub(crate) fn list_size(&self) -> usize {
        self.search.list_size()
    }

    /// Whether a filter's walk came home with fewer than there may be.
    pub(crate) fn is_short(&self) -> bool {
        let Some(Filter::Keys(keys)) = &self.filter else { return false };
        self.way != Way::Scan && !self.keeps_all && (self.top.len() as u64) < keys.len().min(self.params.k as u64)
    }

    /// Starts over as a scan of the filter's nodes, which are looked up if they were not yet.
    pub(crate) fn scan_instead(&mut self, base: &Base) -> Result<(), SearchError> {
        if let Some(Filter::Keys(keys)) = &self.filter {
            keys.resolve(base)?;
        }
        self.way = Way::Scan;
        self.top.reset(self.params.k);
        self.pages.reset();
        self.search.reset(self.params.list_size.max(self.params.k));
        self.scan(base);
        Ok(())
    }

    /// The first candidates: what the navigation graph finds, and the entry, which reaches every node.
    fn enter(&mut self, base: &Base, nav_search: &mut BeamSearch) {
        let mut space = NavSpace { base, table: &self.table, nodes: mem::take(&mut self.unseen) };
        search_in_ram(&mut space, &[base.nav.entry], NAV_LIST_SIZE, nav_search, |_| {});
        self.unseen = space.nodes;
        self.stats.distances += nav_search.distance_count;
        let entry = Neighbor { distance: self.table.distance(base.code(base.entry)), id: base.entry };
        let found = nav_search.found().map(|place| Neighbor { distance: place.distance, id: base.nav.ids[place.id.index()] });
        for start in found.chain([entry]) {
            if self.search.visit(start.id) {
                self.search.push(start);
            }
        }
    }

    /// The search by compressed distances over neighbors in RAM; the best candidates are then read.
    fn steer_in_ram(&mut self, base: &Base, nav_search: &mut BeamSearch) {
        let list_size = self.search.list_size();
        self.search.grow((2 * list_size).max(2 * NAV_LIST_SIZE));
        self.enter(base, nav_search);
        self.walk_in_ram(base);
        self.read_list(list_size);
    }

    fn walk_in_ram(&mut self, base: &Base) {
        if let Some(adjacency) = &base.adjacency {
            let mut space = CodeSpace { base, table: &self.table, adjacency };
            go_on_in_ram(&mut space, &[], &mut self.search, |_| {});
        }
    }

    /// Ranks a filter's nodes: all of them where pages are in RAM, else the best `list_size` by compressed distance, which are to be read.
    fn scan(&mut self, base: &Base) {
        let Some(filter) = self.filter.clone() else { return };
        let nodes = filter.nodes();
        self.stats.distances += nodes.len() as u64;
        if let Kept::All(pages) = &base.kept {
            let resident = Resident { base, pages, guard: &crossbeam_epoch::pin() };
            for (id, record) in nodes.iter().filter_map(|&id| Some((id, resident.record(id)?))) {
                self.rank(Distance(self.ranker.distance(base, record.vector())), id, || record.key());
            }
            return;
        }
        self.table.distances_by(|node| base.codes.get(node), nodes, &mut self.distances);
        for (&id, &distance) in nodes.iter().zip(&self.distances) {
            self.search.push(Neighbor { distance, id });
        }
        self.read_list(usize::MAX);
    }

    /// The next page to ask for; `None` when no candidate waits. What it is wanted for is remembered.
    pub(crate) fn next_page(&mut self, base: &Base) -> Option<u64> {
        loop {
            let id = match self.way {
                Way::Flash => self.search.take()?.id,
                _ => self.to_read.pop()?,
            };
            if let Some(page) = self.want(base, id) {
                return Some(page);
            }
        }
    }

    /// Notes that `id` waits for its page; gives the page unless it was asked for already.
    fn want(&mut self, base: &Base, id: NodeId) -> Option<u64> {
        let page = base.layout.page_of(id);
        if self.way == Way::Flash {
            self.wanted.push((page, id));
        }
        // Page numbers are ids divided by nodes a page, so they fit a node id.
        if !self.pages.insert(NodeId(page as u32)) {
            return None;
        }
        self.waiting += 1;
        if self.params.deterministic {
            self.order.push_back(page);
        }
        Some(page)
    }

    /// The best waiting candidate whose page is in the cache, and that page, which is thereby asked for.
    pub(crate) fn next_kept<'c>(&mut self, base: &Base, cache: &'c PageCache) -> Option<(u64, Pinned<'c>)> {
        let pages = &self.pages;
        let (candidate, (page, kept)) = self.search.take_where(|candidate| {
            let page = base.layout.page_of(candidate.id);
            // A page that was asked of the device comes from there, even if it came into the cache meanwhile.
            if pages.contains(NodeId(page as u32)) {
                return None;
            }
            cache.get(page).filter(|kept| base.is_fresh(page, kept)).map(|kept| (page, kept))
        })?;
        self.want(base, candidate.id);
        Some((page, kept))
    }

    /// A page has come; it is looked at now, or, where the order counts, when those before it have been.
    pub(crate) fn arrive(&mut self, base: &Base, page: u64, first: u64, live: usize, bytes: &[u8]) -> Result<(), SearchError> {
        if !self.params.deterministic {
            self.waiting -= 1;
            return self.look_at(base, page, first, live, bytes);
        }
        self.held.push((page, bytes.to_vec()));
        Ok(())
    }

    /// Where the order counts: looks at the page whose turn it is; false when it has not come.
    pub(crate) fn take_turn(&mut self, base: &Base) -> Result<bool, SearchError> {
        let Some(at) = self.order.front().and_then(|turn| self.held.iter().position(|(page, _)| page == turn)) else { return Ok(false) };
        self.order.pop_front();
        let (page, bytes) = self.held.swap_remove(at);
        self.waiting -= 1;
        let (first, live) = base.check_page(page, &bytes)?;
        self.look_at(base, page, first, live, &bytes)?;
        Ok(true)
    }

    /// Makes the most of a page.
    fn look_at(&mut self, base: &Base, number: u64, first: u64, live: usize, bytes: &[u8]) -> Result<(), SearchError> {
        let record = |id: NodeId| base.layout.record(bytes, (u64::from(id.0) - first) as usize);
        for slot in 0..live {
            let (id, record) = (NodeId((first + slot as u64) as u32), base.layout.record(bytes, slot));
            if !base.is_used(record) {
                continue;
            }
            let distance = Distance(self.ranker.distance(base, record.vector()));
            self.rank(distance, id, || record.key());
            if let Some(trace) = &mut self.trace {
                trace.note(base, distance, id, record);
            }
        }
        self.stats.distances += live as u64;
        if self.way != Way::Flash {
            return Ok(());
        }
        // Those it was read for come first: they make the list better before the others are judged by it.
        let mut at = 0;
        while at < self.wanted.len() {
            if self.wanted[at].0 == number {
                let (_, id) = self.wanted.swap_remove(at);
                if u64::from(id.0) - first >= live as u64 {
                    return Err(base.no_record(number, live, id).into());
                }
                // It may have left since.
                if !base.is_used(record(id)) {
                    continue;
                }
                self.expand(base, number, record(id))?;
            } else {
                at += 1;
            }
        }
        for slot in 0..live {
            let id = NodeId((first + slot as u64) as u32);
            if !base.is_used(record(id)) {
                continue;
            }
            let neighbor = Neighbor { distance: self.table.distance(base.code(id)), id };
            let useful = if self.search.visit(id) {
                let admitted = self.search.admits(neighbor);
                self.search.push_taken(neighbor);
                admitted
            } else {
                self.search.take_this(neighbor)
            };
            if useful {
                self.expand(base, number, record(id))?;
            }
        }
        Ok(())
    }

    /// A node's exact distance is known.
    #[inline]
    fn rank(&mut self, distance: Distance, id: NodeId, key: impl FnOnce() -> Key) {
        if distance.0 > self.radius || self.hidden.as_ref().is_some_and(|hidden| hidden.contains(id.0)) {
            return;
        }
        let ranked = Ranked { distance, id, key: key() };
        match &self.filter {
            // Judging costs more than looking whether it matters; a list that grew meets some again.
            Some(Filter::Judged(_))
                if !self.keeps_all && (!self.top.admits(&ranked) || (self.has_grown && self.top.kept().any(|kept| *kept == ranked))) =>
            {
                return;
            }
            Some(filter) if !filter.admits(ranked.key, id) => return,
            _ => {}
        }
        if self.keeps_all {
            self.all.push(ranked);
        } else {
            self.top.offer(ranked);
        }
    }

    /// Brings a node's unseen neighbors into the candidate list.
    fn expand(&mut self, base: &Base, number: u64, record: Record<'_>) -> Result<(), FormatError> {
        self.stats.expanded += 1;
        self.neighbors.clear();
        base.neighbors(record, &mut self.neighbors).map_err(|e| base.bad_record(number, &e))?;
        self.search.retain_new(&mut self.neighbors);
        self.table.distances_by(|node| base.codes.get(node), &self.neighbors, &mut self.distances);
        self.search.distance_count += self.neighbors.len() as u64;
        for (&id, &distance) in self.neighbors.iter().zip(&self.distances) {
            self.search.push(Neighbor { distance, id });
        }
        Ok(())
    }

    /// The whole search over `pages` that are all in RAM, steered by exact distances.
    pub(crate) fn run_resident(&mut self, base: &Base, pages: &Pages) {
        let mut search = mem::take(&mut self.search);
        let resident = Resident { base, pages, guard: &crossbeam_epoch::pin() };
        // Without a filter or a radius the list itself holds the answer; else whatever is met is ranked, whether the list has room for it or not.
        let listed = self.filter.is_none() && self.hidden.is_none() && !self.keeps_all;
        let met = (!listed).then(|| mem::take(&mut self.met));
        let mut space = ResidentSpace { resident, ranker: &self.ranker, met, best: BinaryHeap::new(), k: self.params.k };
        // From one entry alone the edges that merges made may not lead everywhere.
        let more = if base.live.is_some() { &base.nav.ids[..base.nav.ids.len().min(MORE_ENTRIES)] } else { &[] };
        let entries: Vec<NodeId> = more.iter().copied().chain([base.entry]).collect();
        go_on_in_ram(&mut space, &entries, &mut search, |_| self.stats.expanded += 1);
        let mut met = space.met.take().unwrap_or_default();
        if listed {
            met.extend(search.found().take(self.params.k));
        }
        for Neighbor { distance, id } in met.drain(..).filter(|neighbor| neighbor.distance != LEFT) {
            // Most were met and are of no use: their records are not looked at again.
            if !self.keeps_all && self.top.last().is_some_and(|last| Distance::of_rank(distance) > last.distance) {
                continue;
            }
            if let Some(record) = resident.record(id) {
                self.rank(Distance::of_rank(distance), id, || record.key());
            }
        }
        self.met = met;
        self.search = search;
    }

    /// Whether its time is over.
    pub(crate) fn is_late(&self) -> bool {
        self.params.deadline.is_some_and(|limit| self.elapsed() >= limit)
    }

    fn elapsed(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |start| start.elapsed())
    }

    /// Ends it: what was found, nearest first.
    pub(crate) fn answer(&mut self, complete: bool) -> Answer {
        let ranked = if self.keeps_all {
            self.all.sort_unstable();
            self.all.dedup();
            self.all.clone()
        } else if matches!(self.filter, Some(Filter::Judged(_))) {
            // Its list may grow.
            let mut kept: Vec<Ranked> = self.top.kept().copied().collect();
            kept.sort_unstable();
            kept
        } else {
            self.top.drain_sorted()
        };
        let hits = ranked.into_iter().map(|r| Hit { key: r.key, distance: r.distance.0 }).collect();
        let stats = SearchStats {
            way: self.way,
            distances: self.stats.distances + self.search.distance_count,
            micros: self.elapsed().as_micros() as u64,
            ..self.stats
        };
        Answer { hits, complete, stats }
    }
}
