//! The scenes, one after the other.

use super::{Args, Scene};
use roxanne_builder::{BuildParams, Builder, peak_rss_bytes};
use roxanne_core::{
    Budget,
    dataset::{Dataset, DatasetWriter},
    element::ElementType,
    format::keys::KeyList,
    recall::{Truth, exact_truth, recall_at_k_with_ties},
};
use roxanne_engine::{
    OpenOptions, SearchParams,
    collection::{
        Change, Collection, CollectionConfig, CollectionOptions, Durability, Filter, KeyKind, MergeLimits, Point, PointKey, Previous,
    },
};
use serde_json::{Value, json};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const K: usize = 10;
const LIST_SIZES: [usize; 4] = [20, 40, 80, 160];
/// Changes of one batch.
const BATCH: usize = 64;
/// Searches a second that nobody reaches.
const UNLIMITED: f64 = 1e9;
/// A share of everything is written, then merged.
const STEPS: u64 = 20;

pub(super) fn play(args: &Args) -> Outcome {
    let stage = Stage::new(args)?;
    match args.scene {
        Scene::Upserts => stage.upserts(),
        Scene::Merge => stage.merge(),
        Scene::Churn => stage.churn(false).and_then(|()| stage.churn(true)),
        Scene::Delete => stage.delete(),
        Scene::Filter => stage.filter(),
    }
}

fn say(line: &Value) {
    println!("{line}");
}

/// A scene's vectors and place.
struct Stage<'a> {
    args: &'a Args,
    /// All rows, decoded, `[n][dim]`.
    rows: Vec<f32>,
    dim: usize,
    element: ElementType,
    queries: Vec<f32>,
    work: PathBuf,
}

impl<'a> Stage<'a> {
    fn new(args: &'a Args) -> Outcome<Stage<'a>> {
        let base = Dataset::open(&args.base)?;
        let more = match args.scene {
            Scene::Churn => args.rows,
            Scene::Merge => 2 * args.extra,
            Scene::Upserts | Scene::Delete | Scene::Filter => 0,
        };
        let wanted = args.rows + more;
        if base.n() < wanted {
            return Err(format!("{} has {} vectors, {wanted} are needed", args.base, base.n()).into());
        }
        let (mut rows, mut queries) = (Vec::new(), Vec::new());
        base.read_rows_f32(0, wanted as usize, &mut rows)?;
        let asked = Dataset::open(&args.queries)?.limit(args.asked);
        asked.read_rows_f32(0, asked.n() as usize, &mut queries)?;
        let work = args.work.join("live");
        fs::create_dir(&work).map_err(|error| format!("{}: {error}", work.display()))?;
        Ok(Stage { args, rows, dim: base.dim(), element: base.element(), queries, work })
    }

    fn row(&self, at: u64) -> &[f32] {
        &self.rows[at as usize * self.dim..][..self.dim]
    }

    /// The rows of these numbers as a file.
    fn file(&self, name: &str, rows: &mut dyn Iterator<Item = u64>) -> Outcome<Dataset> {
        let extension = if self.element == ElementType::U8 { "u8bin" } else { "fbin" };
        let element = if self.element == ElementType::U8 { ElementType::U8 } else { ElementType::F32 };
        let path = self.work.join(name).with_extension(extension);
        let _ = fs::remove_file(&path);
        let mut writer = DatasetWriter::create(&path, element, self.dim)?;
        let mut raw = Vec::new();
        for at in rows {
            raw.clear();
            element.encode(self.row(at), &mut raw)?;
            writer.push_rows(&raw)?;
        }
        writer.finish()?;
        Ok(Dataset::open(&path.to_string_lossy())?)
    }

    fn build(&self, dataset: Dataset, keys: Vec<u64>, capacity: u64, out: &Path) -> Outcome {
        let params = BuildParams { capacity, ..BuildParams::default() };
        Builder::new(self.args.metric).params(params).keys(KeyList::Numbers(keys)).dataset(dataset).build(out)?;
        Ok(())
    }

    /// A collection whose base holds the first `n` rows under their numbers.
    fn collection(&self, name: &str, n: u64, capacity: u64, durability: Durability) -> Outcome<Collection> {
        let path = self.work.join(name);
        let element = if self.element == ElementType::U8 { ElementType::U8 } else { ElementType::F32 };
        let config = CollectionConfig { dim: self.dim, metric: self.args.metric, element, keys: KeyKind::Numbers };
        let empty = Collection::create(&path, &config, &CollectionOptions::default())?;
        let index = self.work.join(format!("{name}.rx"));
        self.build(self.file(name, &mut (0..n))?, (0..n).collect(), capacity, &index)?;
        empty.promote(&index, 0, Previous::Remove)?;
        drop(empty);
        let page_share = fs::metadata(path.join(base_of(&path)?).join("graph.rx"))?.len() as f64 * self.args.cached;
        let mut options = CollectionOptions { durability, merges: false, ..CollectionOptions::default() };
        // What must be in RAM is not known from outside: ask, by a budget that is too small.
        options.base = OpenOptions { budget: Budget::ram(1), searchers: 4, ..OpenOptions::default() };
        let needed = match Collection::open(&path, &options) {
            Err(roxanne_engine::collection::CollectionError::Open(roxanne_engine::OpenError::Budget { needed, .. })) => needed,
            _ => return Err("a budget of one byte was enough".into()),
        };
        options.base.budget = Budget::ram(needed + page_share as u64);
        Ok(Collection::open(&path, &options)?)
    }

    fn point(&self, key: u64, row: u64) -> Change {
        Change::Upsert(Point { key: PointKey::Number(key), vector: self.row(row).to_vec(), payload: String::new() })
    }

    fn truth(&self, rows: &mut dyn Iterator<Item = u64>) -> Outcome<Truth> {
        let queries = Dataset::open(&self.args.queries)?.limit(self.args.asked);
        Ok(exact_truth(&self.file("truth", rows)?, &queries, self.args.metric, K, &mut |_| {})?)
    }

    /// Recall at each list size; `place` gives a key's place in the truth's file.
    fn recall(&self, collection: &Collection, truth: &Truth, place: &dyn Fn(u64) -> u64) -> Outcome<Value> {
        let mut recalls = Vec::new();
        for list_size in LIST_SIZES {
            let (mut sum, mut reads) = (0.0, 0);
            for (at, query) in self.queries.chunks_exact(self.dim).enumerate() {
                let found = collection.search(query, &SearchParams { k: K, list_size, ..SearchParams::DEFAULT })?;
                let number = |key: &PointKey| if let PointKey::Number(number) = key { place(*number) } else { u64::MAX };
                let keys: Vec<u64> = found.hits.iter().map(|hit| number(&hit.key)).collect();
                let distances: Vec<f32> = found.hits.iter().map(|hit| hit.distance).collect();
                sum += recall_at_k_with_ties(truth, at as u64, &keys, &distances, K);
                reads += found.stats.reads;
            }
            let asked = (self.queries.len() / self.dim) as f64;
            recalls.push(json!({ "list_size": list_size, "recall": sum / asked, "reads": reads as f64 / asked }));
        }
        Ok(recalls.into())
    }

    /// A collection whose points have payloads, all in its base.
    fn with_payloads(&self, payload: impl Fn(u64) -> String) -> Outcome<Collection> {
        let (path, n) = (self.work.join("filter"), self.args.rows);
        let element = if self.element == ElementType::U8 { ElementType::U8 } else { ElementType::F32 };
        let config = CollectionConfig { dim: self.dim, metric: self.args.metric, element, keys: KeyKind::Numbers };
        let mut options =
            CollectionOptions { merges: false, delta_bytes: u64::MAX, durability: Durability::Os, ..CollectionOptions::default() };
        // Codes, a searcher, and a small part of the pages.
        options.base = OpenOptions { budget: Budget::ram(n * 36 + (48 << 20)), searchers: 1, ..OpenOptions::default() };
        let collection = Collection::create(&path, &config, &options)?;
        let keys: Vec<u64> = (0..n).collect();
        let begin = Instant::now();
        for some in keys.chunks(1000) {
            let point = |&key: &u64| Point { key: PointKey::Number(key), vector: self.row(key).to_vec(), payload: payload(key) };
            collection.write(some.iter().map(|key| Change::Upsert(point(key))).collect())?;
        }
        say(&json!({"scene": "filter", "points_with_payload_per_second": n as f64 / begin.elapsed().as_secs_f64()}));
        let index = self.work.join("filter.rx");
        self.build(self.file("filter", &mut (0..n))?, keys, 0, &index)?;
        collection.promote(&index, collection.stats().sequence, Previous::Remove)?;
        Ok(collection)
    }

    fn filter(&self) -> Outcome {
        let n = self.args.rows;
        let collection = self.with_payloads(|key| format!("{{\"p\": {}}}", key % 1000))?;
        for passing in [1000, 500, 100, 10, 1] {
            let of = |key: &u64| key % 1000 < passing;
            let truth = self.truth(&mut (0..n).filter(of))?;
            let json = json!({"must": [{"key": "p", "range": {"lt": passing}}]});
            let filter = Filter::from_json(&json, KeyKind::Numbers)?;
            for list_size in LIST_SIZES {
                let (mut sum, mut reads, mut times) = (0.0, 0, Vec::new());
                let mut way = "";
                for (at, query) in self.queries.chunks_exact(self.dim).enumerate() {
                    let params = SearchParams { k: K, list_size, ..SearchParams::DEFAULT };
                    let found = collection.search_filtered(query, &params, &filter)?;
                    // The place among those that pass, which are in the order of their numbers.
                    let place = |number: u64| number / 1000 * passing + number % 1000;
                    let number = |key: &PointKey| if let PointKey::Number(number) = key { place(*number) } else { u64::MAX };
                    let keys: Vec<u64> = found.hits.iter().map(|hit| number(&hit.key)).collect();
                    let distances: Vec<f32> = found.hits.iter().map(|hit| hit.distance).collect();
                    sum += recall_at_k_with_ties(&truth, at as u64, &keys, &distances, K);
                    reads += found.stats.reads;
                    times.push(found.stats.micros);
                    way = found.stats.way.name();
                }
                let asked = times.len() as f64;
                times.sort_unstable();
                say(&json!({
                    "scene": "filter", "share": passing as f64 / 1000.0, "list_size": list_size, "way": way, "recall": sum / asked,
                    "reads": reads as f64 / asked, "p50_micros": times[times.len() / 2], "p99_micros": times[times.len() * 99 / 100],
                }));
            }
        }
        Ok(())
    }

    /// Merges until nothing is left.
    fn drain(&self, collection: &Collection) -> Outcome<Value> {
        let (begin, limits) = (Instant::now(), MergeLimits::default());
        let (mut inserted, mut removed, mut pages, mut bytes, mut reads, mut rounds) = (0, 0, 0, 0, 0, 0);
        loop {
            let report = collection.merge(&limits)?;
            if report.inserted + report.removed == 0 {
                break;
            }
            (inserted, removed, rounds) = (inserted + report.inserted, removed + report.removed, rounds + 1);
            (pages, bytes, reads) = (pages + report.pages, bytes + report.bytes, reads + report.reads);
        }
        let seconds = begin.elapsed().as_secs_f64();
        Ok(json!({
            "inserted": inserted, "removed": removed, "rounds": rounds, "seconds": seconds, "pages": pages, "bytes": bytes, "reads": reads,
            "inserted_per_second": inserted as f64 / seconds,
        }))
    }

    /// Searches on `threads`, at most `rate` a second in all, until told to stop: how many a second, and how long they took.
    fn searching<T>(&self, collection: &Collection, threads: usize, rate: f64, work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Value)> {
        let (stop, times, number) = (AtomicBool::new(false), Mutex::new(Vec::new()), AtomicU64::new(0));
        let (begin, count) = (Instant::now(), self.queries.len() / self.dim);
        let outcome = thread::scope(|scope| {
            let searcher = || -> Outcome {
                let mut mine = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let at = number.fetch_add(1, Ordering::Relaxed);
                    // A plan of arrivals: who comes late has waited.
                    let due = Duration::from_secs_f64(at as f64 / rate);
                    thread::sleep(due.saturating_sub(begin.elapsed()));
                    let now = begin.elapsed();
                    let started = begin + if rate < UNLIMITED { due.min(now) } else { now };
                    let query = &self.queries[at as usize % count * self.dim..][..self.dim];
                    collection.search(query, &SearchParams { k: K, list_size: 40, ..SearchParams::DEFAULT })?;
                    mine.push(started.elapsed().as_micros() as u64);
                }
                times.lock().unwrap_or_else(PoisonError::into_inner).extend(mine);
                Ok(())
            };
            let searchers: Vec<_> = (0..threads).map(|_| scope.spawn(searcher)).collect();
            let outcome = work();
            stop.store(true, Ordering::Relaxed);
            searchers.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err("a search panicked".into())))?;
            outcome
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        let mut times = times.into_inner().unwrap_or_else(PoisonError::into_inner);
        times.sort_unstable();
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
        let told = json!({ "qps": times.len() as f64 / seconds, "p50_us": at(0.5), "p99_us": at(0.99), "searches": times.len() });
        Ok((outcome, told))
    }

    fn upserts(&self) -> Outcome {
        let n = self.args.rows;
        let collection = self.collection("upserts", n, 4 * n, Durability::Disk)?;
        let next = AtomicU64::new(n);
        let write_for = |writers: u64, batch: u64, seconds: u64| -> Outcome<Value> {
            let (begin, written, refused) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
            thread::scope(|scope| {
                let writer = || -> Outcome {
                    while begin.elapsed().as_secs() < seconds {
                        let first = next.fetch_add(batch, Ordering::Relaxed);
                        let changes = (first..first + batch).map(|key| self.point(key, key % n)).collect();
                        match collection.write(changes) {
                            Ok(_) => written.fetch_add(batch, Ordering::Relaxed),
                            Err(_) => refused.fetch_add(1, Ordering::Relaxed),
                        };
                    }
                    Ok(())
                };
                let writers: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
                writers.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err("a writer panicked".into())))
            })?;
            let (written, seconds) = (written.into_inner(), begin.elapsed().as_secs_f64());
            Ok(
                json!({ "writers": writers, "batch": batch, "seconds": seconds, "written": written, "per_second": written as f64 / seconds, "refused": refused.into_inner() }),
            )
        };
        let ((), alone) = self.searching(&collection, 1, 200.0, || {
            thread::sleep(Duration::from_secs(5));
            Ok(())
        })?;
        say(&json!({ "scene": "upserts", "search_alone": alone }));
        let (batches, search) = self.searching(&collection, 1, 200.0, || write_for(8, BATCH as u64, self.args.seconds))?;
        say(&json!({ "scene": "upserts", "batches": batches, "search_beside": search, "delta_bytes": collection.stats().delta_bytes }));
        let begin = Instant::now();
        collection.settle();
        say(&json!({ "scene": "upserts", "linked_after_seconds": begin.elapsed().as_secs_f64() }));
        let singles = write_for(64, 1, self.args.seconds / 3)?;
        say(&json!({ "scene": "upserts", "singles": singles }));
        say(&json!({ "scene": "upserts", "drain": self.drain(&collection)?, "rss_peak": peak_rss_bytes() }));
        Ok(())
    }

    fn write_rows(&self, collection: &Collection, changes: &mut dyn Iterator<Item = (u64, u64)>) -> Outcome {
        let mut batch = Vec::with_capacity(BATCH);
        for (key, row) in changes {
            batch.push(self.point(key, row));
            if batch.len() == BATCH {
                collection.write(std::mem::take(&mut batch))?;
            }
        }
        collection.write(batch)?;
        Ok(())
    }

    fn merge(&self) -> Outcome {
        let (n, extra) = (self.args.rows, self.args.extra);
        let collection = self.collection("merge", n, n + 2 * extra + 1000, Durability::Os)?;
        self.write_rows(&collection, &mut (n..n + extra).map(|row| (row, row)))?;
        collection.settle();
        say(&json!({ "scene": "merge", "idle": self.drain(&collection)? }));
        // What two threads give when nothing else is done, and how long searches take at half of it.
        let pause = || {
            thread::sleep(Duration::from_secs(10));
            Ok(())
        };
        let ((), most) = self.searching(&collection, 2, UNLIMITED, pause)?;
        let half = most["qps"].as_f64().unwrap_or_default() / 2.0;
        let ((), alone) = self.searching(&collection, 2, half, pause)?;
        say(&json!({ "scene": "merge", "most": most, "alone_at_half": alone }));
        // Points come at a steady rate and are merged as they come.
        let (steady, beside) = self.searching(&collection, 2, half, || self.steady(&collection, n + extra))?;
        say(&json!({ "scene": "merge", "steady": steady, "searches_beside": beside }));
        self.drain(&collection)?;
        let truth = self.truth(&mut (0..n + 2 * extra))?;
        say(&json!({ "scene": "merge", "recall": self.recall(&collection, &truth, &|key| key)?, "rss_peak": peak_rss_bytes() }));
        let fresh = self.collection("fresh", n + 2 * extra, n + 2 * extra, Durability::Os)?;
        say(&json!({ "scene": "merge", "recall_of_a_build": self.recall(&fresh, &truth, &|key| key)? }));
        Ok(())
    }

    /// Writes `--extra` points at `--rate` a second, while another thread merges what is there.
    fn steady(&self, collection: &Collection, first: u64) -> Outcome<Value> {
        let (stop, begin) = (AtomicBool::new(false), Instant::now());
        let limits = MergeLimits { inserts: 2048, removals: 2048, ..MergeLimits::default() };
        let (inserted, bytes, most) = thread::scope(|scope| {
            let merger = scope.spawn(|| -> Outcome<(u64, u64, u64)> {
                let (mut inserted, mut bytes, mut most) = (0, 0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let stats = collection.stats();
                    most = most.max(stats.delta_points - stats.delta_dead);
                    if stats.delta_points - stats.delta_dead < 512 {
                        thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                    let report = collection.merge(&limits)?;
                    (inserted, bytes) = (inserted + report.inserted, bytes + report.bytes);
                }
                Ok((inserted, bytes, most))
            });
            for row in (first..first + self.args.extra).step_by(BATCH) {
                let due = Duration::from_secs_f64((row - first) as f64 / self.args.rate);
                thread::sleep(due.saturating_sub(begin.elapsed()));
                let end = (row + BATCH as u64).min(first + self.args.extra);
                collection.write((row..end).map(|row| self.point(row, row)).collect())?;
            }
            stop.store(true, Ordering::Relaxed);
            merger.join().unwrap_or_else(|_| Err("the merger panicked".into()))
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        let written = self.args.extra as f64 / seconds;
        Ok(json!({
            "asked_per_second": self.args.rate, "written_per_second": written, "merged_per_second": inserted as f64 / seconds, "merged": inserted,
            "seconds": seconds, "waiting_at_most": most, "bytes": bytes,
        }))
    }

    fn churn(&self, clustered: bool) -> Outcome {
        let n = self.args.rows;
        let name = if clustered { "clustered" } else { "rolling" };
        let collection = self.collection(name, n, n + n / 10 + 1000, Durability::Os)?;
        let graph = self.work.join(name).join(base_of(&self.work.join(name))?).join("graph.rx");
        let built = fs::metadata(&graph)?.len();
        let truths = [self.truth(&mut (0..n))?, self.truth(&mut (n..2 * n))?];
        say(&json!({ "scene": name, "turn": 0, "recall": self.recall(&collection, &truths[0], &|key| key)? }));
        for turn in 1..=self.args.turns {
            let from = if turn % 2 == 1 { n } else { 0 };
            let order = if clustered { self.by_cluster(from, n) } else { (0..n).collect() };
            let (begin, mut merging) = (Instant::now(), 0.0);
            for step in order.chunks((n / STEPS).max(1) as usize) {
                self.write_rows(&collection, &mut step.iter().map(|&key| (key, from + key)))?;
                let drain = self.drain(&collection)?;
                merging += drain["seconds"].as_f64().unwrap_or_default();
            }
            let recall = self.recall(&collection, &truths[(turn % 2) as usize], &|key| key)?;
            let size = fs::metadata(&graph)?.len();
            let stats = collection.stats();
            say(&json!({
                "scene": name, "turn": turn, "recall": recall, "seconds": begin.elapsed().as_secs_f64(), "merging_seconds": merging,
                "replaced_per_second": n as f64 / merging, "size_ratio": size as f64 / built as f64, "base_free": stats.base_free,
                "base_dead": stats.base_dead, "rss_peak": peak_rss_bytes(),
            }));
        }
        let last = self.args.turns % 2;
        let from = last * n;
        let index = self.work.join("fresh.rx");
        let _ = fs::remove_dir_all(self.work.join("fresh"));
        self.build(self.file("again", &mut (from..from + n))?, (0..n).collect(), 0, &index)?;
        let fresh = self.promoted("fresh", &index)?;
        say(&json!({ "scene": name, "recall_of_a_build": self.recall(&fresh, &truths[last as usize], &|key| key)? }));
        Ok(())
    }

    fn promoted(&self, name: &str, index: &Path) -> Outcome<Collection> {
        let element = if self.element == ElementType::U8 { ElementType::U8 } else { ElementType::F32 };
        let config = CollectionConfig { dim: self.dim, metric: self.args.metric, element, keys: KeyKind::Numbers };
        let collection = Collection::create(self.work.join(name), &config, &CollectionOptions::default())?;
        collection.promote(index, 0, Previous::Remove)?;
        Ok(collection)
    }

    /// Keys in the order of the nearest of a few rows that were drawn.
    fn by_cluster(&self, from: u64, n: u64) -> Vec<u64> {
        const CENTERS: u64 = 64;
        let square = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let center = |c: u64| self.row(from + c * (n / CENTERS));
        let nearest = |key: u64| {
            let of = |c: &u64| square(self.row(from + key), center(*c));
            (0..CENTERS).min_by(|a, b| of(a).total_cmp(&of(b))).unwrap_or_default()
        };
        let mut keys: Vec<(u64, u64)> = (0..n).map(|key| (nearest(key), key)).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    fn delete(&self) -> Outcome {
        let n = self.args.rows;
        let collection = self.collection("delete", n, n + 1000, Durability::Os)?;
        let stays = |key: &u64| key.is_multiple_of(10);
        let keys: Vec<u64> = (0..n).filter(|key| !stays(key)).collect();
        for some in keys.chunks(BATCH) {
            collection.write(some.iter().map(|&key| Change::Delete(PointKey::Number(key))).collect())?;
        }
        let truth = self.truth(&mut (0..n).filter(stays))?;
        say(&json!({ "scene": "delete", "recall_before_merging": self.recall(&collection, &truth, &|key| key / 10)? }));
        say(&json!({ "scene": "delete", "drain": self.drain(&collection)? }));
        let k = (n / 10) as usize;
        let all = collection.search(self.row(0), &SearchParams { k, list_size: 2 * k, ..SearchParams::DEFAULT })?;
        let stats = collection.stats();
        say(&json!({
            "scene": "delete", "recall": self.recall(&collection, &truth, &|key| key / 10)?, "reached": all.hits.len(), "points": stats.points,
            "base_free": stats.base_free, "base_dead": stats.base_dead,
        }));
        let index = self.work.join("kept.rx");
        self.build(self.file("kept", &mut (0..n).filter(stays))?, (0..n).filter(stays).collect(), 0, &index)?;
        let fresh = self.promoted("kept-fresh", &index)?;
        say(&json!({ "scene": "delete", "recall_of_a_build": self.recall(&fresh, &truth, &|key| key / 10)? }));
        self.write_rows(&collection, &mut keys.iter().map(|&key| (key, key)))?;
        let drain = self.drain(&collection)?;
        let truth = self.truth(&mut (0..n))?;
        let recall = self.recall(&collection, &truth, &|key| key)?;
        say(&json!({ "scene": "delete", "put_again": drain, "recall": recall, "base_points": collection.stats().base_points }));
        Ok(())
    }
}

/// The name of the directory of the base in a collection's.
fn base_of(path: &Path) -> Outcome<String> {
    let names = fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    names.into_iter().find(|name| name.starts_with("base-")).ok_or_else(|| "the collection has no base".into())
}
