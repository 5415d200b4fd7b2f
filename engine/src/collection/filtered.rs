//! Searches under a filter by payload.
//!
//! The store keeps for every scalar of a payload the keys that have it, in order. So a filter is first asked for the shortest list of all that may
//! pass. Where it is short, each of its points is judged by its payload, and those that pass are ranked by their codes, the best of them read: one
//! finds them however far they lie. Else the graph is walked, and what is near enough to be returned is judged by its payload; the list grows
//! with the share that passes, as it was met, so that as many pass as a list holds without a filter. What comes home with fewer than `k` is
//! searched for again in a longer list, then by reading all, unless a deadline stands against that: nothing is silently missing, and nothing is
//! returned unjudged.
//!
//! Lists in the store and not bitmaps in memory: a point costs no memory by its payload, its terms are written with it in one batch, and a list that
//! is longer than a walk would take is not read on.
//!
//! Payloads are those of the moment of the search, which may be later than the snapshot by a batch.

use super::{
    Collection, CollectionError, Filter, Found, Inner, PointKey, Snapshot,
    keys::node_of,
    locked,
    publish::name_of,
    store::{Moment, NO_NODE},
};
use crate::{
    Index, SearchError, SearchParams, SearchStats,
    exact::{each_page, in_time},
    key_set::Judge,
};
use roxanne_core::{
    format::keys::{KeyName, Keys},
    id::{Key, NodeId},
    search::TopK,
};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Times that a merge may come between two looks.
const MOST_LOOKS: usize = 1000;
/// Points that are judged one by one before a search, at most.
const MOST_JUDGED: usize = 1 << 14;
/// And where a walk came home short, before all are read.
const MOST_LISTED: usize = 1 << 17;
/// What judging a point before a search costs, in candidates of a walk: only the ratio counts. From figures of half a million points (bench/RESULTS.md).
const JUDGED_PER_CANDIDATE: f64 = 5.0;

/// How many that may pass are fewer than a walk with a list of `list_size` among `n` points would look at: it needs a list longer by the share that
/// passes.
fn few(list_size: usize, n: u64) -> usize {
    ((JUDGED_PER_CANDIDATE * list_size as f64 * n as f64).sqrt() as usize).min(MOST_JUDGED)
}

/// Which points pass.
enum Passing {
    /// These, and where the base holds some.
    These(HashSet<PointKey>, Arc<Nodes>),
    /// Who is to be judged when met.
    Judged(Arc<PayloadJudge>),
}

/// Nodes of the base, in order.
struct Nodes(Vec<NodeId>);

impl Judge for Nodes {
    fn admits(&self, _: Key, node: NodeId) -> bool {
        self.0.binary_search(&node).is_ok()
    }

    fn nodes(&self) -> Option<&[NodeId]> {
        Some(&self.0)
    }

    fn share(&self) -> f64 {
        1.0
    }
}

/// Looks payloads up.
struct PayloadJudge {
    inner: Arc<Inner>,
    base: Option<Index>,
    filter: Filter,
    asked: AtomicU64,
    passed: AtomicU64,
    /// What went wrong first: then nothing passes, and the search fails.
    error: Mutex<Option<CollectionError>>,
}

impl PayloadJudge {
    fn passes(&self, key: &PointKey) -> Result<bool, CollectionError> {
        // One that was deleted since the snapshot says nothing of itself any more.
        let payload = self.inner.store.live_payload(&key.to_bytes())?;
        Ok(payload.is_some_and(|payload| self.filter.passes(key, &payload)))
    }

    fn passes_in_base(&self, key: Key) -> Result<bool, CollectionError> {
        let Some(base) = &self.base else { return Ok(false) };
        self.passes(&self.inner.store.key_in(base, key)?)
    }

    /// Hands over what went wrong.
    fn check(&self) -> Result<(), CollectionError> {
        locked(&self.error).take().map_or(Ok(()), Err)
    }
}

impl Judge for PayloadJudge {
    fn admits(&self, key: Key, _: NodeId) -> bool {
        let passes = self.passes_in_base(key).unwrap_or_else(|error| {
            locked(&self.error).get_or_insert(error);
            false
        });
        self.asked.fetch_add(1, Relaxed);
        self.passed.fetch_add(u64::from(passes), Relaxed);
        passes
    }

    fn nodes(&self) -> Option<&[NodeId]> {
        None
    }

    fn share(&self) -> f64 {
        // As if one had passed, lest a few that do not say that none does.
        (self.passed.load(Relaxed) + 1) as f64 / (self.asked.load(Relaxed) + 1) as f64
    }
}

impl Collection {
    /// The nearest points to `query` `[dim]` among those that pass `filter`: fewer than `k` only when fewer pass, or where a deadline stood
    /// against looking at all (`complete` is then false).
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn search_filtered(&self, query: &[f32], params: &SearchParams, filter: &Filter) -> Result<Found, CollectionError> {
        params.check()?;
        self.find(query, params, filter, None)
    }

    /// The exact `k` nearest among those that pass `filter`.
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn exact_filtered(&self, query: &[f32], k: usize, filter: &Filter) -> Result<Found, CollectionError> {
        self.exact_filtered_until(query, k, filter, None)
    }

    /// The same, where it has ended at `until`.
    ///
    /// # Errors
    /// As [`Collection::exact_until`].
    pub fn exact_filtered_until(&self, query: &[f32], k: usize, filter: &Filter, until: Option<Instant>) -> Result<Found, CollectionError> {
        let params = SearchParams { k, ..SearchParams::default() };
        params.check()?;
        self.find(query, &params, filter, Some(until))
    }

    /// `exact` says that all are to be compared, and until when.
    fn find(
        &self,
        query: &[f32],
        params: &SearchParams,
        filter: &Filter,
        exact: Option<Option<Instant>>,
    ) -> Result<Found, CollectionError> {
        let (start, n) = (Instant::now(), self.count());
        let first = few(params.list_size.max(params.k), n);
        let mut found = self.find_among(query, params, filter, exact, first, false)?;
        if !found.complete && params.deadline.is_none() {
            // A longer list is still shorter than all.
            let most = usize::try_from(n / 8).unwrap_or(usize::MAX).clamp(MOST_JUDGED, MOST_LISTED);
            let SearchStats { reads, distances, .. } = found.stats;
            found = self.find_among(query, params, filter, exact, most, true)?;
            found.stats.reads += reads;
            found.stats.distances += distances;
        }
        found.stats.micros = start.elapsed().as_micros() as u64;
        Ok(found)
    }

    /// What [`Collection::find`] finds where no more than `most` are judged before the search; not complete where a walk came home short. The `last`
    /// way is no walk: without a list that is short enough all are read.
    fn find_among(
        &self,
        query: &[f32],
        params: &SearchParams,
        filter: &Filter,
        exact: Option<Option<Instant>>,
        most: usize,
        last: bool,
    ) -> Result<Found, CollectionError> {
        let inner = self.inner();
        let row = inner.config.row(query).map_err(CollectionError::Query)?;
        let (snapshot, passing) = inner.passing(filter, most)?;
        let judge: Arc<dyn Judge> = match &passing {
            Passing::These(_, nodes) => Arc::clone(nodes) as _,
            Passing::Judged(judge) => Arc::clone(judge) as _,
        };
        let mut answer = match &snapshot.base {
            // Nothing that passes is there.
            Some(_) if judge.nodes().is_some_and(<[NodeId]>::is_empty) => None,
            Some(base) if exact.is_some() || (last && judge.nodes().is_none()) => {
                Some(base.exact_beside(query, params.k, &snapshot.hidden, Some(&judge), exact.flatten())?)
            }
            Some(base) => Some(base.search_judged(query, params, &snapshot.hidden, &judge)?),
            None => None,
        };
        if let (Some(found), Passing::Judged(judge)) = (&mut answer, &passing) {
            judge.check()?;
            found.complete &= exact.is_some() || last || found.hits.len() >= params.k;
        }
        let mut top = TopK::new(params.k);
        for slot in (0..snapshot.len).filter(|&slot| !snapshot.delta_dead.contains(slot)) {
            let key = &snapshot.delta.slot(slot).key;
            if let Passing::These(keys, _) = &passing
                && !keys.contains(key)
            {
                continue;
            }
            let item = (snapshot.delta.distance(&row, slot), key);
            if !top.admits(&item) {
                continue;
            }
            if let Passing::Judged(judge) = &passing
                && !judge.passes(key)?
            {
                continue;
            }
            top.offer(item);
        }
        let mut found = snapshot.found(&inner.store, answer, top, params.k)?;
        found.stats.distances += u64::from(snapshot.len);
        Ok(found)
    }

    /// Live points behind the key `after`, in the order of keys, each with its payload: at most `limit` of those that pass `filter`.
    ///
    /// # Errors
    /// A failing disk; corruption.
    pub fn scroll(
        &self,
        after: Option<&PointKey>,
        limit: usize,
        filter: Option<&Filter>,
    ) -> Result<Vec<(PointKey, String)>, CollectionError> {
        self.scroll_until(after, limit, filter, None)
    }

    /// The same, where it has ended at `until`.
    ///
    /// # Errors
    /// As [`Collection::exact_until`].
    pub fn scroll_until(
        &self,
        after: Option<&PointKey>,
        limit: usize,
        filter: Option<&Filter>,
        until: Option<Instant>,
    ) -> Result<Vec<(PointKey, String)>, CollectionError> {
        let inner = self.inner();
        let kind = inner.config.keys;
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        let (snapshot, moment) = inner.moment()?;
        let key_of = |bytes: &[u8]| {
            PointKey::from_bytes(kind, bytes).ok_or_else(|| inner.store.damaged(format!("a point of a key of {} bytes", bytes.len())))
        };
        let is_behind = |key: &PointKey| after.is_none_or(|after| key > after);
        if let Some(filter) = filter
            && let Some(keys) = short_list(&moment, filter, MOST_JUDGED)?
        {
            for bytes in keys {
                let key = key_of(&bytes)?;
                if found.len() == limit {
                    break;
                }
                if !is_behind(&key) {
                    continue;
                }
                let Some(payload) = moment.live_payload(&bytes)? else { continue };
                if filter.passes(&key, &payload)
                    && (moment.has_point(&bytes)? || inner.visible(&snapshot, &moment, &bytes, &key)?.is_some())
                {
                    found.push((key, payload));
                }
            }
            return Ok(found);
        }
        // Those written here and those that were built into the base, as one.
        let first = after.map(PointKey::to_bytes).unwrap_or_default();
        let mut written = moment.points_from(&first).map(|entry| entry.and_then(|(bytes, payload)| Ok((key_of(&bytes)?, payload))));
        let mut here = written.next().transpose()?;
        let built = snapshot.base.as_ref().map(Index::keys);
        let name = |key: &PointKey| match key {
            PointKey::Number(number) => KeyName::Number(*number),
            PointKey::Text(text) => KeyName::Text(text.to_string()),
        };
        let places = built.map_or(0, Keys::len);
        let mut place = match (built, after) {
            (Some(keys), Some(after)) => keys.place_from(&name(after)).map_err(SearchError::from)?,
            _ => 0,
        };
        while found.len() < limit {
            in_time(until)?;
            let there = match built.filter(|_| place < places) {
                None => None,
                Some(keys) => Some(match keys.key_at(place).map_err(SearchError::from)?.0 {
                    KeyName::Number(number) => PointKey::Number(number),
                    KeyName::Text(text) => PointKey::Text(text.into()),
                }),
            };
            let (key, payload) = match (here.take(), there) {
                (None, None) => break,
                (Some(point), there) if there.as_ref().is_none_or(|there| point.0 <= *there) => {
                    place += u64::from(there.as_ref() == Some(&point.0));
                    here = written.next().transpose()?;
                    point
                }
                (point, there) => {
                    here = point;
                    place += 1;
                    let Some(there) = there else { continue };
                    let bytes = there.to_bytes();
                    if inner.visible(&snapshot, &moment, &bytes, &there)?.is_none() || moment.live_payload(&bytes)?.is_none() {
                        continue;
                    }
                    (there, String::new())
                }
            };
            if is_behind(&key) && filter.is_none_or(|filter| filter.passes(&key, &payload)) {
                found.push((key, payload));
            }
        }
        Ok(found)
    }

    /// How many live points pass `filter`: by looking at all, where it leads to no short list.
    ///
    /// # Errors
    /// A failing disk; corruption.
    pub fn count_filtered(&self, filter: &Filter) -> Result<u64, CollectionError> {
        self.count_filtered_until(filter, None)
    }

    /// The same, where it has ended at `until`.
    ///
    /// # Errors
    /// As [`Collection::exact_until`].
    pub fn count_filtered_until(&self, filter: &Filter, until: Option<Instant>) -> Result<u64, CollectionError> {
        let (snapshot, passing) = self.inner().passing(filter, MOST_JUDGED)?;
        let live = || (0..snapshot.len).filter(|&slot| !snapshot.delta_dead.contains(slot)).map(|slot| &snapshot.delta.slot(slot).key);
        match &passing {
            Passing::These(keys, nodes) => Ok(nodes.0.len() as u64 + live().filter(|key| keys.contains(*key)).count() as u64),
            Passing::Judged(judge) => {
                let mut count = 0;
                if let Some(index) = &snapshot.base {
                    let base = &*index.base;
                    each_page(base, snapshot.hidden.from, &mut |_, (first, nodes), page| {
                        in_time(until)?;
                        for at in 0..nodes {
                            let record = base.layout.record(page, at);
                            if base.is_used(record) && !snapshot.hidden.contains((first + at as u64) as u32) {
                                count += u64::from(judge.passes_in_base(record.key())?);
                            }
                        }
                        Ok::<(), CollectionError>(())
                    })?;
                }
                for key in live() {
                    count += u64::from(judge.passes(key)?);
                }
                Ok(count)
            }
        }
    }
}

/// The keys of all that may pass, where the store has a list of no more than `most` of them.
fn short_list(moment: &Moment<'_>, filter: &Filter, most: usize) -> Result<Option<Vec<Vec<u8>>>, CollectionError> {
    let mut shortest: Option<Vec<Vec<u8>>> = None;
    for way in filter.ways() {
        shortest = moment.keys_at(&way, shortest.as_ref().map_or(most, Vec::len))?.or(shortest);
    }
    Ok(shortest)
}

impl Inner {
    /// A snapshot and a moment of the store that speak of the same nodes.
    fn moment(&self) -> Result<(Arc<Snapshot>, Moment<'_>), CollectionError> {
        for _ in 0..MOST_LOOKS {
            let (snapshot, moment) = (self.snapshot.load_full(), self.store.moment());
            if moment.base()? == (snapshot.base.as_ref().map(name_of), snapshot.merged) {
                return Ok((snapshot, moment));
            }
            if self.options.read_only && self.follower.is_none() {
                return Err(self.is_behind());
            }
            // The store is a moment ahead, and the snapshot about to follow.
            drop(moment);
            drop(snapshot);
            locked(&self.writer).check(&self.path)?;
        }
        Err(self.is_behind())
    }

    /// The node of a key that a search of `snapshot` may find.
    fn visible(&self, snapshot: &Snapshot, moment: &Moment<'_>, bytes: &[u8], key: &PointKey) -> Result<Option<NodeId>, CollectionError> {
        let node = match moment.node_of(bytes)? {
            Some(node) => Some(node).filter(|&node| node != NO_NODE),
            None => node_of(snapshot.base.as_ref(), key)?,
        };
        Ok(node.filter(|&node| !snapshot.hidden.contains(node)).map(NodeId))
    }

    /// A snapshot, and which of its points pass: no more than `most` are judged for it.
    fn passing(self: &Arc<Inner>, filter: &Filter, most: usize) -> Result<(Arc<Snapshot>, Passing), CollectionError> {
        let (snapshot, moment) = self.moment()?;
        if let Some(keys) = short_list(&moment, filter, most)? {
            let (mut passing, mut nodes) = (HashSet::new(), Vec::new());
            for bytes in keys {
                let Some(key) = PointKey::from_bytes(self.config.keys, &bytes) else {
                    return Err(self.store.damaged(format!("a term of a key of {} bytes", bytes.len())));
                };
                if !moment.live_payload(&bytes)?.is_some_and(|payload| filter.passes(&key, &payload)) {
                    continue;
                }
                nodes.extend(self.visible(&snapshot, &moment, &bytes, &key)?);
                passing.insert(key);
            }
            nodes.sort_unstable();
            return Ok((snapshot, Passing::These(passing, Arc::new(Nodes(nodes)))));
        }
        drop(moment);
        let judge = PayloadJudge {
            inner: Arc::clone(self),
            base: snapshot.base.clone(),
            filter: filter.clone(),
            asked: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            error: Mutex::default(),
        };
        Ok((snapshot, Passing::Judged(Arc::new(judge))))
    }
}
