//! What can be wrong with a dataset. Every message says what was expected, what was found, where, and what to do about it.

use crate::element::{ElementType, NotRepresentable};
use crate::id::MAX_DIM;
use std::{io, path::PathBuf};

/// Extensions that [`Dataset::open`](super::Dataset::open) and [`DatasetWriter`](super::DatasetWriter) know.
pub(super) const KNOWN: &str = ".fbin .f16bin .bf16bin .u8bin .i8bin .fvecs .bvecs .npy, and synth:n=1000000,dim=128,type=u8,seed=1";

/// Why a dataset was refused, or stopped half-way. All of it is bad input (or a bad disk), never a bug of the caller's.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The operating system refused.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done to it, as a verb.
        doing: &'static str,
        /// The system's own words.
        source: io::Error,
    },
    /// A directory, pipe or device.
    #[error("{path}: not a regular file; rows are read at any offset, so write the stream to a file first")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Nobody knows this extension.
    #[error("{path}: unknown format \".{extension}\"; known: {KNOWN}")]
    UnknownFormat {
        /// The path.
        path: PathBuf,
        /// Its extension, without the dot.
        extension: String,
    },
    /// `.ivecs` in the place of vectors.
    #[error("{path}: .ivecs holds neighbor ids, not vectors; give it where the truth is asked for")]
    HoldsIds {
        /// The path.
        path: PathBuf,
    },
    /// The file ends before its header does.
    #[error("{path}: too short for its header: expected at least {expected} bytes, got {got}; was the copy interrupted?")]
    NoHeader {
        /// The file.
        path: PathBuf,
        /// Bytes the header needs.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// A dimension outside 1..=MAX_DIM.
    #[error("{path}: dimension {dim} (row {row}) is outside 1..={MAX_DIM}; is this file what its extension says?")]
    DimOutOfRange {
        /// The file.
        path: PathBuf,
        /// The dimension it states.
        dim: i64,
        /// The row that states it (0 for a header).
        row: u64,
    },
    /// Fewer bytes than the header promises, or a last row that is not whole.
    #[error("{path}: cut off in row {row} at byte {offset}: expected {expected} bytes, got {got}; copy it again or correct its header")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that whole rows would need.
        expected: u64,
        /// Bytes there are.
        got: u64,
        /// First row that is not whole.
        row: u64,
        /// Where that row begins.
        offset: u64,
    },
    /// More bytes than the header promises.
    #[error("{path}: the header promises {n} rows of {dim} = {expected} bytes, got {got}; is the extension the right element type?")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes the header promises.
        expected: u64,
        /// Bytes there are.
        got: u64,
        /// Rows the header promises.
        n: u64,
        /// Their dimension.
        dim: usize,
    },
    /// A row of fvecs or bvecs whose own dimension is not that of row 0.
    #[error("{path}: row {row} at byte {offset} has dimension {got}, row 0 has {expected}; every row must have the same")]
    DimChanged {
        /// The file.
        path: PathBuf,
        /// The row.
        row: u64,
        /// Where it begins.
        offset: u64,
        /// Dimension of row 0.
        expected: usize,
        /// Dimension of this row.
        got: i32,
    },
    /// fvecs or bvecs of no rows.
    #[error("{path}: a {extension} file of no rows has no dimension either; use .fbin or .npy for an empty set")]
    NoRows {
        /// The file.
        path: PathBuf,
        /// fvecs or bvecs.
        extension: &'static str,
    },
    /// A .npy whose header cannot be used.
    #[error("{path}: {problem}")]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the line of numpy that makes it right.
        problem: String,
    },
    /// Rows within another file's records that cannot lie as it says.
    #[error("{path}: no rows lie as {records:?}")]
    Records {
        /// The file.
        path: PathBuf,
        /// Where they were said to be.
        records: super::Records,
    },
    /// A double that no f32 can hold.
    #[error("{path}: row {row}, coordinate {at} is {value}, beyond f32 (3.4e38); rescale the vectors")]
    BeyondF32 {
        /// The file.
        path: PathBuf,
        /// The row.
        row: u64,
        /// The coordinate in it.
        at: usize,
        /// Its value.
        value: f64,
    },
    /// NaN or an infinity.
    #[error("row {row}, coordinate {at} is {value}: no distance can be measured from it; drop the row or repair it")]
    NotFinite {
        /// The first such row.
        row: u64,
        /// The first such coordinate in it.
        at: usize,
        /// Its value.
        value: f32,
    },
    /// Rows asked for that the dataset does not have.
    #[error("{path}: rows {start}..{start}+{count} asked for, it has {n}")]
    NoSuchRows {
        /// The source.
        path: PathBuf,
        /// First row asked for.
        start: u64,
        /// Rows asked for.
        count: usize,
        /// Rows there are.
        n: u64,
    },
    /// A part that is of another shape than the first.
    #[error("{path}: rows of {got}, but {first} has rows of {expected}; `roxanne convert` changes the type")]
    PartsDiffer {
        /// The part.
        path: PathBuf,
        /// Its dimension and type.
        got: String,
        /// The first part.
        first: PathBuf,
        /// What that one has.
        expected: String,
    },
    /// Rows that cannot be taken for packed bits.
    #[error("{path}: rows of {dim} {element} are not packed binary; that needs u8 rows of at most {} bytes (numpy.packbits, bitorder=\"little\")", MAX_DIM / 8)]
    NotPacked {
        /// The source.
        path: PathBuf,
        /// Coordinates of a row.
        dim: usize,
        /// Their type.
        element: ElementType,
    },
    /// A `synth:` text that cannot be understood.
    #[error("{text}: {problem}; an example: synth:n=1000000,dim=128,type=u8,seed=1 (and part=query for queries of the same kind)")]
    Synth {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An output that is there already; it was left untouched.
    #[error("{path}: exists already and was left untouched; remove it or choose another name")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A format that cannot hold these elements.
    #[error("{path}: this format cannot hold {element}; {element} goes into {advice}")]
    WrongElement {
        /// The path.
        path: PathBuf,
        /// The element type.
        element: ElementType,
        /// Extensions that can hold it.
        advice: &'static str,
    },
    /// A value that the output's element type cannot hold.
    #[error("{path}: row {row}: {source}; choose a wider output format")]
    NotRepresentable {
        /// The output.
        path: PathBuf,
        /// The row.
        row: u64,
        /// The coordinate and its value.
        source: NotRepresentable,
    },
    /// Bytes that are not whole rows were pushed to a writer.
    #[error("{path}: {got} bytes are not whole rows of {row_bytes}")]
    PartialRow {
        /// The output.
        path: PathBuf,
        /// Bytes pushed.
        got: usize,
        /// Bytes of a row.
        row_bytes: usize,
    },
    /// More rows than the output's header can count.
    #[error("{path}: more than {} rows do not fit this format's 32-bit count; use .npy or .fvecs/.bvecs", u32::MAX)]
    TooManyRows {
        /// The output.
        path: PathBuf,
    },
}

impl DatasetError {
    /// For `map_err`: an [`Io`](DatasetError::Io) about `path`.
    pub(crate) fn io(path: &std::path::Path, doing: &'static str) -> impl FnOnce(io::Error) -> DatasetError {
        let path = path.to_path_buf();
        move |source| DatasetError::Io { path, doing, source }
    }
}
