//! Vectors in, an index out: of every shape, the same bytes each time, as good as exact search to within a stated floor.

mod degenerate;
mod foreign;
mod keys;
mod plan;
mod recall;
mod same_bytes;
mod vamana;
