//! How well an index finds its own vectors: what is asked of it before it serves.

use crate::{Index, SearchError, SearchParams};
use roxanne_core::recall::found_by_distance;

/// How many neighbors are looked for.
const K: usize = 10;

impl Index {
    /// Recall@10 of searches with lists of `list_size` for `count` of the index's own vectors, against all of them; by distance, so that of equals any is as
    /// good as another. `each` is told before every search how many there are, and ends it where it says false: `None` then.
    ///
    /// # Errors
    /// As [`Index::search`] and [`Index::exact`].
    pub fn own_recall(&self, count: u64, list_size: usize, each: &mut dyn FnMut(u64) -> bool) -> Result<Option<f64>, SearchError> {
        let sample = self.sample(count, 1)?;
        let queries: Vec<&[f32]> = sample.iter().map(|(_, row)| &row[..]).collect();
        let all = queries.len() as u64;
        if !each(all) {
            return Ok(None);
        }
        let truth = self.exact(&queries, K, None)?;
        let params = SearchParams { k: K, list_size, ..SearchParams::DEFAULT };
        let mut sum = 0.0;
        for (query, truth) in queries.iter().zip(&truth) {
            if !each(all) {
                return Ok(None);
            }
            let truth: Vec<f32> = truth.hits.iter().map(|hit| hit.distance).collect();
            let found = found_by_distance(self.search(query, &params)?.hits.iter().map(|hit| hit.distance), &truth);
            sum += if truth.is_empty() { 1.0 } else { found as f64 / truth.len() as f64 };
        }
        Ok(Some(sum / (queries.len() as f64).max(1.0)))
    }
}
