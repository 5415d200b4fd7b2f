//! Searches of a collection: of its base and of the vectors in memory, as one.

use super::{Collection, CollectionError, Found, PointHit, PointKey, Snapshot, delta, locked, store::Store};
use crate::{Answer, SearchParams};
use roxanne_core::{neighbor::Distance, search::TopK};
use std::time::Instant;

/// Bytes of vectors that a search looks at which is over at once.
const LOOKED_AT: usize = 4 << 20;

impl Collection {
    /// The nearest points to `query` `[dim]`. A deadline and a slack hold for the base; vectors in memory are searched with the list.
    ///
    /// # Errors
    /// A query or parameter that makes no sense; a failing disk; corruption.
    pub fn search(&self, query: &[f32], params: &SearchParams) -> Result<Found, CollectionError> {
        let (start, row) = (Instant::now(), self.row_of(query, params)?);
        let snapshot = self.inner().snapshot.load_full();
        let answer = snapshot.base.as_ref().map(|base| base.search_beside(query, params, &snapshot.hidden)).transpose()?;
        self.beside(&snapshot, answer, &row, params, start)
    }

    /// The same where it is over within about a millisecond, for threads that others wait for: all pages are in memory, a searcher is free, and little
    /// is looked at. `None` where it is not so.
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn search_at_once(&self, query: &[f32], params: &SearchParams) -> Result<Option<Found>, CollectionError> {
        let (start, row) = (Instant::now(), self.row_of(query, params)?);
        let snapshot = self.inner().snapshot.load_full();
        let degree = snapshot.base.as_ref().map_or(0, |base| base.info().max_degree);
        let most = params.list_size.max(params.k).saturating_mul(degree + delta::DEGREE).saturating_add(2 * delta::SCANNED as usize);
        let unlinked = snapshot.len.saturating_sub(snapshot.delta.linked());
        let is_short = most.saturating_mul(row.len()) <= LOOKED_AT
            && unlinked <= delta::SCANNED
            && snapshot.delta_dead.len() <= u64::from(delta::SCANNED);
        if !is_short {
            return Ok(None);
        }
        let answer = match &snapshot.base {
            None => None,
            Some(base) => match base.search_beside_at_once(query, params, &snapshot.hidden)? {
                None => return Ok(None),
                answer => answer,
            },
        };
        self.beside(&snapshot, answer, &row, params, start).map(Some)
    }

    /// A query as rows are stored, where it and its parameters make sense.
    fn row_of(&self, query: &[f32], params: &SearchParams) -> Result<Box<[u8]>, CollectionError> {
        let row = self.inner().config.row(query).map_err(CollectionError::Query)?;
        params.check()?;
        Ok(row)
    }

    /// What the base answered, and what is near of the vectors in memory.
    fn beside(
        &self,
        snapshot: &Snapshot,
        answer: Option<Answer>,
        row: &[u8],
        params: &SearchParams,
        start: Instant,
    ) -> Result<Found, CollectionError> {
        let inner = self.inner();
        let mut search = locked(&inner.searches).pop().unwrap_or_default();
        let mut top = TopK::new(params.k);
        let mut is_dead = |slot: u32| snapshot.delta_dead.contains(slot);
        let wanted = params.list_size.max(params.k);
        let distances = snapshot.delta.search(row, snapshot.len, wanted, &mut search, &mut is_dead, |distance, slot| {
            top.offer((distance, &snapshot.delta.slot(slot).key));
        });
        locked(&inner.searches).push(search);
        let mut found = snapshot.found(&inner.store, answer, top, params.k)?;
        found.stats.distances += distances;
        found.stats.micros = start.elapsed().as_micros() as u64;
        Ok(found)
    }

    /// The exact `k` nearest, by comparing with every vector: what all else is measured against.
    ///
    /// # Errors
    /// As [`Collection::search`].
    pub fn exact(&self, query: &[f32], k: usize) -> Result<Found, CollectionError> {
        self.exact_until(query, k, None)
    }

    /// The same, where it has ended at `until`.
    ///
    /// # Errors
    /// As [`Collection::exact`]; [`SearchError::Late`](crate::SearchError::Late).
    pub fn exact_until(&self, query: &[f32], k: usize, until: Option<Instant>) -> Result<Found, CollectionError> {
        let (inner, start) = (self.inner(), Instant::now());
        let row = inner.config.row(query).map_err(CollectionError::Query)?;
        SearchParams { k, ..SearchParams::default() }.check()?;
        let snapshot = inner.snapshot.load_full();
        let answer = snapshot.base.as_ref().map(|base| base.exact_beside(query, k, &snapshot.hidden, None, until)).transpose()?;
        let mut top = TopK::new(k);
        for slot in (0..snapshot.len).filter(|&slot| !snapshot.delta_dead.contains(slot)) {
            top.offer((snapshot.delta.distance(&row, slot), &snapshot.delta.slot(slot).key));
        }
        let mut found = snapshot.found(&inner.store, answer, top, k)?;
        found.stats.distances += u64::from(snapshot.len);
        found.stats.micros = start.elapsed().as_micros() as u64;
        Ok(found)
    }
}

impl Snapshot {
    /// What base and delta found, as one.
    pub(super) fn found(
        &self,
        store: &Store,
        answer: Option<Answer>,
        top: TopK<(Distance, &PointKey)>,
        k: usize,
    ) -> Result<Found, CollectionError> {
        let mut near: Vec<(Distance, PointKey)> = Vec::new();
        let mut found = Found { sequence: self.sequence, complete: true, ..Found::default() };
        if let Some((answer, base)) = answer.zip(self.base.as_ref()) {
            (found.complete, found.stats) = (answer.complete, answer.stats);
            for hit in answer.hits {
                near.push((Distance(hit.distance), store.key_in(base, hit.key)?));
            }
        }
        let mut top = top;
        near.extend(top.drain_sorted().into_iter().map(|(distance, key)| (distance, key.clone())));
        near.sort_unstable();
        near.truncate(k);
        found.hits = near.into_iter().map(|(distance, key)| PointHit { key, distance: distance.0 }).collect();
        Ok(found)
    }
}
