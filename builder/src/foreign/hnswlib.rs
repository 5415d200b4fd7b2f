//! hnswlib (`HierarchicalNSW::saveIndex`): a header of 96 bytes; a record a vector, `u16 count, u8 flags, u8, u32 neighbors [2M], vector, u64 label`; then the upper
//! levels, which are of no use here. Neither the metric nor the type of the coordinates is in it.

use super::{Foreign, ForeignError, Links, System, checked_n, reader::Reader, without};
use roxanne_core::{
    dataset::{Dataset, Records},
    element::ElementType,
    format::keys::KeyList,
    id::NodeId,
};

/// Of the flags: the vector was deleted.
const DELETED: u8 = 1;
/// What a level of a vector may take at most.
const MAX_LINKS: u64 = 4096;

pub(super) fn read(mut reader: Reader, element: ElementType) -> Result<Foreign, ForeignError> {
    let [before, _capacity, n, record_bytes, label_at, vector_at] = words(&mut reader)?;
    reader.skip(4 + 4 + 8)?;
    let max_links = reader.u64()?;
    reader.skip(8 + 8 + 8)?;
    let n = checked_n(&reader, n)?;
    let vector_bytes = label_at.checked_sub(vector_at).filter(|_| before == 0 && (1..=MAX_LINKS).contains(&max_links));
    let fits = vector_at == 4 + 4 * max_links && label_at.checked_add(8) == Some(record_bytes);
    let Some(vector_bytes) = vector_bytes.filter(|_| fits) else {
        let detail = format!(
            "no header of hnswlib: records of {record_bytes} bytes with {max_links} neighbors, the vector at {vector_at} and the label at {label_at}"
        );
        return Err(reader.wrong(detail));
    };
    let width = element.row_bytes(1) as u64;
    if !vector_bytes.is_multiple_of(width) {
        return Err(reader.wrong(format!("vectors of {vector_bytes} bytes are none of {element}")));
    }
    reader.room(n, record_bytes, "records")?;
    let dim = usize::try_from(vector_bytes / width).unwrap_or(usize::MAX);
    let records =
        Records { n, dim, element, offset: reader.at() + vector_at, stride: record_bytes, per_block: 1, block_bytes: record_bytes };
    let dataset = Dataset::of_records(reader.path(), &records)?;
    let (mut links, mut labels, mut is_gone) = (Links::default(), Vec::new(), Vec::new());
    let mut slots = vec![0; 4 * max_links as usize];
    for _ in 0..n {
        let [low, high, flags, _] = reader.array()?;
        let count = u16::from_le_bytes([low, high]);
        if u64::from(count) > max_links {
            return Err(reader.wrong(format!("{count} neighbors where there is room for {max_links}")));
        }
        reader.fill(&mut slots)?;
        let (ids, _) = slots[..4 * usize::from(count)].as_chunks::<4>();
        if let Some(id) = ids.iter().map(|id| u32::from_le_bytes(*id)).find(|&id| u64::from(id) >= n) {
            return Err(reader.wrong(format!("neighbor {id} of {n} vectors")));
        }
        links.push(ids.iter().map(|id| NodeId(u32::from_le_bytes(*id))));
        reader.go_on(&links)?;
        reader.skip(vector_bytes)?;
        labels.push(reader.u64()?);
        is_gone.push(flags & DELETED != 0);
    }
    // The rest are the upper levels: a length a vector, and so many bytes.
    reader.room(n, 4, "lengths of upper levels")?;
    let (dataset, keys, links) = without(dataset, KeyList::Numbers(labels), links, &is_gone)?;
    Ok(Foreign { system: System::Hnswlib, metric: None, dataset, keys, links })
}

fn words<const N: usize>(reader: &mut Reader) -> Result<[u64; N], ForeignError> {
    let mut words = [0; N];
    for word in &mut words {
        *word = reader.u64()?;
    }
    Ok(words)
}
