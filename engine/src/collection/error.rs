//! Why a collection did not do as it was told. Nothing is changed in any case but the one that says it cannot tell.

use super::{KeyKind, PointKey, VectorError};
use crate::{OpenError, SearchError};
use roxanne_core::{ErrorClass, distance::UnsupportedMetric};
use std::path::PathBuf;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    /// Something is there already.
    #[error("{path}: exists already and was left untouched")]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing, or something else, is there.
    #[error("{path}: not a collection: {detail}")]
    NotACollection {
        /// The directory.
        path: PathBuf,
        /// What is there.
        detail: String,
    },
    /// Another process writes to it.
    #[error("{path}: process {pid} has it open for writing; one at a time may (end it, or wait)")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who.
        pid: String,
    },
    /// A snapshot that is not what it was, or none.
    #[error("{path}: a snapshot that cannot be restored: {detail}")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// It cannot be merged into while others read it.
    #[error("{path}: other processes have it open for reading; its base is changed when they have closed it")]
    BeingRead {
        /// The directory.
        path: PathBuf,
    },
    /// No vectors are so long or short.
    #[error("a dimension of {dim}: it is 1 to {max}, and of packed bits a multiple of 8", max = roxanne_core::id::MAX_DIM)]
    Dimension {
        /// Asked for.
        dim: usize,
    },
    /// A metric that is not defined on the type.
    #[error(transparent)]
    Metric(#[from] UnsupportedMetric),
    /// A key that is none.
    #[error("key \"{key}\": {why}")]
    BadKey {
        /// Its beginning.
        key: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A key of the other kind.
    #[error("point {at}: key {key}: the collection's keys are {kind}", kind = kind.name())]
    KeyKind {
        /// Which of the batch.
        at: usize,
        /// The key.
        key: PointKey,
        /// What keys are.
        kind: KeyKind,
    },
    /// A point that cannot be taken.
    #[error("point {at}: {error}")]
    Vector {
        /// Which of the batch.
        at: usize,
        /// What is wrong.
        error: VectorError,
    },
    /// A query that cannot be searched.
    #[error("the query cannot be searched: {0}")]
    Query(VectorError),
    /// A payload that is no JSON, or too long.
    #[error("point {at}: payload: {detail}")]
    Payload {
        /// Which of the batch.
        at: usize,
        /// What is wrong.
        detail: String,
    },
    /// A filter that makes no sense.
    #[error("{detail}")]
    Filter {
        /// What, and where in it.
        detail: String,
    },
    /// One key twice in a batch.
    #[error("points {first} and {second} have one key, {key}; a batch names a key once")]
    DuplicateKey {
        /// Place in the batch.
        first: usize,
        /// Place in the batch.
        second: usize,
        /// The key.
        key: PointKey,
    },
    /// Insert-only, and the key is there.
    #[error("point {at}: key {key} is there already")]
    KeyExists {
        /// Which of the batch.
        at: usize,
        /// The key.
        key: PointKey,
    },
    /// What is in memory has come to its limit.
    #[error("{bytes} bytes of vectors wait in memory, {allowed} are allowed: merge them into the base, or open the collection with more")]
    DeltaFull {
        /// With this batch.
        bytes: u64,
        /// The limit.
        allowed: u64,
    },
    /// The disk has come to what is left free.
    #[error(
        "{path}: {free} bytes of the disk are free, {reserve} stay so: delete points, or files, or open the collection with a smaller reserve"
    )]
    DiskFull {
        /// The directory.
        path: PathBuf,
        /// Now.
        free: u64,
        /// The limit.
        reserve: u64,
    },
    /// An earlier write failed at the disk.
    #[error("{path}: writing stopped after an error ({cause}); searches go on; open the collection again to write")]
    Poisoned {
        /// The directory.
        path: PathBuf,
        /// What came first.
        cause: String,
    },
    /// The write that failed. After opening again it is there wholly or not at all.
    #[error("{path}: the write failed and may or may not be found after opening again: {detail}")]
    WriteOutcomeUnknown {
        /// The directory.
        path: PathBuf,
        /// What the store says.
        detail: String,
    },
    /// A base that shall be drained, and is not.
    #[error("{path}: searches or scans of the base that began a minute ago go on; nothing was changed, try again")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing to go back to.
    #[error("{path}: the base before the last promotion is not kept; there is nothing to go back to")]
    NoPrevious {
        /// The directory.
        path: PathBuf,
    },
    /// A reader that could not follow.
    #[error("{path}: another process has replaced the base, and it could not be followed: {detail}")]
    Behind {
        /// The directory.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// Opened without the right to write.
    #[error("{path}: opened for reading")]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// The store of keys, payloads and recent vectors.
    #[error("{path}: the store failed: {detail}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// What it says.
        detail: String,
        /// Damaged, or only out of reach.
        corrupt: bool,
    },
    /// The operating system.
    #[error("{path}: {error}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it says.
        error: std::io::Error,
    },
    /// The base generation.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A search of it.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A generation that is not this collection's.
    #[error("{path}: cannot become the base: {detail}")]
    Rejected {
        /// The generation.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
}

impl CollectionError {
    /// How a door reports it.
    pub fn class(&self) -> ErrorClass {
        use CollectionError as E;
        match self {
            E::Locked { .. } | E::BeingRead { .. } | E::InUse { .. } | E::Behind { .. } | E::DeltaFull { .. } => ErrorClass::Busy,
            E::DiskFull { .. } => ErrorClass::Budget,
            E::Poisoned { .. } | E::WriteOutcomeUnknown { .. } => ErrorClass::Device,
            E::Store { corrupt, .. } => {
                if *corrupt {
                    ErrorClass::Corrupt
                } else {
                    ErrorClass::Device
                }
            }
            E::Io { error, .. } => ErrorClass::of_io(error),
            E::Open(error) => error.class(),
            E::Search(error) => error.class(),
            E::Rejected { .. } => ErrorClass::Gate,
            E::Snapshot { .. } => ErrorClass::Corrupt,
            E::Dimension { .. } | E::Metric(_) | E::ReadOnly { .. } => ErrorClass::Usage,
            _ => ErrorClass::BadInput,
        }
    }
}
