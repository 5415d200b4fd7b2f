//! All queries once, on several threads: how many true neighbors they found, how fast, and what it took.
//!
//! Threads take queries from one counter. A query's latency is measured around its search, or, under a rate, from the moment it was
//! due: what it waited because all threads were busy is its own.

use crate::{Args, Truth, device_bytes, status_bytes};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What one search found.
pub struct Found {
    /// Row numbers, nearest first.
    pub ids: Vec<u32>,
    /// Reads that the library says it issued; 0 where it does not tell.
    pub reads: u64,
}

/// One pass of all queries.
pub struct Pass {
    seconds: f64,
    ids: Vec<Vec<u32>>,
    nanos: Vec<u64>,
    reads: u64,
    device_bytes: u64,
}

impl Pass {
    /// What is reported of it.
    fn point(&self, args: &Args, list_size: usize, truth: &Truth) -> Value {
        let n = self.nanos.len() as f64;
        let us = |share: f64| percentile(&self.nanos, share) as f64 / 1e3;
        json!({
            "threads": args.threads, "list_size": list_size, "recall": truth.recall(&self.ids, args.k), "qps": n / self.seconds,
            "rate": args.rate, "mean_us": self.nanos.iter().sum::<u64>() as f64 / n / 1e3, "p50_us": us(0.5), "p99_us": us(0.99),
            "p999_us": us(0.999), "reads": self.reads as f64 / n, "device_bytes": self.device_bytes as f64 / n,
        })
    }
}

/// The least value that `share` of all are not above: nearest rank.
fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64 - 1e-9).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The queries that are still to be asked; a thread takes one after the other.
pub struct Turns<'a> {
    next: &'a AtomicUsize,
    queries: usize,
    start: Instant,
    rate: Option<f64>,
    asked: Vec<(usize, u64, Found)>,
}

impl Turns<'_> {
    /// Asks for as many queries as this thread gets; `search` is given their numbers.
    pub fn each(&mut self, mut search: impl FnMut(usize) -> Result<Found>) -> Result<()> {
        loop {
            let query = self.next.fetch_add(1, Ordering::Relaxed);
            if query >= self.queries {
                return Ok(());
            }
            let began = self.rate.map_or_else(Instant::now, |rate| self.due(query, rate));
            let found = search(query)?;
            self.asked.push((query, began.elapsed().as_nanos() as u64, found));
        }
    }

    /// Waits until `query` is due. A thread that had to wait begins when it wakes: how late a timer rings is not the library's.
    fn due(&self, query: usize, rate: f64) -> Instant {
        let due = self.start + Duration::from_secs_f64(query as f64 / rate);
        let now = Instant::now();
        if due <= now {
            return due;
        }
        thread::sleep(due - now);
        Instant::now()
    }
}

/// The best of `args.repeats` passes of `queries` queries, as a point. `work` is called on each thread, makes what it needs, and takes
/// its turns.
pub fn measure(
    args: &Args,
    list_size: usize,
    queries: usize,
    truth: &Truth,
    work: impl Fn(&mut Turns) -> Result<()> + Sync,
) -> Result<Value> {
    let mut best: Option<Pass> = None;
    for _ in 0..args.repeats {
        let pass = pass(args, queries, &work)?;
        if best.as_ref().is_none_or(|best| pass.seconds < best.seconds) {
            best = Some(pass);
        }
    }
    let mut point = best.context("--repeats 0")?.point(args, list_size, truth);
    // Here, where what the searches opened is still open.
    point["rss_bytes"] = status_bytes("VmRSS")?.into();
    Ok(point)
}

fn pass(args: &Args, queries: usize, work: &(impl Fn(&mut Turns) -> Result<()> + Sync)) -> Result<Pass> {
    let next = AtomicUsize::new(0);
    let (read_before, start) = (device_bytes()?, Instant::now());
    let share = || {
        let mut turns = Turns { next: &next, queries, start, rate: args.rate, asked: Vec::new() };
        work(&mut turns).map(|()| turns.asked)
    };
    let shares = thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads).map(|_| scope.spawn(share)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect::<Result<Vec<_>>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let mut pass =
        Pass { seconds, ids: vec![Vec::new(); queries], nanos: Vec::new(), reads: 0, device_bytes: device_bytes()? - read_before };
    for (query, nanos, found) in shares.into_iter().flatten() {
        pass.ids[query] = found.ids;
        pass.nanos.push(nanos);
        pass.reads += found.reads;
    }
    pass.nanos.sort_unstable();
    Ok(pass)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn every_query_is_asked_once_whatever_the_threads() {
        for threads in ["1", "3"] {
            let words = ["program", "search", "--peer", "p", "--base", "b", "--queries", "q", "--truth", "t", "--metric", "l2"];
            let more = ["--threads", threads, "--settings", "{}", "--index", "i", "--events", "e"];
            let args = Args::try_parse_from(words.iter().chain(&more)).expect("arguments");
            let work = |turns: &mut Turns| turns.each(|query| Ok(Found { ids: vec![query as u32], reads: 2 }));
            let pass = pass(&args, 5, &work).expect("a pass");
            assert_eq!((pass.ids, pass.nanos.len(), pass.reads), ((0..5).map(|id| vec![id]).collect::<Vec<_>>(), 5, 10));
        }
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([0.5, 0.99, 0.999].map(|share| percentile(&hundred, share)), [50, 99, 100]);
    }
}
