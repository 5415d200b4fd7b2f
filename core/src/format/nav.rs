//! The navigation graph: a small sample of the nodes with a graph of its own, kept in RAM, so that a search begins near its answer.
//!
//! It holds no vectors: distances come from the codes that are in RAM anyway. Payload of nav.rx, all u32:
//! `count | max_degree | entry | 0 | ids [count] | degrees [count] | neighbors [count x max_degree]`, neighbors being places in `ids`.

use super::FormatError;
use super::blob::BlobReader;
use crate::{graph::Graph, id::NodeId};

/// The navigation graph in RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nav {
    /// The node each place stands for.
    pub ids: Vec<NodeId>,
    /// The graph over places.
    pub graph: Graph,
    /// The place where every search begins.
    pub entry: NodeId,
}

impl Nav {
    /// The payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (count, degree) = (self.ids.len(), self.graph.max_degree());
        let mut words: Vec<u32> = vec![count as u32, degree as u32, self.entry.0, 0];
        words.extend(self.ids.iter().map(|id| id.0));
        words.extend((0..count).map(|i| self.graph.neighbors(NodeId(i as u32)).len() as u32));
        for place in 0..count {
            let row = self.graph.neighbors(NodeId(place as u32));
            words.extend(row.iter().map(|id| id.0));
            words.extend(std::iter::repeat_n(0, degree - row.len()));
        }
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    /// Reads the payload of an index of `n` nodes.
    ///
    /// # Errors
    /// Corruption: a count, degree or id out of range.
    pub fn read(blob: &BlobReader, n: u64) -> Result<Nav, FormatError> {
        let words: Vec<u32> = blob.read_all()?.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let wrong = |what: &str| blob.corrupt(0, format!("navigation graph: {what}"));
        let &[count, degree, entry, _] = words.first_chunk::<4>().ok_or_else(|| wrong("shorter than its head"))?;
        let expected = 4 + u64::from(count) * (2 + u64::from(degree));
        if count == 0 || degree == 0 || degree > 1024 || words.len() as u64 != expected || blob.len() != expected * 4 {
            return Err(wrong(&format!("{count} nodes of degree {degree} in {} bytes", blob.len())));
        }
        let count_at = count as usize;
        let (ids, rest) = words[4..].split_at(count_at);
        let (degrees, rows) = rest.split_at(count_at);
        if entry >= count || ids.iter().any(|&id| u64::from(id) >= n) {
            return Err(wrong("an id is out of range"));
        }
        let mut graph = Graph::new(count_at, degree as usize);
        for (place, (row, &used)) in rows.chunks_exact(degree as usize).zip(degrees).enumerate() {
            if used > degree || row[..used as usize].iter().any(|&id| id >= count) {
                return Err(wrong(&format!("row {place} is out of range")));
            }
            let row: Vec<NodeId> = row[..used as usize].iter().map(|&id| NodeId(id)).collect();
            graph.set(NodeId(place as u32), &row);
        }
        Ok(Nav { ids: ids.iter().map(|&id| NodeId(id)).collect(), graph, entry: NodeId(entry) })
    }

    /// Bytes it takes in RAM.
    pub fn ram_bytes(count: u64, max_degree: u64) -> u64 {
        count * (4 + 2 + 4 * max_degree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::blob::BlobWriter;

    fn stored(bytes: &[u8], n: u64) -> Result<Nav, FormatError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nav.rx");
        let mut writer = BlobWriter::create(&path, 1).unwrap();
        writer.write(bytes).unwrap();
        writer.finish().unwrap();
        Nav::read(&BlobReader::open(&path, 1, bytes.len() as u64).unwrap(), n)
    }

    #[test]
    fn it_round_trips_and_lies_are_refused() {
        let mut graph = Graph::new(3, 2);
        graph.set(NodeId(0), &[NodeId(1), NodeId(2)]);
        graph.set(NodeId(2), &[NodeId(0)]);
        let nav = Nav { ids: vec![NodeId(7), NodeId(0), NodeId(5)], graph, entry: NodeId(2) };
        let bytes = nav.to_bytes();
        assert_eq!(stored(&bytes, 8).unwrap(), nav);
        assert!(stored(&bytes, 7).is_err(), "id 7 of 7 nodes");
        assert!(stored(&bytes[..bytes.len() - 4], 8).is_err() && stored(&bytes[..9], 8).is_err() && stored(&[], 8).is_err());
        for word in 0..bytes.len() / 4 {
            let mut lie = bytes.clone();
            lie[word * 4..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
            let _ = stored(&lie, 8).is_err(); // must not panic; padding words may be anything
        }
    }
}
