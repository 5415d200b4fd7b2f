//! roxanne: an SSD vector-search index for Rust programs, and the command of the same name.
//!
//! A build takes vectors from a file (or the generator `synth:`) and writes one directory. An index opened from that directory keeps
//! only compressed codes in memory and reads the rest from flash, a few pages a query.
//!
//! ```no_run
//! use roxanne::{Budget, Builder, Index, Metric, SearchParams};
//!
//! let report = Builder::new(Metric::L2).budget(Budget { ram: 48 << 30, ..Budget::default() }).input("base.fbin")?.build("my.rx")?;
//! println!("{} vectors in {:.1} s", report.n, report.seconds);
//!
//! let index = Index::open("my.rx", Budget::ram(48 << 30))?; // Send + Sync, cheap to clone
//! let query = vec![0.5; index.info().dim];
//! let answer = index.search(&query, &SearchParams { k: 10, list_size: 64, ..SearchParams::default() })?;
//! for hit in &answer.hits {
//!     println!("{} at {}", hit.key, hit.distance);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! Before the work, [`Builder::plan`] says what it will take:
//!
//! ```
//! use roxanne::{Builder, Metric};
//!
//! let plan = Builder::new(Metric::Cosine).input("synth:n=1000000,dim=384")?.plan()?;
//! assert!(plan.serve_ram_bytes < plan.index_bytes / 10);
//! # Ok::<(), roxanne::BuildError>(())
//! ```
//! A program with many threads gives each its own [`Searcher`]; `examples/embed.rs` is a whole program.

pub mod rebuild;

/// Indexes that other systems made ([`Builder::foreign`]).
pub mod foreign {
    pub use roxanne_builder::foreign::{Foreign, ForeignError, Links, Reading, System};
}

/// What filters by payload are made of.
pub mod filter {
    pub use roxanne_engine::collection::{Condition, Filter, Range, Values};
}

pub use roxanne_builder::{BuildError, BuildParams, Builder, Device, Observer, Phase, Plan, Report, Silent};
pub use roxanne_core::{
    Budget, ErrorClass,
    dataset::{Dataset, DatasetError, DatasetWriter},
    element::ElementType,
    format::keys::KeyList,
    id::Key,
    metric::Metric,
    recall::{Truth, TruthError, exact_truth, recall_at_k},
};
pub use roxanne_engine::{
    Answer, Hit, Index, IndexInfo, OpenError, SearchError, SearchParams, SearchStats, Searcher,
    collection::{
        Change, Collection, CollectionConfig, CollectionError, CollectionOptions, CollectionReport, CollectionStats, Durability, Filter,
        Found, KeyKind, MergeLimits, MergeReport, Point, PointHit, PointKey, Previous, Salvage, SalvageReport, SnapshotInfo,
    },
};
