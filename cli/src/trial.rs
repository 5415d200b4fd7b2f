//! One pass of all queries over an index: how many true neighbors it found, how fast, and what it took.
//!
//! Threads take queries from one counter, each with a searcher of its own and its part of the queries in flight; a query's latency is from its
//! submission to its answer, and the rate is all queries over the wall time. Recall compares row numbers and nothing else: of several rows at one distance only those
//! that the truth names count, so it errs to the low side, as it does in the literature. Under Hamming, where whole crowds of rows
//! are equally far, that would measure luck: there a row at the distance of the last true neighbor counts too.

use crate::{
    commands::search_failure,
    failure::Failure,
    latency::Latency,
    parse::Effort,
    queries::Queries,
    usage::{cpu_micros, rss_bytes},
};
use roxanne_core::{
    ErrorClass,
    id::Key,
    recall::{Truth, recall_at_k, recall_at_k_with_ties},
};
use roxanne_engine::{Answer, Index, SearchError, SearchParams, Searcher, Way};
use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

/// What one effort gave.
pub(crate) struct Point {
    pub(crate) effort: Effort,
    pub(crate) in_flight: usize,
    pub(crate) threads: usize,
    pub(crate) recall: f64,
    pub(crate) qps: f64,
    /// Per query.
    pub(crate) reads: f64,
    pub(crate) cache_hits: f64,
    pub(crate) distances: f64,
    /// Which way the last query went.
    pub(crate) way: Way,
    pub(crate) latency: Latency,
    /// Processor time a query, of all threads, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) rss_bytes: u64,
}

/// Everything that all points share.
pub(crate) struct Trial<'a> {
    pub(crate) index: &'a Index,
    pub(crate) queries: &'a Queries,
    pub(crate) truth: &'a Truth,
    /// Rows of the user's own number keys, where there are such.
    pub(crate) rows: Option<HashMap<u64, u64>>,
    /// The row of keys that are not among those; `None` refuses them.
    pub(crate) stranger: Option<u64>,
    /// Whether a row at the distance of the last true neighbor counts.
    pub(crate) ties: bool,
    /// Of all but the effort.
    pub(crate) params: SearchParams,
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
    way: Way,
}

impl Trial<'_> {
    /// Runs all queries once with one effort, `in_flight` of them at a time.
    pub(crate) fn measure(&self, effort: Effort, in_flight: usize) -> Result<Point, Failure> {
        let params = effort.of(self.params);
        // Searchers are made beforehand, so that their making is in no measured time.
        let in_flight = in_flight.min(self.queries.len());
        let threads = self.threads.min(in_flight);
        // What does not divide is taken by the first.
        let shares = (0..threads).map(|thread| in_flight / threads + usize::from(thread < in_flight % threads));
        let mut searchers = shares.map(|share| self.index.searcher_of(share)).collect::<Result<Vec<_>, _>>()?;
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (start, cpu_start) = (Instant::now(), cpu_micros());
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
        let (cpu_us, rss_bytes) = (cpu_micros() - cpu_start, rss_bytes());
        drop(searchers);

        let mut all = Share::default();
        for share in shares {
            let share = share?;
            all.found += share.found;
            all.nanos.extend(share.nanos);
            all.reads += share.reads;
            all.cache_hits += share.cache_hits;
            all.distances += share.distances;
            all.way = share.way;
        }
        let n = all.nanos.len() as f64;
        Ok(Point {
            effort,
            in_flight,
            threads,
            recall: all.found as f64 / (n * self.wanted() as f64),
            qps: if seconds > 0.0 { n / seconds } else { 0.0 },
            reads: all.reads as f64 / n,
            cache_hits: all.cache_hits as f64 / n,
            distances: all.distances as f64 / n,
            way: all.way,
            latency: Latency::of(&mut all.nanos),
            cpu_us: cpu_us as f64 / n,
            rss_bytes,
        })
    }

    /// Takes queries until there are no more, or another thread has failed.
    fn work(&self, searcher: &mut Searcher, params: &SearchParams, next: &AtomicUsize, stop: &AtomicBool) -> Result<Share, Failure> {
        let (mut share, mut query, mut failed) = (Share::default(), Vec::new(), None);
        loop {
            while searcher.has_room() && failed.is_none() && !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.queries.len() {
                    break;
                }
                self.queries.decode(number, &mut query);
                if let Err(error) = searcher.submit(number as u64, &query, params, None) {
                    failed = Some(search_failure(error, number as u64));
                }
            }
            let mut judge = |number: u64, outcome: Result<Answer, SearchError>| {
                let judged =
                    outcome.map_err(|error| search_failure(error, number)).and_then(|answer| self.judge(number, &answer, &mut share));
                if let Err(error) = judged {
                    failed.get_or_insert(error);
                }
            };
            let ended = searcher.wait(&mut judge).map_err(|error| search_failure(error, 0));
            if failed.is_some() || ended.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            if ended? == 0 {
                return failed.map_or(Ok(share), Err);
            }
        }
    }

    /// Counts what an answer found and took.
    fn judge(&self, number: u64, answer: &Answer, share: &mut Share) -> Result<(), Failure> {
        let found = answer.hits.iter().map(|hit| self.row_of(hit.key)).collect::<Result<Vec<_>, _>>()?;
        let k = self.params.k;
        let recall = if self.ties {
            let distances: Vec<f32> = answer.hits.iter().map(|hit| hit.distance).collect();
            recall_at_k_with_ties(self.truth, number, &found, &distances, k)
        } else {
            recall_at_k(self.truth, number, &found, k)
        };
        share.found += (recall * self.wanted() as f64).round() as u64;
        share.nanos.push(answer.stats.micros * 1000);
        share.reads += answer.stats.reads;
        share.cache_hits += answer.stats.cache_hits;
        share.distances += answer.stats.distances;
        share.way = answer.stats.way;
        Ok(())
    }

    /// True neighbors of each query that are asked for, at least 1.
    fn wanted(&self) -> usize {
        self.params.k.min(self.truth.k).max(1)
    }

    fn row_of(&self, key: Key) -> Result<u64, Failure> {
        match &self.rows {
            None => Ok(key.0),
            Some(rows) => {
                rows.get(&key.0).copied().or(self.stranger).ok_or_else(|| Failure::input(format!("key {key} is not in the file of --keys")))
            }
        }
    }
}
