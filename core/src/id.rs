//! What names a vector: inside the index a `NodeId`, outside it a `Key`.

use bytemuck::{Pod, Zeroable};

/// A place in one generation. It is an address (`page = id / per_page`), so it never leaves the index; users hold a [`Key`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The id as an index into a slice.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The user's own name of a vector: its row number unless keys were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Key(pub u64);

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The most vectors one generation may hold; the ids above are sentinels.
pub const MAX_NODES: u64 = u32::MAX as u64 - 15;
/// The largest dimension: above it the integer build distances could pass 32 bits.
pub const MAX_DIM: usize = 8192;
/// The most coordinates of a row in build space: those that inner product appends come on top (`core::build_codes`).
pub const MAX_BUILD_DIM: usize = MAX_DIM + 32;
