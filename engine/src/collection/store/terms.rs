//! Terms: by which scalars of their payloads points are found. They are written with the point, in its batch.

use super::{
    super::filter::{self, Place, Term},
    Batch, CollectionError, IteratorMode, META, Moment, POINTS, PointKey, Store, TERMS,
};
use std::{
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

/// How long, and of how many runs of terms, it is remembered that they are long.
const LONG_FOR: Duration = Duration::from_secs(10);
const LONG_ONES: usize = 4096;
/// Bytes of terms that are made between two commits.
const TERMS_AT_ONCE: usize = 16 << 20;

impl Store {
    /// The payload that a change of `key` in this batch replaces; empty where its terms do not count.
    pub(in super::super) fn payload_before(&self, batch: &Batch, key: &[u8]) -> Result<String, CollectionError> {
        if !self.has_terms.load(Relaxed) {
            return Ok(String::new());
        }
        if let Some(payload) = batch.1.get(key) {
            return Ok(payload.clone());
        }
        self.payload(key)
    }

    pub(super) fn change_terms(&self, batch: &mut Batch, key: &[u8], old: &str, new: &str) {
        if old != new {
            let (before, after) = (filter::terms_of(old), filter::terms_of(new));
            let place = |term: &Term| [term.bytes(), key].concat();
            let only_in = |a: &[Term], b: &[Term]| a.iter().filter(|term| b.binary_search(term).is_err()).map(place).collect::<Vec<_>>();
            only_in(&before, &after).into_iter().for_each(|term| batch.0.delete_cf(self.family(TERMS), term));
            only_in(&after, &before).into_iter().for_each(|term| batch.0.put_cf(self.family(TERMS), term, b""));
            self.has_terms.fetch_or(!after.is_empty(), Relaxed);
        }
        if self.has_terms.load(Relaxed) {
            batch.1.insert(key.to_vec(), new.to_string());
        }
    }

    /// Makes the terms of all payloads, for a store that was made before there were any.
    pub(super) fn make_terms(&self) -> Result<(), CollectionError> {
        let mut batch = Batch::default();
        for entry in self.db.iterator_cf(self.family(POINTS), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            self.change_terms(&mut batch, &key, "", &self.parse_point(&key, &value)?.1);
            batch.1.clear();
            if batch.0.size_in_bytes() > TERMS_AT_ONCE {
                self.commit(std::mem::take(&mut batch)).map_err(|error| self.failed(&error))?;
            }
        }
        batch.0.put_cf(self.family(META), TERMS, "");
        self.commit(batch).map_err(|error| self.failed(&error))
    }

    /// Proves that terms are those of the payloads, and no others; gives how many there are.
    pub(in super::super) fn check_terms(&self) -> Result<u64, CollectionError> {
        let (mut said, mut kept) = (0, 0);
        for entry in self.db.iterator_cf(self.family(POINTS), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            for term in filter::terms_of(&self.parse_point(&key, &value)?.1) {
                let there =
                    self.db.get_pinned_cf(self.family(TERMS), [term.bytes(), &key].concat()).map_err(|error| self.failed(&error))?;
                if there.is_none() {
                    return Err(self.damaged(format!("key {key:?} is not among those of a value in its payload")));
                }
                said += 1;
            }
        }
        for entry in self.db.iterator_cf(self.family(TERMS), IteratorMode::Start) {
            entry.map_err(|error| self.failed(&error))?;
            kept += 1;
        }
        if said == kept { Ok(kept) } else { Err(self.damaged(format!("{kept} values of payloads are listed, payloads have {said}"))) }
    }

    /// Whether a run of terms was found longer than `most` a short time ago.
    fn is_long(&self, first: &Term, last: &Term, most: usize) -> bool {
        let long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        long.get(&(*first, *last)).is_some_and(|(length, at)| *length > most && at.elapsed() < LONG_FOR)
    }

    fn was_long(&self, first: &Term, last: &Term, length: usize) {
        let mut long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        if long.len() >= LONG_ONES {
            long.clear();
        }
        let length = long.get(&(*first, *last)).map_or(length, |known| known.0.max(length));
        long.insert((*first, *last), (length, Instant::now()));
    }
}

impl Moment<'_> {
    /// The keys at all of these places, each once; `None` where they are more than `most`, or not known.
    pub(in super::super) fn keys_at(&self, places: &[Place], most: usize) -> Result<Option<Vec<Vec<u8>>>, CollectionError> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        if self.get(META, TERMS.as_bytes())?.is_none() {
            return Ok(None);
        }
        for place in places {
            match place {
                Place::Keys(named) => keys.extend(named.iter().map(PointKey::to_bytes)),
                Place::Terms(first, last) => {
                    if self.store.is_long(first, last, most) {
                        return Ok(None);
                    }
                    let before = keys.len();
                    let from = IteratorMode::From(first.bytes(), rocksdb::Direction::Forward);
                    for entry in self.iterator(TERMS, from) {
                        let (at, _) = entry.map_err(|error| self.store.failed(&error))?;
                        let Some((term, key)) = at.split_at_checked(Term::BYTES) else {
                            return Err(self.store.damaged(format!("a term of {} bytes", at.len())));
                        };
                        if term > last.bytes() {
                            break;
                        }
                        keys.push(key.to_vec());
                        if keys.len() > most {
                            self.store.was_long(first, last, keys.len() - before);
                            return Ok(None);
                        }
                    }
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Some(keys).filter(|keys| keys.len() <= most))
    }
}
