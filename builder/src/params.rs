//! What shapes an index, beside its vectors and its metric.

use crate::{BuildError, graph_build::GraphParams, partition::PartitionParams};
use roxanne_core::{
    build_codes::BuildCodec,
    element::ElementType,
    format::record::{RecordLayout, Stored},
    id::MAX_NODES,
    prune::{Alpha, PruneParams},
};

/// What shapes an index.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildParams {
    /// Neighbors a node keeps at most (R).
    pub max_degree: usize,
    /// RobustPrune's alpha, on squared distances for L2, cosine and inner product.
    pub alpha: f64,
    /// Neighbors that a row of a leaf gives and takes (1 to 16): 5 for quality, 3 for speed.
    pub leaf_k: usize,
    /// Candidates kept for the prune: 96 for quality, 64 for speed.
    pub reservoir: usize,
    /// A cluster of at most this many vectors is a leaf; `None` is 256, or 1,024 above 256 dimensions, where smaller leaves fall
    /// short of Vamana's recall (bench/RESULTS.md, graph quality).
    pub leaf_max: Option<usize>,
    /// What records hold of vectors.
    pub stored: Stored,
    /// Nodes that a live generation, which a collection changes in place, has room for; 0 for one that stays as it is built.
    pub capacity: u64,
    /// Bytes of a PQ code; `None` is min(dim, max(32, dim / 8)).
    pub pq_bytes: Option<usize>,
    /// Edges of a ghost that travel home at most, where a build has shards; 0 leaves shards without a word from each other.
    pub inbox: usize,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for BuildParams {
    fn default() -> BuildParams {
        BuildParams {
            max_degree: 48,
            alpha: 1.2,
            leaf_k: 5,
            reservoir: 96,
            leaf_max: None,
            stored: Stored::Full,
            capacity: 0,
            pq_bytes: None,
            inbox: 16,
            seed: 1,
        }
    }
}

impl BuildParams {
    /// The graph's part of it, for vectors of `dim` coordinates.
    ///
    /// # Errors
    /// A value out of range, by name.
    pub fn graph(&self, dim: usize) -> Result<GraphParams, BuildError> {
        let leaf_max = self.leaf_max.unwrap_or(if dim > 256 { 1024 } else { 256 });
        let check = |name: &'static str, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(BuildError::Param { name, value: value.to_string(), low: low as f64, high: high as f64 })
            }
        };
        check("degree", self.max_degree, 2, 1024)?;
        check("leaf-k", self.leaf_k, 1, 16)?;
        check("reservoir", self.reservoir, 1, 1024)?;
        check("inbox", self.inbox, 0, 64)?;
        check("leaf-max", leaf_max, 8, 4096)?;
        let alpha = Alpha::from_f64(self.alpha).ok_or_else(|| BuildError::Param {
            name: "alpha",
            value: self.alpha.to_string(),
            low: 1.0,
            high: 10.0,
        })?;
        let partition = PartitionParams { leaf_max, leaf_min: leaf_max / 4, ..PartitionParams::default() };
        Ok(GraphParams {
            partition,
            leaf_k: self.leaf_k,
            reservoir: self.reservoir,
            prune: PruneParams { max_degree: self.max_degree, alpha },
            seed: self.seed,
        })
    }

    /// Where everything lies in the pages of `n` vectors given as `element`.
    pub(crate) fn layout(&self, element: ElementType, dim: usize, n: u64) -> Result<RecordLayout, BuildError> {
        let stored = self.stored.element(element).ok_or(BuildError::Stored { stored: self.stored, element })?;
        let layout = if self.capacity == 0 {
            RecordLayout::new(stored, dim, self.max_degree, n)
        } else if (n..=MAX_NODES).contains(&self.capacity) {
            RecordLayout::live(stored, dim, self.max_degree, self.capacity)
        } else {
            return Err(BuildError::Capacity { capacity: self.capacity, n });
        };
        layout.ok_or(BuildError::RecordTooLarge { dim, max_degree: self.max_degree })
    }

    /// Do records hold the first bytes of the codes?
    pub(crate) fn records_are_codes(&self, codec: &BuildCodec) -> bool {
        self.stored == Stored::Sq8 || codec.codes_are_rows()
    }
}
