//! Neighbors as another system has them: rows of any length.

use roxanne_core::id::NodeId;
use xxhash_rust::xxh3::Xxh3;

/// The neighbors of every row, one row after the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Where each row ends in `ids`.
    ends: Vec<u64>,
    ids: Vec<NodeId>,
}

impl Links {
    /// Appends a row.
    pub fn push(&mut self, row: impl IntoIterator<Item = NodeId>) {
        self.ids.extend(row);
        self.ends.push(self.ids.len() as u64);
    }

    /// Rows.
    pub fn n(&self) -> usize {
        self.ends.len()
    }

    /// Edges.
    pub fn edge_count(&self) -> u64 {
        self.ids.len() as u64
    }

    /// The neighbors of `row`.
    pub fn row(&self, row: usize) -> &[NodeId] {
        let begin = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.ids[begin as usize..self.ends[row] as usize]
    }

    /// The first row that has a neighbor which is none of the rows.
    pub(super) fn bad_row(&self) -> Option<(usize, NodeId)> {
        (0..self.n()).find_map(|row| self.row(row).iter().find(|id| id.index() >= self.n()).map(|&id| (row, id)))
    }

    /// Which rows lead to each.
    pub(crate) fn reversed(&self) -> Links {
        let mut ends = vec![0u64; self.n()];
        self.ids.iter().for_each(|id| ends[id.index()] += 1);
        let mut total = 0;
        for end in &mut ends {
            // For now where each begins.
            total += std::mem::replace(end, total);
        }
        let mut ids = vec![NodeId(0); self.ids.len()];
        for row in 0..self.n() {
            for id in self.row(row) {
                let place = &mut ends[id.index()];
                ids[*place as usize] = NodeId(row as u32);
                *place += 1;
            }
        }
        Links { ends, ids }
    }

    /// The rows that stay, under their new numbers, and the edges between them.
    pub(super) fn without(&self, is_gone: &[bool]) -> Links {
        let mut next = 0;
        let new: Vec<Option<NodeId>> = is_gone
            .iter()
            .map(|&gone| {
                let id = (!gone).then_some(NodeId(next));
                next += u32::from(!gone);
                id
            })
            .collect();
        let mut links = Links::default();
        for row in (0..self.n()).filter(|&row| !is_gone[row]) {
            links.push(self.row(row).iter().filter_map(|id| new[id.index()]));
        }
        links
    }

    /// Memory of it.
    pub(crate) fn bytes(&self) -> u64 {
        (self.ends.capacity() * 8 + self.ids.capacity() * 4) as u64
    }

    /// A number that tells it from others.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(bytemuck::cast_slice(&self.ends));
        hash.update(bytemuck::cast_slice(&self.ids));
        hash.digest()
    }
}
