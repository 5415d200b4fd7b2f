//! One node in its page: `key u64 | degree u16 | slot generation u16 | label signature u32 | vector | neighbors`, of fixed size.
//!
//! Address = id: `page = id / per_page`, so there is no table of places. Neighbor ids are bit-packed at the width that the capacity
//! needs. A node never straddles a page, so one read always brings all of it.
//!
//! A *live* generation is changed in place: it has room for more nodes than it was built with, slots become free and are used again, each time
//! under the next slot generation. An edge there carries, above the id, the low bits of the generation that its target had when the edge was
//! made: an edge that outlived its target is recognised, and is none.

use super::page::HEADER_BYTES;
use crate::{
    element::ElementType,
    id::{Key, NodeId},
};

const KEY: usize = 0;
const DEGREE: usize = KEY + 8;
const SLOT_GENERATION: usize = DEGREE + 2;
const LABELS: usize = SLOT_GENERATION + 2;
const VECTOR: usize = LABELS + 4;

/// Bits of an edge of a live generation that tell of which use of its target's slot it is.
pub const TAG_BITS: usize = 2;
/// The slot generation of a slot without a node has this bit.
const FREE: u16 = 1 << 15;

/// The tag of edges to a slot in its use number `generation`.
#[inline]
pub fn tag(generation: u8) -> u8 {
    generation % (1 << TAG_BITS)
}

/// Page sizes a generation may have; the smallest one that holds a record is taken.
pub const PAGE_SIZES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];

/// What a record holds of a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// The row as it was given.
    #[default]
    Full,
    /// A byte a coordinate (SQ8, the first `dim` of the build code): more nodes a page and fewer reads for rows of floats, whose hits are then
    /// ranked by these and not exactly.
    Sq8,
}

impl Stored {
    /// All, with the names that people give.
    pub const ALL: [Stored; 2] = [Stored::Full, Stored::Sq8];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stored::Full => "full",
            Stored::Sq8 => "sq8",
        }
    }

    /// The type of a record's coordinates, for vectors given as `element`; `None` where bytes would take as much.
    pub fn element(self, element: ElementType) -> Option<ElementType> {
        match (self, element) {
            (Stored::Full, _) => Some(element),
            (Stored::Sq8, ElementType::F32 | ElementType::F16 | ElementType::Bf16) => Some(ElementType::U8),
            (Stored::Sq8, _) => None,
        }
    }
}

impl std::fmt::Display for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where everything lies in a page of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLayout {
    /// Bytes of one vector.
    pub row_bytes: usize,
    /// Room of a neighbor list (R).
    pub max_degree: usize,
    /// Bits of one packed edge: the id, and its tag above it in a live generation.
    pub id_bits: usize,
    /// Bits of the tag: [`TAG_BITS`], or none where nothing changes.
    pub tag_bits: usize,
    /// Bytes of one record.
    pub record_bytes: usize,
    /// Records in a page.
    pub per_page: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
}

/// A list that cannot be right although its checksum is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("slot {slot}: {detail}")]
pub struct RecordError {
    /// Slot in the page.
    pub slot: usize,
    /// Expected and got.
    pub detail: String,
}

impl RecordLayout {
    /// The layout for `n` nodes, with rows of type `element` in their records ([`Stored::element`]); `None` when a record would not fit the
    /// largest page.
    pub fn new(element: ElementType, dim: usize, max_degree: usize, n: u64) -> Option<RecordLayout> {
        RecordLayout::with_tags(element, dim, max_degree, n, 0)
    }

    /// The layout of a live generation with room for `capacity` nodes; `None` as in [`RecordLayout::new`].
    pub fn live(element: ElementType, dim: usize, max_degree: usize, capacity: u64) -> Option<RecordLayout> {
        RecordLayout::with_tags(element, dim, max_degree, capacity, TAG_BITS)
    }

    fn with_tags(element: ElementType, dim: usize, max_degree: usize, n: u64, tag_bits: usize) -> Option<RecordLayout> {
        let row_bytes = element.row_bytes(dim);
        let id_bits = (u64::BITS - n.saturating_sub(1).leading_zeros()).clamp(1, 32) as usize + tag_bits;
        let record_bytes = VECTOR + row_bytes + (max_degree * id_bits).div_ceil(8);
        let page_bytes = PAGE_SIZES.into_iter().find(|p| p - HEADER_BYTES >= record_bytes)?;
        Some(RecordLayout {
            row_bytes,
            max_degree,
            id_bits,
            tag_bits,
            record_bytes,
            per_page: (page_bytes - HEADER_BYTES) / record_bytes,
            page_bytes,
        })
    }

    /// Pages that `n` nodes fill.
    pub fn page_count(&self, n: u64) -> u64 {
        n.div_ceil(self.per_page as u64)
    }

    /// The page of a node.
    #[inline]
    pub fn page_of(&self, node: NodeId) -> u64 {
        u64::from(node.0) / self.per_page as u64
    }

    /// The first node of a page.
    #[inline]
    pub fn first_node(&self, page: u64) -> u64 {
        page * self.per_page as u64
    }

    /// The slot of a node in its page.
    #[inline]
    pub fn slot_of(&self, node: NodeId) -> usize {
        node.index() % self.per_page
    }

    /// Writes a record into its slot of a zeroed page.
    pub fn write(&self, page: &mut [u8], slot: usize, key: Key, vector: &[u8], neighbors: &[NodeId]) {
        assert!(slot < self.per_page && vector.len() == self.row_bytes && neighbors.len() <= self.max_degree);
        let record = &mut page[HEADER_BYTES + slot * self.record_bytes..][..self.record_bytes];
        record[KEY..DEGREE].copy_from_slice(&key.0.to_le_bytes());
        record[DEGREE..SLOT_GENERATION].copy_from_slice(&(neighbors.len() as u16).to_le_bytes());
        record[VECTOR..VECTOR + self.row_bytes].copy_from_slice(vector);
        self.pack(&mut record[VECTOR + self.row_bytes..], neighbors.iter().map(|id| (*id, 0)));
    }

    /// Writes packed edges over zeros.
    fn pack(&self, packed: &mut [u8], edges: impl Iterator<Item = (NodeId, u8)>) {
        for (i, (id, tag)) in edges.enumerate() {
            let bit = i * self.id_bits;
            let mut value = (u64::from(id.0) | u64::from(tag) << (self.id_bits - self.tag_bits)) << (bit % 8);
            for byte in &mut packed[bit / 8..] {
                *byte |= value as u8;
                value >>= 8;
                if value == 0 {
                    break;
                }
            }
        }
    }

    /// Replaces the edges of a record of a live generation, each with the tag of its target.
    pub fn set_edges(&self, page: &mut [u8], slot: usize, edges: &[(NodeId, u8)]) {
        assert!(slot < self.per_page && edges.len() <= self.max_degree, "{} edges in slot {slot}", edges.len());
        let record = &mut page[HEADER_BYTES + slot * self.record_bytes..][..self.record_bytes];
        record[DEGREE..SLOT_GENERATION].copy_from_slice(&(edges.len() as u16).to_le_bytes());
        let packed = &mut record[VECTOR + self.row_bytes..];
        packed.fill(0);
        self.pack(packed, edges.iter().copied());
    }

    /// Puts a node without edges into a slot, in the slot's use number `generation`.
    pub fn put(&self, page: &mut [u8], slot: usize, generation: u8, key: Key, vector: &[u8]) {
        self.free(page, slot, generation);
        let record = &mut page[HEADER_BYTES + slot * self.record_bytes..][..self.record_bytes];
        record[KEY..DEGREE].copy_from_slice(&key.0.to_le_bytes());
        record[SLOT_GENERATION..LABELS].copy_from_slice(&u16::from(generation).to_le_bytes());
        record[VECTOR..VECTOR + self.row_bytes].copy_from_slice(vector);
    }

    /// Makes a slot one without a node, whose next use is number `generation`.
    pub fn free(&self, page: &mut [u8], slot: usize, generation: u8) {
        assert!(slot < self.per_page, "slot {slot} of {}", self.per_page);
        let record = &mut page[HEADER_BYTES + slot * self.record_bytes..][..self.record_bytes];
        record.fill(0);
        record[SLOT_GENERATION..LABELS].copy_from_slice(&(FREE | u16::from(generation)).to_le_bytes());
    }

    /// Bytes of packed neighbors.
    pub fn packed_bytes(&self) -> usize {
        (self.max_degree * self.id_bits).div_ceil(8)
    }

    /// Appends the `degree` neighbors that are `packed`.
    ///
    /// # Errors
    /// A degree above the maximum, or an id that is not below `n`, in words.
    #[inline]
    pub fn unpack(&self, degree: u16, packed: &[u8], n: u64, out: &mut Vec<NodeId>) -> Result<(), String> {
        self.each_edge(degree, packed, n, |id, _| out.push(id))
    }

    /// Shows the `degree` edges that are `packed`, each with its tag.
    ///
    /// # Errors
    /// As [`RecordLayout::unpack`].
    #[inline]
    pub fn each_edge(&self, degree: u16, packed: &[u8], n: u64, mut each: impl FnMut(NodeId, u8)) -> Result<(), String> {
        if usize::from(degree) > self.max_degree {
            return Err(format!("degree {degree} is above the maximum {}", self.max_degree));
        }
        let (bits, id_bits) = (self.id_bits, self.id_bits - self.tag_bits);
        let (mask, id_mask) = ((1u64 << bits) - 1, (1u64 << id_bits) - 1);
        for i in 0..usize::from(degree) {
            let bit = i * bits;
            let mut word = [0; 8];
            let tail = &packed[bit / 8..];
            if let Some(eight) = tail.first_chunk::<8>() {
                word = *eight;
            } else {
                word[..tail.len()].copy_from_slice(tail);
            }
            let edge = u64::from_le_bytes(word) >> (bit % 8) & mask;
            let (id, tag) = (edge & id_mask, (edge >> id_bits) as u8);
            if id >= n {
                return Err(format!("neighbor {id} of {n} nodes"));
            }
            each(NodeId(id as u32), tag);
        }
        Ok(())
    }

    /// A record of a checked page.
    #[inline]
    pub fn record<'a>(&self, page: &'a [u8], slot: usize) -> Record<'a> {
        Record { bytes: &page[HEADER_BYTES + slot * self.record_bytes..][..self.record_bytes], layout: *self, slot }
    }
}

/// One record, read in place.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    bytes: &'a [u8],
    layout: RecordLayout,
    slot: usize,
}

impl<'a> Record<'a> {
    /// The user's key, or the number of a string key.
    #[inline]
    pub fn key(&self) -> Key {
        Key(u64::from_le_bytes(self.bytes[KEY..DEGREE].try_into().unwrap_or_default()))
    }

    /// The raw row.
    #[inline]
    pub fn vector(&self) -> &'a [u8] {
        &self.bytes[VECTOR..VECTOR + self.layout.row_bytes]
    }

    /// Appends the neighbors.
    ///
    /// # Errors
    /// A degree above the maximum or an id that is not below `n`: never trusted, even under a good checksum.
    #[inline]
    pub fn neighbors(&self, n: u64, out: &mut Vec<NodeId>) -> Result<(), RecordError> {
        let (degree, packed) = self.packed();
        self.layout.unpack(degree, packed, n, out).map_err(|detail| RecordError { slot: self.slot, detail })
    }

    /// Shows the edges of a record of a live generation, each with its tag.
    ///
    /// # Errors
    /// As [`Record::neighbors`].
    #[inline]
    pub fn each_edge(&self, n: u64, each: impl FnMut(NodeId, u8)) -> Result<(), RecordError> {
        let (degree, packed) = self.packed();
        self.layout.each_edge(degree, packed, n, each).map_err(|detail| RecordError { slot: self.slot, detail })
    }

    /// The number of the use of its slot, and whether there is no node in it.
    #[inline]
    pub fn slot_generation(&self) -> (u8, bool) {
        let word = u16::from_le_bytes([self.bytes[SLOT_GENERATION], self.bytes[SLOT_GENERATION + 1]]);
        (word as u8, word & FREE != 0)
    }

    /// The degree and the packed neighbors, as they stand.
    #[inline]
    pub fn packed(&self) -> (u16, &'a [u8]) {
        (u16::from_le_bytes([self.bytes[DEGREE], self.bytes[DEGREE + 1]]), &self.bytes[VECTOR + self.layout.row_bytes..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_at_every_width() {
        for n in [1u64, 2, 3, 255, 256, 257, 1_000_000, 1 << 31, u64::from(u32::MAX) - 15] {
            let layout = RecordLayout::new(ElementType::U8, 5, 7, n).unwrap();
            let mut page = vec![0; layout.page_bytes];
            let ids = |slot: u64| -> Vec<NodeId> { (0..slot % 8).map(|i| NodeId(((i * 0x9E37_79B9 + slot) % n) as u32)).collect() };
            for slot in 0..layout.per_page as u64 {
                layout.write(&mut page, slot as usize, Key(slot | 1 << 60), &[slot as u8, 1, 2, 3, 4], &ids(slot));
            }
            for slot in 0..layout.per_page as u64 {
                let record = layout.record(&page, slot as usize);
                let mut got = Vec::new();
                record.neighbors(n, &mut got).unwrap();
                assert_eq!(
                    (record.key(), record.vector(), got),
                    (Key(slot | 1 << 60), &[slot as u8, 1, 2, 3, 4][..], ids(slot)),
                    "n {n} slot {slot}"
                );
            }
        }
    }

    #[test]
    fn a_slot_is_used_again_and_edges_tell_of_which_use_they_are() {
        for capacity in [1u64, 3, 1 << 20, 1 << 31, u64::from(u32::MAX) - 15] {
            let layout = RecordLayout::live(ElementType::U8, 5, 7, capacity).unwrap();
            let mut page = vec![0; layout.page_bytes];
            let edges: Vec<(NodeId, u8)> = (0..7).map(|i| (NodeId((capacity - 1).saturating_sub(i) as u32), tag(i as u8))).collect();
            layout.write(&mut page, 1, Key(9), &[9; 5], &[NodeId(0)]);
            layout.put(&mut page, 1, 200, Key(77), &[1, 2, 3, 4, 5]);
            layout.set_edges(&mut page, 1, &edges);
            let record = layout.record(&page, 1);
            let mut got = Vec::new();
            record.each_edge(capacity, |id, tag| got.push((id, tag))).unwrap();
            assert_eq!(
                (record.key(), record.vector(), record.slot_generation(), got),
                (Key(77), &[1, 2, 3, 4, 5][..], (200, false), edges)
            );
            layout.set_edges(&mut page, 1, &[(NodeId(0), 3)]);
            layout.record(&page, 1).each_edge(capacity, |id, tag| assert_eq!((id, tag), (NodeId(0), 3))).unwrap();
            layout.free(&mut page, 1, 201);
            let record = layout.record(&page, 1);
            assert_eq!((record.slot_generation(), record.packed().0, record.key()), ((201, true), 0, Key(0)));
        }
    }

    #[test]
    fn ids_and_degrees_are_never_trusted() {
        let layout = RecordLayout::new(ElementType::U8, 1, 4, 10).unwrap();
        let mut page = vec![0; layout.page_bytes];
        layout.write(&mut page, 0, Key(0), &[0], &[NodeId(9), NodeId(12)]);
        assert!(layout.record(&page, 0).neighbors(10, &mut Vec::new()).is_err());
        page[HEADER_BYTES + DEGREE] = 5;
        assert!(layout.record(&page, 0).neighbors(16, &mut Vec::new()).is_err());
    }

    #[test]
    fn pages_grow_with_records() {
        let sift = RecordLayout::new(ElementType::U8, 128, 48, 1_000_000).unwrap();
        assert_eq!((sift.record_bytes, sift.per_page, sift.page_bytes), (264, 15, 4096));
        assert_eq!(RecordLayout::new(ElementType::F32, 8192, 64, 1 << 32).unwrap().page_bytes, 65536);
        assert_eq!(sift.page_count(16), 2);
        assert!(RecordLayout::new(ElementType::F32, 8192, 60_000, 1 << 32).is_none());
    }
}
