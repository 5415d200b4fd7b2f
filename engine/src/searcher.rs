//! Many queries on one thread: whichever has a page to look at goes on, and the device always has reads to do.
//!
//! Each query is a [`Query`]; this file asks the device for what they want and brings them what it gives. One turn of the wheel: queries that
//! something has come for look at it and ask for more, first of what is in RAM; all that was asked for goes to the kernel in one call; that call
//! returns with what is done by then. Nobody waits for a whole beam. How many reads a query may have in flight follows from how many queries
//! are at work: alone it gets its `beam_width`, among many fewer, since every read that is asked for ahead is a read that a later one might have
//! made needless. A page that two queries want at the same time is read once.

use crate::{
    SearchError,
    base::{Base, REREADS},
    bits::Hidden,
    io::{NodeReader, PageFile, open_reader},
    kept::Kept,
    key_set::{Filter, Judge, KeySet},
    params::{self, Answer, MAX_BEAM_WIDTH, MAX_LIST_SIZE, SearchParams, Way},
    query::{Query, Scratch},
    trace::Trace,
};
use std::{collections::VecDeque, sync::Arc};

/// Most queries in flight on one searcher.
pub const MAX_IN_FLIGHT: usize = 256;
/// Reads that a searcher keeps in flight where it has the queries for it: two searchers keep a device of today busy.
const DEPTH: usize = 64;
/// Queries that a searcher works on at a time; others wait for their turn. More would push each other's tables and lists out of the caches of a
/// core, and fewer leave the device idle.
const RUNNING: usize = 32;
/// Queries in flight of a searcher that merging takes.
pub(crate) const MERGE_IN_FLIGHT: usize = 16;
/// No page.
const NONE: u64 = u64::MAX;

/// A list under a filter that is judged grows by so much at a time, ...
const MOST_GROWTH: usize = 8;
/// ... and to so much; what matches less often is found by reading all.
const MAX_JUDGED_LIST: usize = 1 << 14;

/// Reads that a searcher of `in_flight` queries has room for.
fn capacity(in_flight: usize) -> usize {
    MAX_BEAM_WIDTH + in_flight
}

/// Memory of a searcher of `in_flight` queries, over pages of `page_bytes` and codes of `code_bytes`: buffers, tables, lists and sets.
pub(crate) fn searcher_bytes(page_bytes: usize, code_bytes: usize, in_flight: usize) -> u64 {
    let table = 256 * code_bytes as u64;
    let query = table + (128 << 10);
    capacity(in_flight) as u64 * page_bytes as u64 + in_flight as u64 * query + 4 * table
}

/// Runs searches on one thread, one or many at a time; its memory is used again from query to query.
pub struct Searcher {
    base: Arc<Base>,
    reader: Box<dyn NodeReader>,
    slots: Vec<Slot>,
    /// Slots without a query.
    free: Vec<usize>,
    /// Slots whose query has not begun.
    waiting: VecDeque<usize>,
    /// Slots whose query has begun.
    running: usize,
    /// Slots whose query can go on.
    ready: VecDeque<usize>,
    /// Slots whose query wants to read and found the reader full.
    starved: Vec<usize>,
    flights: Flights,
    scratch: Scratch,
    /// Of the index's allowance.
    bytes: u64,
}

/// A place for a query.
struct Slot {
    query: Query,
    /// Which of the queries that this place had is in it: an answer to an earlier one is nobody's.
    turn: u64,
    active: bool,
    started: bool,
    ready: bool,
    failed: Option<SearchError>,
}

/// Reads on their way, by their tag, and who waits for each.
struct Flights {
    pages: Vec<u64>,
    waiting: Vec<Vec<(usize, u64)>>,
    /// Times that the page was read again because it was being written.
    rereads: Vec<u32>,
    free: Vec<usize>,
}

impl Flights {
    fn new(capacity: usize) -> Flights {
        Flights {
            pages: vec![NONE; capacity],
            waiting: vec![Vec::new(); capacity],
            rereads: vec![0; capacity],
            free: (0..capacity).rev().collect(),
        }
    }

    /// The read of `page` that is on its way.
    fn of(&self, page: u64) -> Option<usize> {
        self.pages.iter().position(|&there| there == page)
    }
}

impl Searcher {
    pub(crate) fn new(base: Arc<Base>, in_flight: usize) -> Result<Searcher, SearchError> {
        Searcher::wrapped(base, in_flight, |reader, _| reader)
    }

    pub(crate) fn wrapped(
        base: Arc<Base>,
        in_flight: usize,
        wrap: impl FnOnce(Box<dyn NodeReader>, &Arc<PageFile>) -> Box<dyn NodeReader>,
    ) -> Result<Searcher, SearchError> {
        params::in_range("in_flight", in_flight, MAX_IN_FLIGHT)?;
        let capacity = capacity(in_flight);
        let reader = wrap(open_reader(&base.pages, base.reader, capacity)?, &base.pages);
        let bytes = searcher_bytes(base.layout.page_bytes, base.info.code_bytes, in_flight);
        base.allowance.take(bytes).map_err(|left| SearchError::Budget { needed: bytes, left })?;
        let slot = || Slot { query: Query::new(), turn: 0, active: false, started: false, ready: false, failed: None };
        Ok(Searcher {
            base,
            reader,
            slots: (0..in_flight).map(|_| slot()).collect(),
            free: (0..in_flight).rev().collect(),
            waiting: VecDeque::with_capacity(in_flight),
            running: 0,
            ready: VecDeque::with_capacity(in_flight),
            starved: Vec::with_capacity(in_flight),
            flights: Flights::new(capacity),
            scratch: Scratch::default(),
            bytes,
        })
    }

    /// Queries that were submitted and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether another query can be submitted.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// False while reads are in flight, of a search that failed too; then only this thread may go on with it.
    pub(crate) fn is_idle(&self) -> bool {
        self.reader.in_flight() == 0 && self.in_flight() == 0
    }

    /// Finds the nearest vectors of `query` `[dim]`, which must be representable in the index's element type.
    ///
    /// # Errors
    /// A query or parameter that makes no sense; a failing disk; corruption. Never a partial answer, but for a deadline. `Busy` while submitted
    /// queries are in flight.
    pub fn search(&mut self, query: &[f32], params: &SearchParams) -> Result<Answer, SearchError> {
        self.search_in(query, params, None)
    }

    /// The same among the keys of `filter`.
    ///
    /// # Errors
    /// As [`Searcher::search`].
    pub fn search_in(&mut self, query: &[f32], params: &SearchParams, filter: Option<&Arc<KeySet>>) -> Result<Answer, SearchError> {
        self.alone()?;
        let slot = self.begin(0, query, params, filter.cloned().map(Filter::Keys), None)?;
        self.finish(slot)
    }

    /// The same among what `judge` admits and is not out of sight; fewer than `k` where the list may not grow any more.
    pub(crate) fn search_judged(
        &mut self,
        query: &[f32],
        params: &SearchParams,
        hidden: Option<&Hidden>,
        judge: &Arc<dyn Judge>,
    ) -> Result<Answer, SearchError> {
        self.alone()?;
        let slot = self.begin(0, query, params, Some(Filter::Judged(Arc::clone(judge))), hidden)?;
        let answer = self.grow_judged(slot, params, judge);
        // The judge holds what this searcher belongs to.
        self.slots[slot].query.forget_filter();
        answer
    }

    fn grow_judged(&mut self, slot: usize, params: &SearchParams, judge: &Arc<dyn Judge>) -> Result<Answer, SearchError> {
        loop {
            let answer = self.finish(slot)?;
            let list_size = self.slots[slot].query.list_size();
            // As many that match as a list holds without a filter; a share of few says little, so the list grows by steps.
            let wanted = (params.list_size.max(params.k) as f64 / judge.share().max(1e-9)) as usize;
            let next = wanted.min(list_size * MOST_GROWTH).min(MAX_JUDGED_LIST).min(self.vectors());
            if !answer.complete || answer.stats.way == Way::Scan || next * 4 <= list_size * 5 {
                return Ok(answer);
            }
            self.resume(slot, next);
        }
    }

    /// The same over all nodes but those that are out of sight.
    pub(crate) fn search_beside(&mut self, query: &[f32], params: &SearchParams, hidden: Option<&Hidden>) -> Result<Answer, SearchError> {
        self.alone()?;
        let Some(hidden) = hidden else { return self.search(query, params) };
        let n = self.base.n();
        let wanted = hidden.from.saturating_sub(hidden.dead.len()).min(params.k as u64) as usize;
        let slot = self.begin(0, query, params, None, Some(hidden))?;
        let answer = self.finish(slot)?;
        if !answer.complete || answer.hits.len() >= wanted {
            return Ok(answer);
        }
        // Where many of the dead lie together a list may hold no others.
        let slot = self.begin(0, query, params, None, Some(hidden))?;
        self.slots[slot].query.keep_all(f32::INFINITY);
        loop {
            let mut answer = self.finish(slot)?;
            let (list_size, _) = self.slots[slot].query.reach();
            if !answer.complete || answer.hits.len() >= wanted || list_size as u64 >= n.min(MAX_LIST_SIZE as u64) {
                answer.hits.truncate(params.k);
                return Ok(answer);
            }
            self.resume(slot, list_size * 2);
        }
    }

    /// Every vector within `radius` (inclusive) of `query`, as far as a list of `params.list_size` that grows while half of it lies within leads
    /// to them; `params.k` is not looked at.
    ///
    /// # Errors
    /// As [`Searcher::search`].
    pub fn range(
        &mut self,
        query: &[f32],
        radius: f32,
        params: &SearchParams,
        filter: Option<&Arc<KeySet>>,
    ) -> Result<Answer, SearchError> {
        if radius.is_nan() {
            return Err(SearchError::Radius);
        }
        self.alone()?;
        let params = SearchParams { k: 1, ..*params };
        let slot = self.begin(0, query, &params, filter.cloned().map(Filter::Keys), None)?;
        self.slots[slot].query.keep_all(radius);
        loop {
            let answer = self.finish(slot)?;
            let (list_size, found) = self.slots[slot].query.reach();
            if !answer.complete || found * 2 < list_size || list_size >= MAX_LIST_SIZE.min(self.base.n() as usize) {
                return Ok(answer);
            }
            self.resume(slot, list_size * 2);
        }
    }

    /// Begins a search that can be gone on with: the first answer is `params.k` hits, and [`Searcher::more`] gives those after them.
    ///
    /// # Errors
    /// As [`Searcher::search`].
    pub(crate) fn begin_cursor(
        &mut self,
        query: &[f32],
        params: &SearchParams,
        filter: Option<&Arc<KeySet>>,
    ) -> Result<usize, SearchError> {
        self.alone()?;
        let slot = self.begin(0, query, params, filter.cloned().map(Filter::Keys), None)?;
        self.slots[slot].query.keep_all(f32::INFINITY);
        Ok(slot)
    }

    /// All that the search of `slot` ranked with a list of at least `list_size`, nearest first.
    pub(crate) fn more(&mut self, slot: usize, list_size: usize) -> Result<Answer, SearchError> {
        let place = &mut self.slots[slot];
        if place.active {
            place.query.lengthen(list_size);
        } else {
            self.resume(slot, list_size);
        }
        self.finish(slot)
    }

    /// Submits a query of which everything that its search looks at is noted; [`Searcher::take_trace`] gives it while [`Searcher::wait`] hands over
    /// the answer, or later.
    pub(crate) fn submit_traced(&mut self, tag: u64, query: &[f32], params: &SearchParams, trace: Trace) -> Result<(), SearchError> {
        let slot = self.begin(tag, query, params, None, None)?;
        self.slots[slot].query.note_pages(&self.base, query, trace);
        Ok(())
    }

    /// The notes on the ended query `tag`.
    pub(crate) fn take_trace(&mut self, tag: u64) -> Option<Trace> {
        self.slots.iter_mut().find(|slot| !slot.active && slot.query.tag == tag && slot.query.trace.is_some())?.query.trace.take()
    }

    /// Vectors of the index.
    pub(crate) fn vectors(&self) -> usize {
        usize::try_from(self.base.n()).unwrap_or(usize::MAX)
    }

    /// Submits a query; its answer comes from [`Searcher::wait`] under `tag`.
    ///
    /// # Errors
    /// A query or parameter that makes no sense; `Busy` where [`Searcher::has_room`] is false. Nothing is submitted then.
    pub fn submit(&mut self, tag: u64, query: &[f32], params: &SearchParams, filter: Option<&Arc<KeySet>>) -> Result<(), SearchError> {
        self.begin(tag, query, params, filter.cloned().map(Filter::Keys), None).map(|_| ())
    }

    /// Works until at least one query has ended, and hands every ended one to `done`, by its tag. Returns how many; 0 only when none is in flight.
    ///
    /// # Errors
    /// Those of the reader as a whole: no query goes on then, and none is answered. What stands against one query is its answer.
    pub fn wait(&mut self, done: &mut dyn FnMut(u64, Result<Answer, SearchError>)) -> Result<usize, SearchError> {
        loop {
            let mut ended = 0;
            while let Some(slot) = self.next_ready() {
                if let Some(outcome) = self.go_on(slot) {
                    ended += 1;
                    done(self.slots[slot].query.tag, outcome);
                }
            }
            if ended > 0 || self.in_flight() == 0 {
                return Ok(ended);
            }
            if let Err(error) = self.collect() {
                self.abandon();
                return Err(error);
            }
        }
    }

    /// A query that can go on, or one that begins where there is room for it.
    fn next_ready(&mut self) -> Option<usize> {
        if let Some(slot) = self.ready.pop_front() {
            self.slots[slot].ready = false;
            return Some(slot);
        }
        let slot = (self.running < RUNNING).then(|| self.waiting.pop_front())??;
        self.running += 1;
        let place = &mut self.slots[slot];
        place.started = true;
        place.query.start(&self.base, &mut self.scratch);
        Some(slot)
    }

    /// Refuses to mix a search of its own with submitted ones.
    fn alone(&self) -> Result<(), SearchError> {
        if self.in_flight() > 0 { Err(SearchError::Busy { in_flight: self.in_flight() }) } else { Ok(()) }
    }

    fn begin(
        &mut self,
        tag: u64,
        query: &[f32],
        params: &SearchParams,
        filter: Option<Filter>,
        hidden: Option<&Hidden>,
    ) -> Result<usize, SearchError> {
        params.check()?;
        let Some(&slot) = self.free.last() else { return Err(SearchError::Busy { in_flight: self.in_flight() }) };
        let place = &mut self.slots[slot];
        place.query.begin(&self.base, query, params, filter, hidden.cloned())?;
        place.query.tag = tag;
        self.free.pop();
        (place.active, place.started, place.failed) = (true, false, None);
        place.turn += 1;
        self.waiting.push_back(slot);
        Ok(slot)
    }

    /// Takes the ended query of `slot` up again with a longer list.
    fn resume(&mut self, slot: usize, list_size: usize) {
        self.free.retain(|&free| free != slot);
        let place = &mut self.slots[slot];
        place.query.go_on(&self.base, list_size);
        (place.active, place.started, place.ready, place.failed) = (true, true, true, None);
        place.turn += 1;
        self.running += 1;
        self.ready.push_back(slot);
    }

    /// Works until the only query has ended.
    fn finish(&mut self, slot: usize) -> Result<Answer, SearchError> {
        debug_assert!(self.slots[slot].active && self.in_flight() == 1);
        loop {
            let mut answer = None;
            self.wait(&mut |_, outcome| answer = Some(outcome))?;
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// Nothing that is in flight will be answered.
    fn abandon(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].active {
                self.end(slot);
            }
        }
        self.waiting.clear();
        self.ready.clear();
        self.starved.clear();
    }

    fn end(&mut self, slot: usize) {
        let place = &mut self.slots[slot];
        self.running -= usize::from(place.started);
        (place.active, place.started, place.ready) = (false, false, false);
        place.turn += 1;
        self.free.push(slot);
    }

    /// Reads that a query may have in flight now.
    fn width(&self, slot: usize) -> usize {
        let params = &self.slots[slot].query.params;
        if params.deterministic { params.beam_width } else { (DEPTH / self.running.max(1)).clamp(1, params.beam_width) }
    }

    /// Lets a query look at what is in RAM and ask for what is not; its outcome when it has ended.
    fn go_on(&mut self, slot: usize) -> Option<Result<Answer, SearchError>> {
        let outcome = match self.advance(slot) {
            // What is searched in RAM is not looked at before its end.
            Ok(true) => {
                let query = &mut self.slots[slot].query;
                let in_time = query.way != Way::Resident || !query.is_late();
                Ok(query.answer(in_time))
            }
            Ok(false) if self.slots[slot].query.is_late() => Ok(self.slots[slot].query.answer(false)),
            Ok(false) => return None,
            Err(error) => Err(error),
        };
        self.end(slot);
        Some(outcome)
    }

    /// True when the query has nothing left to do.
    fn advance(&mut self, slot: usize) -> Result<bool, SearchError> {
        let width = self.width(slot);
        let Searcher { base, reader, slots, starved, flights, .. } = self;
        let base = &**base;
        let Slot { query, turn, failed, .. } = &mut slots[slot];
        if let Some(error) = failed.take() {
            return Err(error);
        }
        if let (Way::Resident, Kept::All(pages)) = (query.way, &base.kept) {
            query.run_resident(base, pages);
        }
        loop {
            let exhausted = loop {
                if let (Kept::Some(cache), Way::Flash, false) = (&base.kept, query.way, query.params.deterministic) {
                    while let Some((page, kept)) = query.next_kept(base, cache) {
                        cache.note(page);
                        query.stats.cache_hits += 1;
                        let (first, live) = base.nodes_of(page, &kept);
                        query.arrive(base, page, first, live, &kept)?;
                    }
                }
                if query.waiting >= width {
                    break false;
                }
                if reader.in_flight() == reader.capacity() {
                    starved.push(slot);
                    break false;
                }
                let Some(page) = query.next_page(base) else { break true };
                if let Kept::All(pages) = &base.kept {
                    query.stats.cache_hits += 1;
                    let guard = crossbeam_epoch::pin();
                    let kept = pages.page(page, &guard);
                    let (first, live) = base.nodes_of(page, kept);
                    query.arrive(base, page, first, live, kept)?;
                    continue;
                }
                if let Kept::Some(cache) = &base.kept {
                    cache.note(page);
                    if let Some(kept) = cache.get(page).filter(|kept| base.is_fresh(page, kept)) {
                        query.stats.cache_hits += 1;
                        let (first, live) = base.nodes_of(page, &kept);
                        query.arrive(base, page, first, live, &kept)?;
                        continue;
                    }
                }
                match flights.of(page) {
                    Some(flight) => {
                        query.stats.cache_hits += 1;
                        flights.waiting[flight].push((slot, *turn));
                    }
                    None => {
                        let Some(flight) = flights.free.pop() else { unreachable!("a flight for every read that the reader has room for") };
                        if let Err(error) = reader.submit(page, flight as u64) {
                            flights.free.push(flight);
                            return Err(error.into());
                        }
                        query.stats.reads += 1;
                        flights.pages[flight] = page;
                        flights.waiting[flight].push((slot, *turn));
                    }
                }
            };
            if query.params.deterministic && query.take_turn(base)? {
                continue;
            }
            if !exhausted || query.waiting > 0 {
                return Ok(false);
            }
            if !query.is_short() {
                return Ok(true);
            }
            query.scan_instead(base)?;
        }
    }

    /// Sends off what was asked for, waits for the device, and brings what it gives to those who wait for it.
    fn collect(&mut self) -> Result<(), SearchError> {
        let Searcher { base, reader, slots, ready, starved, flights, .. } = self;
        let mut again = Vec::new();
        reader.wait(&mut |completion| {
            let (flight, page) = (completion.tag as usize, completion.page);
            let mut checked = completion.bytes.map_err(SearchError::from).and_then(|bytes| {
                let (first, live) = base.check_page(page, bytes)?;
                Ok((first, live, bytes))
            });
            // A page that was read while it was being written.
            let is_old = match &checked {
                Ok((.., bytes)) => !base.is_fresh(page, bytes),
                Err(SearchError::Format(_)) => base.live.is_some(),
                Err(_) => false,
            };
            if is_old && flights.rereads[flight] < REREADS {
                flights.rereads[flight] += 1;
                return again.push((page, flight));
            }
            if is_old && checked.is_ok() {
                checked = Err(base.stays_old(page).into());
            }
            flights.rereads[flight] = 0;
            if let (Kept::Some(cache), Ok((.., bytes))) = (&base.kept, &checked) {
                cache.offer(page, bytes);
            }
            let mut waiting = std::mem::take(&mut flights.waiting[flight]);
            flights.pages[flight] = NONE;
            flights.free.push(flight);
            for (slot, turn) in waiting.drain(..) {
                let place = &mut slots[slot];
                if !place.active || place.turn != turn {
                    continue;
                }
                let arrived = match &checked {
                    Ok((first, live, bytes)) => place.query.arrive(base, page, *first, *live, bytes),
                    Err(error) => Err(error.again()),
                };
                if let Err(error) = arrived {
                    place.failed.get_or_insert(error);
                }
                if !place.ready {
                    place.ready = true;
                    ready.push_back(slot);
                }
            }
            flights.waiting[flight] = waiting;
        })?;
        for (page, flight) in again {
            reader.submit(page, flight as u64)?;
        }
        for slot in starved.drain(..) {
            let place = &mut slots[slot];
            if place.active && !place.ready {
                place.ready = true;
                ready.push_back(slot);
            }
        }
        Ok(())
    }
}

impl Drop for Searcher {
    fn drop(&mut self) {
        self.base.allowance.give_back(self.bytes);
    }
}
