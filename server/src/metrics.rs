//! What `/metrics` shows, in Prometheus' text form.

use roxanne_engine::collection::CollectionStats;
use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Bounds of the histogram of searches, in microseconds.
const BOUNDS: [u64; 12] = [200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];

#[derive(Default)]
pub(crate) struct Metrics {
    /// By the hundreds of the status: 1xx to 5xx.
    answers: [AtomicU64; 5],
    searches: [AtomicU64; BOUNDS.len() + 1],
    search_micros: AtomicU64,
    reads: AtomicU64,
    pub(crate) connections: AtomicU64,
}

impl Metrics {
    pub(crate) fn answered(&self, status: u16) {
        if let Some(count) = self.answers.get(usize::from(status / 100).wrapping_sub(1)) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn searched(&self, took: Duration, reads: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.searches[BOUNDS.partition_point(|&bound| bound < micros)].fetch_add(1, Relaxed);
        self.search_micros.fetch_add(micros, Relaxed);
        self.reads.fetch_add(reads, Relaxed);
    }

    pub(crate) fn text(&self, collections: &[(String, CollectionStats)]) -> String {
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            // Writing into a string does not fail.
            let _ = writeln!(out, "# HELP roxanne_{name} {help}\n# TYPE roxanne_{name} {kind}");
            values.iter().for_each(|(labels, value)| _ = writeln!(out, "roxanne_{labels} {value}"));
        };
        let value = |count: &AtomicU64| count.load(Relaxed) as f64;
        let answers = (1..).zip(&self.answers).map(|(i, count)| (format!("http_requests_total{{status=\"{i}xx\"}}"), value(count)));
        family("http_requests_total", "counter", "Answers, by status.", &answers.collect::<Vec<_>>());
        family("http_connections", "gauge", "Open connections.", &[("http_connections".into(), value(&self.connections))]);
        let mut total = 0.0;
        let mut buckets: Vec<(String, f64)> = Vec::new();
        for (i, count) in self.searches.iter().enumerate() {
            total += value(count);
            let bound = BOUNDS.get(i).map_or("+Inf".to_string(), |&micros| (micros as f64 / 1e6).to_string());
            buckets.push((format!("search_seconds_bucket{{le=\"{bound}\"}}"), total));
        }
        buckets.push(("search_seconds_sum".into(), value(&self.search_micros) / 1e6));
        buckets.push(("search_seconds_count".into(), total));
        family("search_seconds", "histogram", "Time of searches in the engine.", &buckets);
        family("search_reads_total", "counter", "Pages that searches read.", &[("search_reads_total".into(), value(&self.reads))]);
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
            let label = |collection: &str| format!("collection_{name}{{collection=\"{collection}\"}}");
            let values: Vec<_> = collections.iter().map(|(collection, stats)| (label(collection), look(stats) as f64)).collect();
            family(&format!("collection_{name}"), "gauge", help, &values);
        }
        out
    }
}
