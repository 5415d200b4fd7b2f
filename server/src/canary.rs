//! Recall, measured all the time: now and then a query that was asked is asked again, by the graph and of all points, and the two answers are compared.
//!
//! An exact search reads all of a collection, so it comes so seldom that it takes a hundredth of the time at most, and never while the collection is
//! larger than [`MOST_POINTS`].

use crate::{
    Server,
    collections::Served,
    jobs::{distances, recall},
    searches::Search,
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Queries that are remembered.
const REMEMBERED: usize = 1000;
/// Of so many searches one is remembered, once there are some.
const ONE_OF: u64 = 16;
/// Comparisons that the figure is the mean of.
const COMPARED: usize = 100;
/// Hits that are compared.
const K: usize = 10;
/// Points of a collection that is not measured.
const MOST_POINTS: u64 = 20_000_000;
/// An exact search takes one part in so many of the time.
const SHARE: u32 = 100;

/// Of one collection.
#[derive(Default)]
pub(crate) struct Canary {
    searches: AtomicU64,
    measured: Mutex<Measured>,
}

#[derive(Default)]
struct Measured {
    /// Queries, and their list sizes; the latest last.
    asked: VecDeque<(Vec<f32>, usize)>,
    recalls: VecDeque<f64>,
    count: u64,
    next: u64,
    not_before: Option<Instant>,
}

impl Canary {
    fn locked(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a search, if it is one of those that are: of the graph alone, and not all of them.
    pub(crate) fn note(&self, search: &Search) {
        let number = self.searches.fetch_add(1, Relaxed);
        if search.exact || search.filter.is_some() || (number > REMEMBERED as u64 && !number.is_multiple_of(ONE_OF)) {
            return;
        }
        // Whoever would wait goes on instead.
        let Ok(mut measured) = self.measured.try_lock() else { return };
        if measured.asked.len() == REMEMBERED {
            measured.asked.pop_front();
        }
        measured.asked.push_back((search.vector.to_vec(), search.params.list_size));
    }

    /// The latest queries.
    pub(crate) fn recent(&self, count: usize) -> Vec<Vec<f32>> {
        self.locked().asked.iter().rev().take(count).map(|(query, _)| query.clone()).collect()
    }

    /// The mean recall of the last comparisons, if there were any, and how many there were in all.
    pub(crate) fn recall(&self) -> Option<(f64, u64)> {
        let measured = self.locked();
        let count = measured.recalls.len();
        (count > 0).then(|| (measured.recalls.iter().sum::<f64>() / count as f64, measured.count))
    }

    /// Makes one comparison, if there is a query and it is time.
    fn compare(&self, served: &Served) {
        if served.collection.count() > MOST_POINTS {
            return;
        }
        let (query, list_size) = {
            let mut measured = self.locked();
            if measured.asked.is_empty() || measured.not_before.is_some_and(|time| Instant::now() < time) {
                return;
            }
            let at = measured.next as usize % measured.asked.len();
            measured.next += 1;
            measured.asked[at].clone()
        };
        let params = roxanne_engine::SearchParams { k: K, list_size, ..roxanne_engine::SearchParams::DEFAULT };
        let search = |exact| Search { vector: &query, params, filter: None, exact }.run(served, false).ok();
        let start = Instant::now();
        // What is written between the two is a part of the figure; it is small.
        let (Some(found), Some(truth)) = (search(false), search(true)) else { return };
        let mut measured = self.locked();
        measured.not_before = Some(Instant::now() + start.elapsed() * SHARE);
        if measured.recalls.len() == COMPARED {
            measured.recalls.pop_front();
        }
        measured.recalls.push_back(recall(&distances(&found.hits), &distances(&truth.hits)));
        measured.count += 1;
    }
}

/// Compares, a query of each collection at a time, until the server ends.
pub(crate) async fn watch(server: Arc<Server>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let server = Arc::clone(&server);
        let round = move || {
            for name in server.collections.names() {
                if let Some(served) = server.collections.find(&name) {
                    served.canary.compare(&served);
                }
            }
        };
        let _ = tokio::task::spawn_blocking(round).await;
    }
}
