//! What a search is asked and what it answers.

use crate::SearchError;
use roxanne_core::id::Key;
use std::time::Duration;

/// Most reads in flight for one query.
pub(crate) const MAX_BEAM_WIDTH: usize = 64;
/// Largest list: at 16 bytes a candidate it stays small against any budget.
pub(crate) const MAX_LIST_SIZE: usize = 1 << 20;

/// A slack that leaves nothing out.
pub(crate) const MAX_SLACK: f32 = 1000.0;

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchParams {
    /// Hits wanted.
    pub k: usize,
    /// Candidates kept while searching (L): more finds more and reads more. At least `k` is used.
    pub list_size: usize,
    /// End when every candidate is expanded that is at most `1 + slack` times as far as the k-th; `list_size` is then a bound, and should be a large
    /// one. 0 for none: the list alone decides. For the same recall a slack reads a fifth less than a list. Not under filters, radius and
    /// cursors, nor beside nodes of a collection that are dead.
    pub slack: f32,
    /// Most reads in flight for this query (W): more is faster on an idle device and reads a little more. Fewer are used while a searcher has
    /// other queries to keep the device busy with.
    pub beam_width: usize,
    /// The same answer every time, whatever order reads come back in and whatever is in the cache: the beam is of fixed width, and pages are
    /// looked at in the order in which they were asked for. A little slower.
    pub deterministic: bool,
    /// After this long the search ends with what it has found, and the answer says so.
    pub deadline: Option<Duration>,
}

impl SearchParams {
    /// Ten hits, and a list that finds about 98 of 100 on the data sets of bench/RESULTS.md.
    pub const DEFAULT: SearchParams =
        SearchParams { k: 10, list_size: 64, slack: 0.0, beam_width: 4, deterministic: false, deadline: None };
}

impl SearchParams {
    /// The same search, ended by `slack` within a list that is long enough for it.
    pub fn with_slack(self, slack: f32) -> SearchParams {
        SearchParams { slack, list_size: 1000.max(self.k), ..self }
    }

    /// Proves that all are in range.
    pub(crate) fn check(&self) -> Result<(), SearchError> {
        in_range("k", self.k, MAX_LIST_SIZE)?;
        in_range("list_size", self.list_size, MAX_LIST_SIZE)?;
        in_range("beam_width", self.beam_width, MAX_BEAM_WIDTH)?;
        if (0.0..=MAX_SLACK).contains(&self.slack) { Ok(()) } else { Err(SearchError::Slack { got: self.slack }) }
    }
}

pub(crate) fn in_range(name: &'static str, got: usize, high: usize) -> Result<(), SearchError> {
    if (1..=high).contains(&got) { Ok(()) } else { Err(SearchError::Param { name, got, low: 1, high }) }
}

impl Default for SearchParams {
    fn default() -> SearchParams {
        SearchParams::DEFAULT
    }
}

/// One vector found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its key; the number of a string key (see `Index::key_name`).
    pub key: Key,
    /// Its distance under the index's metric: exact, or that of what its record holds (`IndexInfo::stored`).
    pub distance: f32,
}

/// What a search found, and what it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Nearest first; fewer than `k` only when the index, or the filter, holds fewer, or the deadline came first.
    pub hits: Vec<Hit>,
    /// Whether the search came to its end; false when its deadline did.
    pub complete: bool,
    /// Its cost.
    pub stats: SearchStats,
}

/// Which way a search went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Steered by compressed distances, pages read as they were wanted.
    #[default]
    Flash,
    /// Over pages that are all in RAM, steered by exact distances.
    Resident,
    /// Neighbors in RAM: steered by compressed distances without reading, then the best candidates were read.
    Adjacency,
    /// A filter left so few that all of them were ranked by their codes, and the best read.
    Scan,
}

impl Way {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Way::Flash => "flash",
            Way::Resident => "resident",
            Way::Adjacency => "adjacency",
            Way::Scan => "scan",
        }
    }
}

/// The cost of one search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// The way it went.
    pub way: Way,
    /// Pages read from the device.
    pub reads: u64,
    /// Pages that cost no read: they were in the cache, or on their way for another query.
    pub cache_hits: u64,
    /// Nodes whose neighbors were looked at.
    pub expanded: u64,
    /// Distances computed, compressed and exact.
    pub distances: u64,
    /// Wall time in microseconds, from the moment it was submitted.
    pub micros: u64,
}
