//! What `/metrics` shows, in Prometheus' text form.

use crate::{Server, jobs::State, searches::Plan};
use roxanne_engine::{SearchStats, collection::CollectionStats};
use serde_json::{Value, json};
use std::{
    fmt::Write,
    fs,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Bounds of the histogram of searches, in microseconds.
const BOUNDS: [u64; 12] = [200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];

#[derive(Default)]
struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// Answers of one operation, by the hundreds of the status: 1xx to 5xx.
#[derive(Default)]
struct Answers([AtomicU64; 5]);

pub(crate) struct Metrics {
    /// By the number of the route; the last are those that no route was found for.
    answers: Vec<Answers>,
    searches: [Histogram; 3],
    /// Nanoseconds that the threads of searches ran.
    search_cpu: AtomicU64,
    reads: AtomicU64,
    cache_hits: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// Lines of one name.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str, values: impl IntoIterator<Item = (String, f64)>) {
        // Writing into a string does not fail.
        let _ = writeln!(self.0, "# HELP roxanne_{name} {help}\n# TYPE roxanne_{name} {kind}");
        values.into_iter().for_each(|(labels, value)| _ = writeln!(self.0, "roxanne_{labels} {value}"));
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help, [(name.to_string(), value)]);
    }
}

impl Metrics {
    pub(crate) fn of(routes: usize) -> Metrics {
        Metrics {
            answers: (0..=routes).map(|_| Answers::default()).collect(),
            searches: Default::default(),
            search_cpu: AtomicU64::default(),
            reads: AtomicU64::default(),
            cache_hits: AtomicU64::default(),
            connections: AtomicU64::default(),
        }
    }

    /// Counts an answer of a route by its number, or of none.
    pub(crate) fn answered(&self, route: Option<usize>, status: u16) {
        let answers = route.and_then(|route| self.answers.get(route)).or(self.answers.last());
        if let Some(count) = answers.and_then(|answers| answers.0.get(usize::from(status / 100).wrapping_sub(1))) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn searched(&self, plan: Plan, took: Duration, cpu: Duration, stats: &SearchStats) {
        self.search_cpu.fetch_add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let histogram = &self.searches[plan as usize];
        histogram.counts[BOUNDS.partition_point(|&bound| bound < micros)].fetch_add(1, Relaxed);
        histogram.micros.fetch_add(micros, Relaxed);
        self.reads.fetch_add(stats.reads, Relaxed);
        self.cache_hits.fetch_add(stats.cache_hits, Relaxed);
    }

    /// What the dashboard draws: counters, from which it makes rates.
    pub(crate) fn shown(&self) -> Value {
        let value = |count: &AtomicU64| count.load(Relaxed);
        let plans = Plan::ALL.map(|plan| {
            let histogram = &self.searches[plan as usize];
            (
                plan.name().to_string(),
                json!({"counts": histogram.counts.iter().map(value).collect::<Vec<_>>(), "micros": value(&histogram.micros)}),
            )
        });
        let answers: Vec<u64> = (0..5).map(|class| self.answers.iter().map(|answers| value(&answers.0[class])).sum()).collect();
        json!({
            "bounds_us": BOUNDS, "searches": serde_json::Map::from_iter(plans), "reads": value(&self.reads),
            "cache_hits": value(&self.cache_hits), "connections": value(&self.connections), "answers": answers,
        })
    }

    pub(crate) fn text(&self, server: &Server, names: &[&str]) -> String {
        let mut out = Text(String::new());
        let value = |count: &AtomicU64| count.load(Relaxed) as f64;
        out.family("build_info", "gauge", "The version.", [(format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0)]);
        let operations = self.answers.iter().enumerate().flat_map(|(route, answers)| {
            let name = names.get(route).copied().unwrap_or("none");
            let counted = (1..).zip(&answers.0).filter(|(_, count)| count.load(Relaxed) > 0);
            counted.map(move |(class, count)| (format!("http_requests_total{{operation=\"{name}\",status=\"{class}xx\"}}"), value(count)))
        });
        out.family("http_requests_total", "counter", "Answers, by operation and status.", operations);
        out.one("http_connections", "gauge", "Open connections.", value(&self.connections));
        let buckets = Plan::ALL.iter().flat_map(|plan| {
            let (histogram, plan, mut total) = (&self.searches[*plan as usize], plan.name(), 0.0);
            let mut lines = Vec::new();
            for (i, count) in histogram.counts.iter().enumerate() {
                total += value(count);
                let bound = BOUNDS.get(i).map_or("+Inf".to_string(), |&micros| (micros as f64 / 1e6).to_string());
                lines.push((format!("search_seconds_bucket{{plan=\"{plan}\",le=\"{bound}\"}}"), total));
            }
            lines.push((format!("search_seconds_sum{{plan=\"{plan}\"}}"), value(&histogram.micros) / 1e6));
            lines.push((format!("search_seconds_count{{plan=\"{plan}\"}}"), total));
            lines
        });
        out.family("search_seconds", "histogram", "Time of searches in the engine.", buckets);
        out.one("search_cpu_seconds_total", "counter", "CPU of searches, on the threads that ran them.", value(&self.search_cpu) / 1e9);
        out.one("search_reads_total", "counter", "Pages that searches read.", value(&self.reads));
        out.one("search_cache_hits_total", "counter", "Pages that cost no read.", value(&self.cache_hits));
        collections(server, &mut out);
        let (running, counts) = server.jobs.counts();
        let states = State::ALL.map(|state| (format!("jobs{{state=\"{}\"}}", state.name()), counts[state as usize] as f64));
        out.family("jobs", "gauge", "Jobs that are remembered.", states);
        let progress = running.iter().map(|job| {
            let progress = job.progress.clone().unwrap_or_default();
            let labels = format!("id=\"{}\",kind=\"{}\",collection=\"{}\"", job.id, job.work.kind(), job.work.collection().unwrap_or(""));
            (format!("job_progress_ratio{{{labels}}}"), progress.done as f64 / progress.total.max(1) as f64)
        });
        out.family("job_progress_ratio", "gauge", "How far the phase of a job at work is.", progress);
        if let Ok(disk) = rustix::fs::statvfs(&server.path) {
            out.one("disk_free_bytes", "gauge", "Free on the disk of the data.", (disk.f_bavail * disk.f_frsize) as f64);
        }
        if let Some(bytes) = resident_bytes() {
            out.one("process_resident_bytes", "gauge", "Memory of the process.", bytes as f64);
        }
        out.0
    }
}

fn collections(server: &Server, out: &mut Text) {
    let all = server.collections.all();
    let stats: Vec<(&str, CollectionStats)> = all.iter().map(|(name, served)| (&**name, served.collection.stats())).collect();
    type Look = fn(&CollectionStats) -> u64;
    let looks: [(&str, &str, Look); 8] = [
        ("points", "Live points.", |stats| stats.points),
        ("sequence", "Batches written.", |stats| stats.sequence),
        ("base_points", "Slots of the base.", |stats| stats.base_points),
        ("base_dead", "Slots of the base whose point was replaced or deleted.", |stats| stats.base_dead - stats.base_free),
        ("base_free", "Slots of the base that wait for a point.", |stats| stats.base_free),
        ("delta_points", "Vectors in memory that wait to be merged.", |stats| stats.delta_points - stats.delta_dead),
        ("delta_bytes", "Memory of vectors that wait to be merged.", |stats| stats.delta_bytes),
        ("delta_allowed_bytes", "Its limit.", |stats| stats.delta_allowed),
    ];
    for (name, help, look) in looks {
        let values =
            stats.iter().map(|(collection, stats)| (format!("collection_{name}{{collection=\"{collection}\"}}"), look(stats) as f64));
        out.family(&format!("collection_{name}"), "gauge", help, values);
    }
    let generations = all.iter().filter_map(|(name, served)| {
        let generation = served.collection.base_generation()?;
        Some((format!("collection_base_info{{collection=\"{name}\",generation=\"{generation:016x}\"}}"), 1.0))
    });
    out.family("collection_base_info", "gauge", "The base that serves.", generations);
    let memory = all.iter().flat_map(|(name, served)| {
        let memory = served.collection.memory();
        let kinds = [("codes", memory.resident_bytes), ("cache", memory.kept_bytes), ("delta", memory.delta_bytes)];
        kinds.map(|(kind, bytes)| (format!("collection_memory_bytes{{collection=\"{name}\",kind=\"{kind}\"}}"), bytes as f64))
    });
    out.family("collection_memory_bytes", "gauge", "Memory by what it is for; of the cache what it may come to.", memory);
    let allowed = all.iter().map(|(name, served)| {
        (format!("collection_memory_allowed_bytes{{collection=\"{name}\"}}"), served.collection.memory().allowed_bytes as f64)
    });
    out.family("collection_memory_allowed_bytes", "gauge", "Memory that the base and the delta may take.", allowed);
    out.one("collections_not_open", "gauge", "Collections that could not be opened.", server.collections.not_open().len() as f64);
    let trouble = all.iter().map(|(name, served)| {
        (format!("collection_trouble{{collection=\"{name}\"}}"), f64::from(u8::from(served.collection.trouble().is_some())))
    });
    out.family("collection_trouble", "gauge", "Whether merging or building in the background failed.", trouble);
    let recalls: Vec<_> = all.iter().filter_map(|(name, served)| Some((name, served.canary.recall()?))).collect();
    let values = recalls.iter().map(|(name, (recall, _))| (format!("canary_recall{{collection=\"{name}\"}}"), *recall));
    out.family("canary_recall", "gauge", "Recall@10 of queries that were asked, against all points.", values);
    let values = recalls.iter().map(|(name, (_, count))| (format!("canary_searches_total{{collection=\"{name}\"}}"), *count as f64));
    out.family("canary_searches_total", "counter", "Queries that were compared.", values);
}

/// CPU of this thread so far.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Memory of this process, where `/proc` says it.
pub(crate) fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
