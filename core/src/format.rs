//! The on-disk format of a generation, described here and nowhere else. Little-endian, versioned, read for ever.
//!
//! ```text
//! my.rx/
//!   MANIFEST      text: shape, parameters, files; written last, checksummed        [manifest]
//!   graph.rx      64 KiB: two superblocks at 0 and 4096; then pages of records       [superblock, record]
//!   codes.rx      one PQ code a node, in the order of node ids                       [blob]
//!   codebook.rx   build codec, rotation, centroids                                   [blob]
//!   nav.rx        the navigation graph: sampled node ids, their rows                 [nav]
//!   keys.rx       key -> node id, and the strings of string keys                     [keys]
//! ```
//! Every byte that is read back is under a checksum that also covers which file and which place it belongs to ([`page`]): a flipped bit, a
//! swapped page and a page of another generation are all found. Nothing read is believed before its checksum and bounds are.

pub mod blob;
pub mod keys;
pub mod manifest;
pub mod nav;
pub mod page;
pub mod record;
pub mod superblock;

use crate::budget::ErrorClass;
use std::path::PathBuf;

/// The newest format this code writes and reads.
pub const VERSION: u32 = 1;
/// Names of the files of a generation.
pub const GRAPH_FILE: &str = "graph.rx";
/// See [`GRAPH_FILE`].
pub const CODES_FILE: &str = "codes.rx";
/// See [`GRAPH_FILE`].
pub const CODEBOOK_FILE: &str = "codebook.rx";
/// See [`GRAPH_FILE`].
pub const NAV_FILE: &str = "nav.rx";
/// See [`GRAPH_FILE`].
pub const KEYS_FILE: &str = "keys.rx";
/// See [`GRAPH_FILE`].
pub const MANIFEST_FILE: &str = "MANIFEST";

/// The number that a file's pages carry, so that a page of another file or generation is never taken for one of this.
pub fn file_id(generation: u64, name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), generation)
}

/// Why a file of a generation was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The operating system said no.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// Not an index, or not a whole one.
    #[error("{path}: not a roxanne index: {detail}")]
    NotAnIndex {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// Written by a newer version.
    #[error("{path}: format version {found}; this roxanne reads up to {VERSION}: use a newer one")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Bytes that are not what was written.
    #[error("{path}: corrupt at byte {offset}: {detail}; restore the index from a copy or build it again")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damaged page or line begins.
        offset: u64,
        /// Expected and got.
        detail: String,
    },
}

impl FormatError {
    /// How a door reports it.
    pub fn class(&self) -> ErrorClass {
        match self {
            FormatError::Io { error, .. } => ErrorClass::of_io(error),
            FormatError::NotAnIndex { .. } => ErrorClass::BadInput,
            FormatError::TooNew { .. } | FormatError::Corrupt { .. } => ErrorClass::Corrupt,
        }
    }

    /// True where the bytes are damaged, as opposed to absent, newer, or unreadable for now.
    pub fn is_corruption(&self) -> bool {
        matches!(self, FormatError::Corrupt { .. })
    }
}

pub(crate) fn io_error(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> FormatError + '_ {
    move |error| FormatError::Io { path: path.to_path_buf(), error }
}
