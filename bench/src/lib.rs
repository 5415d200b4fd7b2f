//! What is measured, and on what: vectors for the micro benches, and searches in RAM that judge a graph by itself.
//!
//! The micro benches (`benches/`) time one loop each. `graph_quality` compares graphs where no disk and no compression blurs them.
//! `peers/run.py` measures whole systems side by side. RESULTS.md keeps what came out, each figure with its command.

pub mod inputs;
pub mod quality;
