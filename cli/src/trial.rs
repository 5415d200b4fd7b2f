//! One pass of all queries over an index: how many true neighbors it found, how fast, and what it took.
//!
//! Threads take queries from one counter, each with a searcher of its own; a query's latency is measured around its search, and the
//! rate is all queries over the wall time. Recall compares row numbers and nothing else: of several rows at one distance only those
//! that the truth names count, so it errs to the low side, as it does in the literature. Under Hamming, where whole crowds of rows
//! are equally far, that would measure luck: there a row at the distance of the last true neighbor counts too.

use crate::{
    commands::{rss_bytes, search_failure},
    failure::Failure,
    latency::Latency,
    queries::Queries,
};
use roxanne_core::{
    ErrorClass,
    id::Key,
    recall::{Truth, recall_at_k, recall_at_k_with_ties},
};
use roxanne_engine::{Index, SearchParams, Searcher};
use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

/// What one list size gave.
pub(crate) struct Point {
    pub(crate) list_size: usize,
    pub(crate) recall: f64,
    pub(crate) qps: f64,
    /// Per query.
    pub(crate) reads: f64,
    pub(crate) cache_hits: f64,
    pub(crate) distances: f64,
    pub(crate) latency: Latency,
    pub(crate) rss_bytes: u64,
}

/// Everything that all points share.
pub(crate) struct Trial<'a> {
    pub(crate) index: &'a Index,
    pub(crate) queries: &'a Queries,
    pub(crate) truth: &'a Truth,
    /// Rows of the user's own number keys, where there are such.
    pub(crate) rows: Option<HashMap<u64, u64>>,
    /// Whether a row at the distance of the last true neighbor counts.
    pub(crate) ties: bool,
    pub(crate) k: usize,
    pub(crate) beam_width: usize,
    pub(crate) threads: usize,
}

/// What one thread brings home.
#[derive(Default)]
struct Share {
    /// True neighbors that were found. Counted, not averaged: a sum of fractions would depend on the order of the threads.
    found: u64,
    nanos: Vec<u64>,
    reads: u64,
    cache_hits: u64,
    distances: u64,
}

impl Trial<'_> {
    /// Runs all queries once with one list size.
    pub(crate) fn measure(&self, list_size: usize) -> Result<Point, Failure> {
        let params = SearchParams { k: self.k, list_size, beam_width: self.beam_width };
        // Searchers are made beforehand, so that their making is in no measured time.
        let threads = self.threads.min(self.queries.len());
        let mut searchers = (0..threads).map(|_| self.index.searcher()).collect::<Result<Vec<_>, _>>()?;
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let start = Instant::now();
        let shares: Vec<Result<Share, Failure>> = thread::scope(|scope| {
            let begin = |searcher| thread::Builder::new().spawn_scoped(scope, || self.work(searcher, &params, &next, &stop));
            let begun: Vec<io::Result<_>> = searchers.iter_mut().map(begin).collect();
            let end = |thread: io::Result<thread::ScopedJoinHandle<'_, Result<Share, Failure>>>| match thread {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(error) => {
                    Err(Failure::new(ErrorClass::Busy, format!("cannot start {threads} threads: {error}; give fewer with --threads")))
                }
            };
            begun.into_iter().map(end).collect()
        });
        let seconds = start.elapsed().as_secs_f64();
        let rss_bytes = rss_bytes();
        drop(searchers);

        let mut all = Share::default();
        for share in shares {
            let share = share?;
            all.found += share.found;
            all.nanos.extend(share.nanos);
            all.reads += share.reads;
            all.cache_hits += share.cache_hits;
            all.distances += share.distances;
        }
        let n = all.nanos.len() as f64;
        Ok(Point {
            list_size,
            recall: all.found as f64 / (n * self.wanted() as f64),
            qps: if seconds > 0.0 { n / seconds } else { 0.0 },
            reads: all.reads as f64 / n,
            cache_hits: all.cache_hits as f64 / n,
            distances: all.distances as f64 / n,
            latency: Latency::of(&mut all.nanos),
            rss_bytes,
        })
    }

    /// Takes queries until there are no more, or another thread has failed.
    fn work(&self, searcher: &mut Searcher, params: &SearchParams, next: &AtomicUsize, stop: &AtomicBool) -> Result<Share, Failure> {
        let mut share = Share::default();
        let (mut query, mut found, mut distances) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.queries.len() || stop.load(Ordering::Relaxed) {
                return Ok(share);
            }
            self.queries.decode(number, &mut query);
            let start = Instant::now();
            let outcome = searcher.search(&query, params);
            let nanos = start.elapsed().as_nanos();
            let rows = outcome.map_err(|error| search_failure(error, number as u64)).and_then(|answer| {
                found.clear();
                distances.clear();
                for hit in &answer.hits {
                    found.push(self.row_of(hit.key)?);
                    distances.push(hit.distance);
                }
                Ok(answer.stats)
            });
            let stats = rows.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            let recall = if self.ties {
                recall_at_k_with_ties(self.truth, number as u64, &found, &distances, self.k)
            } else {
                recall_at_k(self.truth, number as u64, &found, self.k)
            };
            share.found += (recall * self.wanted() as f64).round() as u64;
            share.nanos.push(u64::try_from(nanos).unwrap_or(u64::MAX));
            share.reads += stats.reads;
            share.cache_hits += stats.cache_hits;
            share.distances += stats.distances;
        }
    }

    /// True neighbors of each query that are asked for, at least 1.
    fn wanted(&self) -> usize {
        self.k.min(self.truth.k).max(1)
    }

    fn row_of(&self, key: Key) -> Result<u64, Failure> {
        match &self.rows {
            None => Ok(key.0),
            Some(rows) => rows.get(&key.0).copied().ok_or_else(|| Failure::input(format!("key {key} is not in the file of --keys"))),
        }
    }
}
