//! USearch, version 2.10 and later (`index_dense_gt::save_to_stream`): `u32 rows, u32 bytes a vector, vectors`; a head of 64 bytes; the graph's header of five u64; a level i16 a
//! node; the nodes, `u64 key, i16 level, u32 count, u32 neighbors [connectivity_base]`, and upper levels of `u32 count, u32 neighbors [connectivity]` each.

use super::{Foreign, ForeignError, Links, System, agree, checked_n, reader::Reader, without};
use roxanne_core::{
    dataset::{Dataset, Records},
    element::ElementType,
    format::keys::KeyList,
    id::NodeId,
    metric::Metric,
};

const MAGIC: &[u8; 7] = b"usearch";
const HEAD_BYTES: u64 = 64;
/// The version whose layout this is, and since when.
const MAJOR: u16 = 2;
const MINOR: u16 = 10;
/// A key that stands for none: the node was deleted.
const FREE: u64 = u64::MAX;
/// What a level of a node may take at most.
const MAX_LINKS: u64 = 4096;
/// Kinds of scalars, as USearch numbers them.
const U64: u8 = 14;
const U32: u8 = 15;

pub(super) fn read(mut reader: Reader, element: Option<ElementType>) -> Result<Foreign, ForeignError> {
    let (rows, row_bytes) = (u64::from(reader.u32()?), u64::from(reader.u32()?));
    let vectors_at = reader.at();
    let vectors = reader.room(rows, row_bytes, "vectors")?;
    reader.skip(vectors)?;
    let begin = reader.at();
    if reader.array::<7>()? != *MAGIC {
        return Err(reader.wrong("no head of USearch after the vectors; was it saved with them, by version 2?".to_string()));
    }
    let (major, minor) = (u16::from_le_bytes(reader.array()?), u16::from_le_bytes(reader.array()?));
    reader.skip(2)?;
    let [metric, scalar, key_kind, slot_kind] = reader.array()?;
    let (_present, _deleted, dim, multi) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u8()?);
    // Before, kinds of scalars had other numbers.
    if major != MAJOR || minor < MINOR {
        return Err(reader.unsupported(format!("saved by USearch {major}.{minor}; {MAJOR}.{MINOR} and later are read")));
    }
    if (key_kind, slot_kind) != (U64, U32) || multi != 0 {
        return Err(reader.unsupported("keys must be numbers of 64 bits, one vector a key, and nodes numbers of 32 bits".to_string()));
    }
    let metric = match metric {
        b'e' => Metric::L2,
        b'c' => Metric::Cosine,
        b'i' => Metric::InnerProduct,
        other => return Err(reader.unsupported(format!("metric '{}' is none of l2sq, cos, ip", char::from(other)))),
    };
    let found = match scalar {
        11 => ElementType::F32,
        12 => ElementType::F16,
        4 => ElementType::Bf16,
        17 => ElementType::U8,
        23 => ElementType::I8,
        // Bits lie the other way round there in every byte.
        other => return Err(reader.unsupported(format!("coordinates of kind {other} are none of f32, f16, bf16, u8, i8"))),
    };
    let element = agree(&reader, found, element)?;
    let dim = usize::try_from(dim).ok().filter(|&dim| element.row_bytes(dim.min(1 << 32)) as u64 == row_bytes);
    let Some(dim) = dim else {
        return Err(reader.wrong(format!("vectors of {row_bytes} bytes do not have the dimension that the head says")));
    };
    reader.skip(begin + HEAD_BYTES - reader.at())?;

    let n = reader.u64()?;
    let n = checked_n(&reader, n)?;
    let (connectivity, base, _max_level, _entry) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
    if n != rows || connectivity > MAX_LINKS || base > MAX_LINKS {
        return Err(reader.wrong(format!("a graph of {n} nodes with {base} and {connectivity} neighbors, of {rows} vectors")));
    }
    let dataset = Dataset::of_records(reader.path(), &Records::dense(n, dim, element, vectors_at))?;
    // Each node says its level itself once more.
    reader.room(n, 2 + 10 + 4 + 4 * base, "nodes")?;
    reader.skip(2 * n)?;
    let (mut links, mut keys, mut is_gone) = (Links::default(), Vec::new(), Vec::new());
    let mut slots = vec![0; 4 * base as usize];
    for _ in 0..n {
        let (key, level) = (reader.u64()?, i16::from_le_bytes(reader.array()?));
        let count = u64::from(reader.u32()?);
        let levels = u64::try_from(level).ok().filter(|_| count <= base);
        let Some(levels) = levels else { return Err(reader.wrong(format!("a node of level {level} with {count} of {base} neighbors"))) };
        reader.fill(&mut slots)?;
        let (ids, _) = slots[..4 * count as usize].as_chunks::<4>();
        links.push(ids.iter().map(|id| NodeId(u32::from_le_bytes(*id))));
        reader.go_on(&links)?;
        reader.skip(levels * (4 + 4 * connectivity))?;
        keys.push(key);
        is_gone.push(key == FREE);
    }
    if !reader.is_at_end()? {
        return Err(reader.wrong(format!("{} bytes after the last node", reader.left())));
    }
    if let Some((row, id)) = links.bad_row() {
        return Err(reader.wrong(format!("node {row} has neighbor {id} of {n} nodes")));
    }
    let (dataset, keys, links) = without(dataset, KeyList::Numbers(keys), links, &is_gone)?;
    Ok(Foreign { system: System::Usearch, metric: Some(metric), dataset, keys, links })
}
