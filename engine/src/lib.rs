//! An index generation in, answers out: codes and navigation graph in RAM, everything else read from flash as it is needed.
//!
//! ```no_run
//! use roxanne_core::Budget;
//! use roxanne_engine::{Index, SearchParams};
//! let index = Index::open("my.rx", Budget::ram(1 << 30))?;
//! let answer = index.search(&[0.5; 128], &SearchParams { k: 10, list_size: 64, ..SearchParams::default() })?;
//! for hit in answer.hits {
//!     println!("{} at {}", hit.key, hit.distance);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! `base` is a generation, opened, and `kept` what of its pages is in RAM; `query` is a query on its way, and `searcher` runs many of them on one
//! thread, reading pages through [`io`].

mod base;
mod bits;
pub mod collection;
mod cursor;
pub mod disk;
mod error;
mod exact;
mod gate;
pub mod io;
mod kept;
mod key_set;
mod live;
mod live_pages;
mod params;
mod query;
mod ranker;
mod searcher;
mod spaces;
mod trace;
mod tuned;
pub mod verify;

pub use base::{IndexInfo, OpenOptions};
pub use cursor::Cursor;
pub use error::{OpenError, SearchError};
pub use key_set::KeySet;
pub use params::{Answer, Hit, SearchParams, SearchStats, Way};
pub use roxanne_core::Budget;
pub use searcher::{MAX_IN_FLIGHT, Searcher};
pub use tuned::{CALIBRATION_FILE, Calibration, WARM_FILE};

use base::Base;
use bits::Hidden;
use key_set::{Filter, Judge};
use live::MakeRoom;
use roxanne_core::{
    format::keys::Keys,
    id::{Key, NodeId},
    random::CounterRng,
};
use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Instant,
};

/// Dead nodes beside which a search is as short as without them.
const FEW_DEAD: u64 = 1024;

/// An opened index. Cheap to clone; every thread may search it.
#[derive(Clone)]
pub struct Index {
    base: Arc<Base>,
    idle: Arc<Idle>,
}

/// Searchers that wait for the next search, and searches that wait for a searcher.
#[derive(Default)]
struct Idle {
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    searchers: Vec<Searcher>,
    /// Those that work.
    out: usize,
}

impl Idle {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Nothing under this lock can panic.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node of an index, as its record has it.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// Its number.
    pub id: NodeId,
    /// What it is called.
    pub key: Key,
    /// The vector: raw coordinates of [`IndexInfo::element`], or a byte a coordinate ([`IndexInfo::stored`]).
    pub vector: &'a [u8],
    /// The nodes that its edges lead to.
    pub neighbors: &'a [NodeId],
}

impl Index {
    /// Opens the directory of a generation within `budget`.
    ///
    /// # Errors
    /// No index, a damaged or newer one, or one whose codes do not fit `budget.ram`.
    pub fn open(path: impl AsRef<Path>, budget: Budget) -> Result<Index, OpenError> {
        Index::open_with(path, &OpenOptions { budget, ..OpenOptions::default() })
    }

    /// The same with every choice.
    ///
    /// # Errors
    /// As [`Index::open`]; also when the reader is not to be had.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Index, OpenError> {
        Ok(Index { base: Arc::new(Base::open(path.as_ref(), options)?), idle: Arc::default() })
    }

    /// The same in memory for whose codes room is made as they come, see [`Base::open_in`].
    pub(crate) fn open_in(path: &Path, options: &OpenOptions, make_room: &mut MakeRoom<'_>) -> Result<Index, OpenError> {
        Ok(Index { base: Arc::new(Base::open_in(path, options, make_room)?), idle: Arc::default() })
    }

    /// What it is.
    pub fn info(&self) -> &IndexInfo {
        &self.base.info
    }

    /// Which slack gives which recall, where `roxanne tune` has measured it.
    ///
    /// # Errors
    /// A damaged file.
    pub fn calibration(&self) -> Result<Option<Calibration>, OpenError> {
        Ok(Calibration::read(&self.base.info.path, self.base.info.generation)?)
    }

    /// Keeps for the next opening how often each page was wanted, lately; false without a cache, which alone counts it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remember_pages(&self) -> Result<bool, OpenError> {
        let kept::Kept::Some(cache) = &self.base.kept else { return Ok(false) };
        tuned::write_warm(&self.base.info.path, self.base.info.generation, &cache.counts())?;
        Ok(true)
    }

    /// A searcher of one's own for one query at a time: the way to search from many threads without meeting a lock.
    ///
    /// # Errors
    /// The reader could not be set up, or the budget is spent.
    pub fn searcher(&self) -> Result<Searcher, SearchError> {
        self.searcher_of(1)
    }

    /// A searcher that takes up to `in_flight` (at most [`MAX_IN_FLIGHT`]) queries at a time.
    ///
    /// # Errors
    /// As [`Index::searcher`].
    pub fn searcher_of(&self, in_flight: usize) -> Result<Searcher, SearchError> {
        Searcher::new(Arc::clone(&self.base), in_flight)
    }

    /// A searcher over a reader that `wrap` makes of the usual one: the way faults come into tests.
    ///
    /// # Errors
    /// As [`Index::searcher`].
    #[cfg(any(test, feature = "faulty"))]
    pub fn searcher_with(
        &self,
        in_flight: usize,
        wrap: impl FnOnce(Box<dyn io::NodeReader>, &Arc<io::PageFile>) -> Box<dyn io::NodeReader>,
    ) -> Result<Searcher, SearchError> {
        Searcher::wrapped(Arc::clone(&self.base), in_flight, wrap)
    }

    /// Finds the nearest vectors of `query` `[dim]`.
    ///
    /// # Errors
    /// See [`Searcher::search`].
    pub fn search(&self, query: &[f32], params: &SearchParams) -> Result<Answer, SearchError> {
        self.with_searcher(|searcher| searcher.search(query, params))
    }

    /// The same among the keys of `filter`, which this index made ([`Index::key_set`]).
    ///
    /// # Errors
    /// See [`Searcher::search`].
    pub fn search_in(&self, query: &[f32], params: &SearchParams, filter: &Arc<KeySet>) -> Result<Answer, SearchError> {
        self.with_searcher(|searcher| searcher.search_in(query, params, Some(filter)))
    }

    /// The nearest of all nodes but those that are out of sight.
    pub(crate) fn search_beside(&self, query: &[f32], params: &SearchParams, hidden: &Hidden) -> Result<Answer, SearchError> {
        let hidden = Some(hidden).filter(|hidden| self.base.live.is_some() || hidden.dead.len() > 0);
        self.with_searcher(|searcher| searcher.search_beside(query, params, hidden))
    }

    /// The same where it is over soon, and without waiting for anything but keys: all pages are in memory, and few nodes are dead, as of those that lie
    /// together many may have to be passed by. `None` where it is not so.
    pub(crate) fn search_beside_at_once(
        &self,
        query: &[f32],
        params: &SearchParams,
        hidden: &Hidden,
    ) -> Result<Option<Answer>, SearchError> {
        let base = &self.base;
        if !base.info.all_resident || base.given.load(Ordering::Acquire) > 0 || hidden.linked > FEW_DEAD {
            return Ok(None);
        }
        let hidden = Some(hidden).filter(|hidden| base.live.is_some() || hidden.dead.len() > 0);
        self.with_searcher_at_once(|searcher| searcher.search_beside(query, params, hidden))
    }

    /// The nearest of what `judge` admits and is not out of sight; fewer than `k` where they are far between.
    pub(crate) fn search_judged(
        &self,
        query: &[f32],
        params: &SearchParams,
        hidden: &Hidden,
        judge: &Arc<dyn Judge>,
    ) -> Result<Answer, SearchError> {
        self.with_searcher(|searcher| searcher.search_judged(query, params, Some(hidden), judge))
    }

    /// The exact `k` nearest of all nodes but those that are out of sight; `Late` behind `until`.
    pub(crate) fn exact_beside(
        &self,
        query: &[f32],
        k: usize,
        hidden: &Hidden,
        judge: Option<&Arc<dyn Judge>>,
        until: Option<Instant>,
    ) -> Result<Answer, SearchError> {
        let filter = judge.map(|judge| Filter::Judged(Arc::clone(judge)));
        let answers = exact::exact(&self.base, &[query], k, filter.as_ref(), Some(hidden), until)?;
        Ok(answers.into_iter().next().unwrap_or_default())
    }

    /// The keys that were built into it, in their order.
    pub(crate) fn keys(&self) -> &Keys {
        &self.base.keys
    }

    /// Nodes, some of which may have left their slot.
    pub(crate) fn nodes(&self) -> u64 {
        self.base.n()
    }

    /// The nodes that searches begin at, in order.
    pub(crate) fn entries(&self) -> Vec<u32> {
        let mut entries: Vec<u32> = self.base.nav.ids.iter().chain([&self.base.entry]).map(|id| id.0).collect();
        entries.sort_unstable();
        entries.dedup();
        entries
    }

    /// The node of a number key; `None` where keys are strings.
    pub(crate) fn node_of_number(&self, number: u64) -> Result<Option<u32>, SearchError> {
        if self.base.info.string_keys {
            return Ok(None);
        }
        Ok(self.base.keys.find_number(number)?.map(|node| node.0))
    }

    /// The node of a string key; `None` where keys are numbers.
    pub(crate) fn node_of_text(&self, text: &str) -> Result<Option<u32>, SearchError> {
        if !self.base.info.string_keys {
            return Ok(None);
        }
        Ok(self.base.keys.find_string(text)?.map(|node| node.0))
    }

    /// Shows each of the first `n` nodes, with the key and the vector of its record, in their order on disk.
    pub(crate) fn each_record<E: From<SearchError>>(
        &self,
        n: u64,
        mut each: impl FnMut(u32, Key, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        exact::each_page(&self.base, n, &mut |_, (first, live), page| {
            let records = (0..live).map(|slot| (first + slot as u64, self.base.layout.record(page, slot)));
            records
                .filter(|(_, record)| self.base.is_used(*record))
                .try_for_each(|(node, record)| each(node as u32, record.key(), record.vector()))
        })
    }

    /// Shows every node, in their order on disk, which is that of their numbers; slots without one are left out.
    ///
    /// # Errors
    /// Corruption; a failing disk; what `each` says.
    pub fn each_node<E: From<SearchError>>(&self, each: &mut dyn FnMut(Node<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut neighbors = Vec::new();
        exact::each_page(&self.base, self.base.n(), &mut |number, (first, live), page| {
            for (slot, id) in (0..live).zip(first as u32..) {
                let record = self.base.layout.record(page, slot);
                if self.base.is_used(record) {
                    neighbors.clear();
                    let read = self.base.neighbors(record, &mut neighbors);
                    read.map_err(|error| SearchError::from(self.base.bad_record(number, &error)))?;
                    each(Node { id: NodeId(id), key: record.key(), vector: record.vector(), neighbors: &neighbors })?;
                }
            }
            Ok(())
        })
    }

    /// Where searches begin that know of nothing nearer.
    pub fn entry(&self) -> NodeId {
        self.base.entry
    }

    /// The key of a node, and its vector as far as its record holds it.
    /// `None` of a slot without a node.
    pub(crate) fn key_and_vector_of(&self, node: u32) -> Result<Option<(Key, Vec<f32>)>, SearchError> {
        self.base.with_record(NodeId(node), |record| {
            let mut values = vec![0.0; self.base.info.dim];
            self.base.info.element.decode(record.vector(), &mut values);
            self.base.is_used(record).then(|| (record.key(), values))
        })
    }

    /// The vector of a node as its record holds it.
    pub(crate) fn row_of(&self, node: u32) -> Result<Vec<u8>, SearchError> {
        self.base.with_record(NodeId(node), |record| record.vector().to_vec())
    }

    /// Every vector within `radius` of `query`; see [`Searcher::range`].
    ///
    /// # Errors
    /// See [`Searcher::search`].
    pub fn range(&self, query: &[f32], radius: f32, params: &SearchParams) -> Result<Answer, SearchError> {
        self.with_searcher(|searcher| searcher.range(query, radius, params, None))
    }

    /// Hits in portions, nearest first: each [`Cursor::next`] goes on where the one before ended.
    ///
    /// # Errors
    /// See [`Searcher::search`].
    pub fn cursor(&self, query: &[f32], params: &SearchParams, filter: Option<&Arc<KeySet>>) -> Result<Cursor, SearchError> {
        Cursor::new(self.searcher()?, query, params, filter)
    }

    /// The exact `k` nearest of each of `queries`, by reading every vector once: the oracle, and the way to search where no error is allowed.
    ///
    /// # Errors
    /// See [`Searcher::search`].
    pub fn exact(&self, queries: &[&[f32]], k: usize, filter: Option<&Arc<KeySet>>) -> Result<Vec<Answer>, SearchError> {
        exact::exact(&self.base, queries, k, filter.cloned().map(Filter::Keys).as_ref(), None, None)
    }

    /// Works with an idle searcher, or a new one, or waits for one where the budget allows no more.
    fn with_searcher<T>(&self, work: impl FnOnce(&mut Searcher) -> Result<T, SearchError>) -> Result<T, SearchError> {
        let mut pool = self.idle.pool();
        let searcher = loop {
            match self.searcher_of_pool(&mut pool)? {
                Some(searcher) => break searcher,
                // One that is out comes back.
                None => pool = self.idle.returned.wait(pool).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(pool);
        self.work_with(searcher, work)
    }

    /// The same, but where it would wait for a searcher it does nothing.
    fn with_searcher_at_once<T>(&self, work: impl FnOnce(&mut Searcher) -> Result<T, SearchError>) -> Result<Option<T>, SearchError> {
        let taken = self.searcher_of_pool(&mut self.idle.pool())?;
        taken.map(|searcher| self.work_with(searcher, work)).transpose()
    }

    /// An idle searcher, or a new one; none where the budget allows no more and one that is out will come back.
    fn searcher_of_pool(&self, pool: &mut Pool) -> Result<Option<Searcher>, SearchError> {
        let searcher = match pool.searchers.pop() {
            Some(searcher) => searcher,
            None => match self.searcher() {
                Err(SearchError::Budget { .. }) if pool.out > 0 => return Ok(None),
                made => made?,
            },
        };
        pool.out += 1;
        Ok(Some(searcher))
    }

    fn work_with<T>(&self, mut searcher: Searcher, work: impl FnOnce(&mut Searcher) -> Result<T, SearchError>) -> Result<T, SearchError> {
        let outcome = work(&mut searcher);
        // Reads of a search that failed bind a searcher to this thread; dropped, it waits for them.
        let idle = searcher.is_idle().then_some(searcher);
        let mut pool = self.idle.pool();
        pool.out -= 1;
        pool.searchers.extend(idle);
        drop(pool);
        self.idle.returned.notify_one();
        outcome
    }

    /// The filter of these number keys (rows, where keys are rows); those that the index does not hold match nothing.
    ///
    /// # Errors
    /// Corruption of keys.rx, or an index of string keys.
    pub fn key_set(&self, keys: impl IntoIterator<Item = u64>) -> Result<Arc<KeySet>, SearchError> {
        if self.base.info.string_keys {
            return Err(SearchError::StringKeys { path: self.base.info.path.clone() });
        }
        Ok(Arc::new(KeySet::of_numbers(&self.base, keys.into_iter().collect())?))
    }

    /// The filter of the keys that these texts name, of any kind of key; those that the index does not hold match nothing.
    ///
    /// # Errors
    /// Corruption.
    pub fn key_set_of<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Arc<KeySet>, SearchError> {
        let found = texts.into_iter().filter_map(|text| self.base.find(text).transpose()).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(KeySet::of_found(found)))
    }

    /// The key that `text` names: a string key, or a number where keys are numbers. `None` when the index does not hold it.
    ///
    /// # Errors
    /// Corruption of keys.rx.
    pub fn find(&self, text: &str) -> Result<Option<Key>, SearchError> {
        Ok(self.base.find(text)?.map(|(key, _)| key))
    }

    /// The string that `key` stands for; `None` where keys are numbers.
    ///
    /// # Errors
    /// Corruption of keys.rx.
    pub fn key_name(&self, key: Key) -> Result<Option<String>, SearchError> {
        Ok(self.base.keys.string_of(key)?)
    }

    /// At most `count` vectors `[dim]` chosen by chance, with their keys, in their order on disk.
    ///
    /// # Errors
    /// Corruption, or a failing disk.
    pub fn sample(&self, count: u64, seed: u64) -> Result<Vec<(Key, Vec<f32>)>, SearchError> {
        let nodes = CounterRng::new(seed).sample(self.base.n(), count);
        nodes.into_iter().map(|node| self.base.key_and_vector(NodeId(node as u32))).collect()
    }

    /// The vector `[dim]` stored under the key that `text` names.
    ///
    /// # Errors
    /// Corruption, or a failing disk.
    pub fn get(&self, text: &str) -> Result<Option<Vec<f32>>, SearchError> {
        match self.base.find(text)? {
            None => Ok(None),
            Some((_, node)) => Ok(Some(self.base.key_and_vector(node)?.1)),
        }
    }
}
