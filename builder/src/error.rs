//! Why a build gave no index. In every case the output path is as it was before.

use crate::{backend::BackendError, foreign::ForeignError};
use roxanne_core::{
    ErrorClass,
    build_codes::{CodecError, RowError},
    dataset::DatasetError,
    element::ElementType,
    format::{FormatError, keys::KeyListError, record::Stored},
    pq::TrainError,
};
use std::path::PathBuf;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// `build` before `input`.
    #[error("no input was given")]
    NoInput,
    /// The input cannot be read as vectors.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// An index of another system that is not understood.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// No vectors, or more than one generation holds.
    #[error("{source_name}: {n} vectors; an index holds 1 to {max}", max = roxanne_core::id::MAX_NODES)]
    Count {
        /// The input.
        source_name: String,
        /// Its rows.
        n: u64,
    },
    /// One row cannot be indexed.
    #[error("{source_name}: row {row}: {error}")]
    Row {
        /// The input.
        source_name: String,
        /// Which row.
        row: u64,
        /// Why.
        error: RowError,
    },
    /// The metric does not fit the vectors.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Keys that do not name the rows.
    #[error(transparent)]
    Keys(#[from] KeyListError),
    /// A parameter out of range.
    #[error("{name} {value} is not in {low} to {high}")]
    Param {
        /// Its name at the doors.
        name: &'static str,
        /// What was asked for.
        value: String,
        /// Least.
        low: f64,
        /// Most.
        high: f64,
    },
    /// A code with more bytes than coordinates.
    #[error("{asked} bytes a code; these vectors allow 1 to {widest}")]
    PqBytes {
        /// Asked for.
        asked: usize,
        /// Most.
        widest: usize,
    },
    /// A node that no page holds.
    #[error(
        "a vector of {dim} coordinates with {max_degree} neighbors does not fit a 64 KiB page; use a smaller degree or a narrower type (f16)"
    )]
    RecordTooLarge {
        /// Coordinates.
        dim: usize,
        /// Neighbors.
        max_degree: usize,
    },
    /// Vectors whose records cannot hold that.
    #[error(
        "records of {element} vectors hold them whole; {stored} is for f32, f16 and bf16 vectors, of which it keeps a byte a coordinate"
    )]
    Stored {
        /// What records were to hold.
        stored: Stored,
        /// Of the vectors.
        element: ElementType,
    },
    /// Fewer than there are, or more than ids can name.
    #[error("room for {capacity} vectors: there are {n}, and at most {max} have room", max = roxanne_core::id::MAX_NODES)]
    Capacity {
        /// Asked for.
        capacity: u64,
        /// Vectors.
        n: u64,
    },
    /// Refused before any work.
    #[error("the build needs {needed} bytes of {what}, {allowed} are allowed (`roxanne plan` shows the bill)")]
    Budget {
        /// Memory or disk.
        what: &'static str,
        /// By the plan.
        needed: u64,
        /// By the budget.
        allowed: u64,
    },
    /// The output path holds something else.
    #[error("{path}: {detail}; it was left untouched: remove it or choose another path")]
    OutputExists {
        /// The path.
        path: PathBuf,
        /// What is there.
        detail: String,
    },
    /// Another build writes to the same path.
    #[error("{path}: another build is writing here")]
    Locked {
        /// Its temporary directory.
        path: PathBuf,
    },
    /// A file that could not be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Too few sample rows, or the like.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Threads could not be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// A graph that does not reach all nodes is never published.
    #[error("only {reached} of {n} nodes are reachable: degree {max_degree} is too small for this data; raise it")]
    Unreachable {
        /// Reached from the entry.
        reached: u64,
        /// All.
        n: u64,
        /// The degree it was tried with.
        max_degree: usize,
    },
    /// A checkpoint that is not of this build.
    #[error(
        "{path}: the checkpoint of another build (other parameters, shards or input); it was left as it is: \
         run that build again to finish it, or start over with --fresh"
    )]
    OtherCheckpoint {
        /// Its directory.
        path: PathBuf,
    },
    /// More vectors near each other than a sample told.
    #[error(
        "a shard of {members} vectors where memory is planned for {planned}: build with --shards {more} (and --fresh) instead of {shards}, \
         or allow more memory"
    )]
    ShardOutgrown {
        /// It has, or will have by the rows so far.
        members: u64,
        /// It may have.
        planned: u64,
        /// Shards of the build.
        shards: usize,
        /// Shards that would do.
        more: u64,
    },
    /// Steps are for builds in shards.
    #[error("the build fits in one shard, which has no steps: use `roxanne build`, or ask for more shards (--shards)")]
    OneShard,
    /// A step of a sharded build before the first.
    #[error("{path}: no input was routed here to its end; `roxanne shard plan` with the same arguments comes first")]
    NotRouted {
        /// The directory of the build.
        path: PathBuf,
    },
    /// The last step before all shards are done.
    #[error("{path}: shards {missing:?} are not built yet; `roxanne shard build` makes them, in any order")]
    ShardsMissing {
        /// The directory of the build.
        path: PathBuf,
        /// Which.
        missing: Vec<usize>,
    },
    /// A file that a shard left for a later step is not what was written.
    #[error("{path}: {detail}; start over with --fresh")]
    ShardDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Rows that were read twice and differ.
    #[error(
        "{source_name}: these are not the rows that the build began with: the input changed meanwhile, or is another one; \
         start over (--fresh) when nobody writes to it"
    )]
    InputChanged {
        /// The input.
        source_name: String,
    },
    /// An index that its judge refused.
    #[error("the index was built, but is not published: {reason}")]
    Rejected {
        /// The judge's words.
        reason: String,
    },
    /// A stop was asked for.
    #[error("stopped on request; nothing was left behind")]
    Stopped,
    /// A stop was asked for in the middle of shards.
    #[error("stopped on request; what is done is kept in {path}: the same command goes on from there, with --fresh it starts over")]
    Paused {
        /// The checkpoint.
        path: PathBuf,
    },
}

impl BuildError {
    /// How a door reports it.
    pub fn class(&self) -> ErrorClass {
        match self {
            BuildError::NoInput
            | BuildError::OneShard
            | BuildError::Param { .. }
            | BuildError::PqBytes { .. }
            | BuildError::Stored { .. }
            | BuildError::Capacity { .. } => ErrorClass::Usage,
            BuildError::Dataset(DatasetError::Io { source, .. }) => ErrorClass::of_io(source),
            BuildError::Foreign(ForeignError::Io { error, .. }) => ErrorClass::of_io(error),
            BuildError::Foreign(ForeignError::Dataset(DatasetError::Io { source, .. })) => ErrorClass::of_io(source),
            BuildError::Foreign(ForeignError::Budget { .. }) => ErrorClass::Budget,
            BuildError::Foreign(ForeignError::Stopped { .. }) => ErrorClass::Interrupted,
            BuildError::Budget { .. } | BuildError::ShardOutgrown { .. } => ErrorClass::Budget,
            BuildError::ShardDamaged { .. } => ErrorClass::Corrupt,
            BuildError::Rejected { .. } => ErrorClass::Gate,
            BuildError::Locked { .. } => ErrorClass::Busy,
            BuildError::Format(error) => error.class(),
            BuildError::Backend(_) | BuildError::Threads(_) => ErrorClass::Device,
            BuildError::Stopped | BuildError::Paused { .. } => ErrorClass::Interrupted,
            _ => ErrorClass::BadInput,
        }
    }
}
