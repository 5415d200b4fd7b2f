//! A search that goes on: hits in portions, each from where the one before ended.

use crate::{Answer, KeySet, SearchError, SearchParams, Searcher, params::MAX_LIST_SIZE};
use std::{collections::HashSet, sync::Arc};

/// See `Index::cursor`. It holds a searcher of its own.
pub struct Cursor {
    searcher: Searcher,
    slot: usize,
    /// Candidates kept beyond what was given out, and in all.
    beyond: usize,
    list_size: usize,
    /// Keys that were given out: what is found late, though nearer than these, comes late.
    given: HashSet<u64>,
}

impl Cursor {
    pub(crate) fn new(
        mut searcher: Searcher,
        query: &[f32],
        params: &SearchParams,
        filter: Option<&Arc<KeySet>>,
    ) -> Result<Cursor, SearchError> {
        let slot = searcher.begin_cursor(query, params, filter)?;
        Ok(Cursor { searcher, slot, beyond: params.list_size, list_size: params.list_size, given: HashSet::new() })
    }

    /// The next `k` hits, none of which was given before; fewer only at the end of the index (or of a million candidates), or at a deadline, and
    /// then the answer says so. The list is `list_size` longer than what was given, so that later portions are as good as the first.
    ///
    /// # Errors
    /// See [`Searcher::search`].
    pub fn next(&mut self, k: usize) -> Result<Answer, SearchError> {
        let wanted = self.given.len().saturating_add(k).saturating_add(self.beyond);
        loop {
            self.list_size = self.list_size.max(wanted.min(MAX_LIST_SIZE));
            let mut answer = self.searcher.more(self.slot, self.list_size)?;
            answer.hits.retain(|hit| !self.given.contains(&hit.key.0));
            // Whatever is beyond the list was ranked by luck.
            let exhausted = self.list_size >= MAX_LIST_SIZE.min(self.searcher.vectors());
            if answer.hits.len() >= k || exhausted || !answer.complete {
                answer.hits.truncate(k);
                self.given.extend(answer.hits.iter().map(|hit| hit.key.0));
                return Ok(answer);
            }
            self.list_size *= 2;
        }
    }
}
