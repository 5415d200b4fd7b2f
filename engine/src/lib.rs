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
//! `base` is a generation, opened; `searcher` runs queries against it, one at a time a thread, reading pages through [`io`].

mod base;
mod error;
pub mod io;
mod searcher;
pub mod verify;

pub use base::{IndexInfo, OpenOptions};
pub use error::{OpenError, SearchError};
pub use roxanne_core::Budget;
pub use searcher::{Answer, Hit, SearchParams, SearchStats, Searcher};

use base::Base;
use roxanne_core::id::Key;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// An opened index. Cheap to clone; every thread may search it.
#[derive(Clone)]
pub struct Index {
    base: Arc<Base>,
    /// Searchers that wait for the next [`Index::search`].
    idle: Arc<Mutex<Vec<Searcher>>>,
}

impl Index {
    /// Opens the directory of a generation within `budget`.
    ///
    /// # Errors
    /// No index, a damaged or newer one, or one whose codes do not fit `budget.ram`.
    pub fn open(path: impl AsRef<Path>, budget: Budget) -> Result<Index, OpenError> {
        Index::open_with(path, &OpenOptions { budget, ..OpenOptions::default() })
    }

    /// The same with a chosen reader.
    ///
    /// # Errors
    /// As [`Index::open`]; also when the reader is not to be had.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Index, OpenError> {
        Ok(Index { base: Arc::new(Base::open(path.as_ref(), options)?), idle: Arc::default() })
    }

    /// What it is.
    pub fn info(&self) -> &IndexInfo {
        &self.base.info
    }

    /// A searcher of one's own: the way to search from many threads without meeting a lock.
    ///
    /// # Errors
    /// The reader could not be set up.
    pub fn searcher(&self) -> Result<Searcher, SearchError> {
        Searcher::new(Arc::clone(&self.base))
    }

    /// A searcher over a reader that `wrap` makes of the usual one: the way faults come into tests.
    ///
    /// # Errors
    /// As [`Index::searcher`].
    #[cfg(any(test, feature = "faulty"))]
    pub fn searcher_with(
        &self,
        wrap: impl FnOnce(Box<dyn io::NodeReader>, &Arc<io::PageFile>) -> Box<dyn io::NodeReader>,
    ) -> Result<Searcher, SearchError> {
        Searcher::wrapped(Arc::clone(&self.base), wrap)
    }

    /// Finds the nearest vectors of `query` `[dim]`.
    ///
    /// # Errors
    /// See [`Searcher::search`].
    pub fn search(&self, query: &[f32], params: &SearchParams) -> Result<Answer, SearchError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut searcher = match idle {
            Some(searcher) => searcher,
            None => self.searcher()?,
        };
        let answer = searcher.search(query, params);
        if searcher.is_idle() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(searcher);
        }
        answer
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

    /// The vector `[dim]` stored under the key that `text` names.
    ///
    /// # Errors
    /// Corruption, or a failing disk.
    pub fn get(&self, text: &str) -> Result<Option<Vec<f32>>, SearchError> {
        match self.base.find(text)? {
            None => Ok(None),
            Some((_, node)) => self.base.vector(node).map(Some),
        }
    }
}
