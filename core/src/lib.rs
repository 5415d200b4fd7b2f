//! The words of vector search, and the one file format that the builder writes and the engine reads.
//!
//! Floor 0 of the house (ARCHITECTURE.md): no threads of its own (it may use the caller's rayon pool), no GPU, no database, no logging.

pub mod aside;
pub mod budget;
pub mod build_codes;
pub mod changes;
pub mod dataset;
pub mod distance;
pub mod element;
pub mod format;
pub mod graph;
pub mod huge;
pub mod id;
pub mod metric;
pub mod neighbor;
pub mod pq;
pub mod prune;
pub mod random;
pub mod recall;
pub mod search;
pub mod simd;
pub mod tile;

pub use budget::{Budget, ErrorClass};
