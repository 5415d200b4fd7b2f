//! Why an index was not opened, and why a search gave no answer.

use crate::io::{OpenPagesError, ReadError};
use roxanne_core::{
    ErrorClass,
    build_codes::{CodecError, RowError},
    distance::UnsupportedMetric,
    element::NotRepresentable,
    format::FormatError,
    pq::CodebookError,
};
use std::path::PathBuf;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Absent, damaged, newer.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// graph.rx cannot be read by pages.
    #[error(transparent)]
    Pages(#[from] OpenPagesError),
    /// The codebook is none.
    #[error("{path}: corrupt: {error}")]
    Codebook {
        /// codebook.rx.
        path: PathBuf,
        /// What is wrong.
        error: CodebookError,
    },
    /// The manifest names a combination that does not exist.
    #[error("{path}: corrupt: {error}")]
    Codec {
        /// MANIFEST.
        path: PathBuf,
        /// What is wrong.
        error: CodecError,
    },
    /// The same, of the exact distance.
    #[error("{path}: corrupt: {error}")]
    Metric {
        /// MANIFEST.
        path: PathBuf,
        /// What is wrong.
        error: UnsupportedMetric,
    },
    /// A page that the disk did not give.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Refused before anything was loaded.
    #[error("{path}: serving it needs {needed} bytes of memory, {allowed} are allowed: give more, or build with fewer bytes a code")]
    Budget {
        /// The index.
        path: PathBuf,
        /// The process, codes, codebook, navigation graph, searchers.
        needed: u64,
        /// The budget.
        allowed: u64,
    },
}

impl OpenError {
    /// How a door reports it.
    pub fn class(&self) -> ErrorClass {
        match self {
            OpenError::Format(error) => error.class(),
            OpenError::Budget { .. } => ErrorClass::Budget,
            OpenError::Pages(OpenPagesError::Io { source, .. }) => ErrorClass::of_io(source),
            OpenError::Pages(_) => ErrorClass::Corrupt,
            OpenError::Read(error) => class_of(error),
            OpenError::Codebook { .. } | OpenError::Codec { .. } | OpenError::Metric { .. } => ErrorClass::Corrupt,
        }
    }
}

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A query of another model.
    #[error("{path}: built for {found} dimensions, the query has {asked}; search with the model that built this index")]
    DimensionMismatch {
        /// The index.
        path: PathBuf,
        /// Of the index.
        found: usize,
        /// Of the query.
        asked: usize,
    },
    /// NaN, infinity, too long, or zero under cosine.
    #[error("the query cannot be searched: {0}")]
    Query(#[from] RowError),
    /// A fractional or large coordinate for an index of bytes.
    #[error("the query does not fit the index: {0}")]
    NotRepresentable(#[from] NotRepresentable),
    /// Numbers for keys that are strings.
    #[error("{path}: its keys are strings; name them as such")]
    StringKeys {
        /// The index.
        path: PathBuf,
    },
    /// A slack that is none.
    #[error("slack {got} is not in 0 to {max}", max = crate::params::MAX_SLACK)]
    Slack {
        /// Asked for.
        got: f32,
    },
    /// A radius that is NaN.
    #[error("the radius is no number")]
    Radius,
    /// As many queries as a searcher takes are in flight, or a search that has a searcher to itself met some.
    #[error("{in_flight} queries are in flight on this searcher; wait for one before the next")]
    Busy {
        /// Queries in flight.
        in_flight: usize,
    },
    /// What looks at all of it, and did not end in the time given.
    #[error("it did not end in the time given")]
    Late,
    /// It has let go of its codes for another base that takes its place.
    #[error("{path}: another base is taking its place, and memory for both is not allowed (drain); search again in a moment")]
    Drained {
        /// The index.
        path: PathBuf,
    },
    /// One searcher too many for the budget that the index was opened with.
    #[error("a searcher needs {needed} bytes, {left} are left of the index's budget; open it with more memory, or use fewer searchers")]
    Budget {
        /// Of the searcher.
        needed: u64,
        /// Of the budget.
        left: u64,
    },
    /// A parameter out of range, `k`, `list_size`, `beam_width` or `in_flight`.
    #[error("{name} {got} is not in {low} to {high}")]
    Param {
        /// Which.
        name: &'static str,
        /// Asked for.
        got: usize,
        /// Least.
        low: usize,
        /// Most.
        high: usize,
    },
    /// The disk or the reader failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Damage met on the way. No answer is given, rather than a wrong one.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl SearchError {
    /// The same for another query that waited for the page.
    pub(crate) fn again(&self) -> SearchError {
        match self {
            SearchError::Read(error) => error.clone().into(),
            SearchError::Format(FormatError::Corrupt { path, offset, detail }) => {
                FormatError::Corrupt { path: path.clone(), offset: *offset, detail: detail.clone() }.into()
            }
            other => FormatError::Io { path: PathBuf::new(), error: std::io::Error::other(other.to_string()) }.into(),
        }
    }

    /// How a door reports it.
    pub fn class(&self) -> ErrorClass {
        match self {
            SearchError::DimensionMismatch { .. } | SearchError::Query(_) | SearchError::NotRepresentable(_) => ErrorClass::BadInput,
            SearchError::Param { .. } | SearchError::Slack { .. } | SearchError::Radius | SearchError::StringKeys { .. } => {
                ErrorClass::Usage
            }
            SearchError::Busy { .. } | SearchError::Drained { .. } | SearchError::Late => ErrorClass::Busy,
            SearchError::Budget { .. } => ErrorClass::Budget,
            SearchError::Read(error) => class_of(error),
            SearchError::Format(error) => error.class(),
        }
    }
}

/// A file that ends too early is damaged; everything else is the device's or the system's.
fn class_of(error: &ReadError) -> ErrorClass {
    match error {
        ReadError::UnexpectedEnd { .. } | ReadError::PastEnd { .. } => ErrorClass::Corrupt,
        _ => ErrorClass::Device,
    }
}
