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
        /// Codes, codebook, navigation graph, one searcher.
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
    /// `k`, `list_size` or `beam_width` out of range.
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
    /// How a door reports it.
    pub fn class(&self) -> ErrorClass {
        match self {
            SearchError::DimensionMismatch { .. } | SearchError::Query(_) | SearchError::NotRepresentable(_) => ErrorClass::BadInput,
            SearchError::Param { .. } => ErrorClass::Usage,
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
