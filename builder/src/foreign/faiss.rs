//! faiss (`write_index`): four letters and a header, then what that kind of index has. Read are `IHNf`, an HNSW graph and the flat vectors it stands on (`IxF2`, `IxFI`,
//! `IxFl`), and the same in an `IxMp` or `IxM2`, which gives it keys.
//!
//! Of a graph: `assign_probas f64[], cum_nneighbor_per_level i32[], levels i32[n], offsets u64[n + 1], neighbors i32[]`, each after its u64 length, and five i32. The
//! lowest level of node i is `neighbors[offsets[i] .. offsets[i] + cum_nneighbor_per_level[1]]`, as far as no -1 ends it.

use super::{Foreign, ForeignError, Links, System, agree, checked_n, reader::Reader};
use roxanne_core::{
    dataset::{Dataset, Records},
    element::ElementType,
    format::keys::KeyList,
    id::NodeId,
    metric::Metric,
};

/// Levels that a graph may have, and neighbors on the lowest.
const MAX_LEVELS: u64 = 64;
const MAX_LINKS: u64 = 4096;

/// What every index begins with.
struct Header {
    dim: u32,
    n: u64,
    metric: i32,
}

pub(super) fn read(mut reader: Reader, element: Option<ElementType>) -> Result<Foreign, ForeignError> {
    agree(&reader, ElementType::F32, element)?;
    let tag = reader.array::<4>()?;
    let (header, dataset, links, keys) = if matches!(&tag, b"IxMp" | b"IxM2") {
        let outer = header(&mut reader)?;
        let tag = reader.array::<4>()?;
        let (header, dataset, links) = graph(&mut reader, tag)?;
        let count = length(&mut reader, 8, "keys")?;
        if count != header.n || outer.n != header.n {
            return Err(reader.wrong(format!("{count} keys and {} vectors, of which the header says {}", header.n, outer.n)));
        }
        let mut keys = Vec::new();
        for _ in 0..count {
            let key = i64::from_le_bytes(reader.array()?);
            keys.push(u64::try_from(key).map_err(|_| reader.wrong(format!("key {key}: keys are numbers from 0 on")))?);
        }
        (header, dataset, links, KeyList::Numbers(keys))
    } else {
        let (header, dataset, links) = graph(&mut reader, tag)?;
        let keys = KeyList::Rows(header.n);
        (header, dataset, links, keys)
    };
    let metric = match header.metric {
        0 => Metric::InnerProduct,
        1 => Metric::L2,
        2 => Metric::Manhattan,
        other => return Err(reader.unsupported(format!("metric {other} of faiss is none of inner product, L2, L1"))),
    };
    Ok(Foreign { system: System::Faiss, metric: Some(metric), dataset, keys, links })
}

fn header(reader: &mut Reader) -> Result<Header, ForeignError> {
    let (dim, n) = (reader.u32()?, reader.u64()?);
    reader.skip(8 + 8 + 1)?;
    let metric = i32::from_le_bytes(reader.array()?);
    if metric > 1 {
        // Its argument.
        reader.skip(4)?;
    }
    Ok(Header { dim, n: checked_n(reader, n)?, metric })
}

/// The length of an array of things of `bytes` each, which must be there.
fn length(reader: &mut Reader, bytes: u64, what: &str) -> Result<u64, ForeignError> {
    let count = reader.u64()?;
    reader.room(count, bytes, what)?;
    Ok(count)
}

/// The index that begins with `tag`, which was read.
fn graph(reader: &mut Reader, tag: [u8; 4]) -> Result<(Header, Dataset, Links), ForeignError> {
    if tag != *b"IHNf" {
        let detail = format!("an index of faiss of kind \"{}\": read are IndexHNSWFlat, and one in an IndexIDMap", tag.escape_ascii());
        return Err(reader.unsupported(detail));
    }
    let header = header(reader)?;
    let n = header.n;
    let probabilities = length(reader, 8, "probabilities")?;
    reader.skip(8 * probabilities)?;
    let levels = length(reader, 4, "numbers of neighbors")?;
    if !(2..=MAX_LEVELS).contains(&levels) {
        return Err(reader.wrong(format!("{levels} levels")));
    }
    let (zero, lowest) = (reader.u32()?, u64::from(reader.u32()?));
    reader.skip(4 * (levels - 2))?;
    if zero != 0 || lowest > MAX_LINKS {
        return Err(reader.wrong(format!("{lowest} neighbors on the lowest level, after {zero}")));
    }
    if length(reader, 4, "levels")? != n {
        return Err(reader.wrong(format!("levels of other than {n} nodes")));
    }
    reader.skip(4 * n)?;
    if length(reader, 8, "offsets")? != n + 1 {
        return Err(reader.wrong(format!("offsets of other than {n} nodes")));
    }
    let mut offsets = Vec::new();
    for _ in 0..=n {
        offsets.push(reader.u64()?);
    }
    let slots = length(reader, 4, "neighbors")?;
    let ascending = offsets.windows(2).all(|pair| pair[0].checked_add(lowest).is_some_and(|end| end <= pair[1]));
    if offsets[0] != 0 || offsets[n as usize] != slots || !ascending {
        return Err(reader.wrong(format!("offsets that do not lead through {slots} neighbors")));
    }
    let (mut links, mut row) = (Links::default(), vec![0; 4 * lowest as usize]);
    for pair in offsets.windows(2) {
        reader.fill(&mut row)?;
        let ids = row.as_chunks::<4>().0.iter().map(|id| i32::from_le_bytes(*id)).take_while(|&id| id != -1);
        links.push(ids.map(|id| NodeId(id as u32)));
        reader.go_on(&links)?;
        reader.skip(4 * (pair[1] - pair[0] - lowest))?;
    }
    reader.skip(5 * 4)?;
    if let Some((row, id)) = links.bad_row() {
        return Err(reader.wrong(format!("node {row} has neighbor {id} of {n} nodes")));
    }
    let tag = reader.array::<4>()?;
    if !matches!(&tag, b"IxF2" | b"IxFI" | b"IxFl") {
        return Err(reader.unsupported(format!("vectors in an index of kind \"{}\": read are flat ones", tag.escape_ascii())));
    }
    let flat = self::header(reader)?;
    let coordinates = length(reader, 4, "coordinates")?;
    if (flat.n, flat.dim) != (n, header.dim) || n.checked_mul(u64::from(flat.dim)) != Some(coordinates) {
        let detail =
            format!("{} vectors of {}, {coordinates} coordinates in all, under a graph of {n} nodes of {}", flat.n, flat.dim, header.dim);
        return Err(reader.wrong(detail));
    }
    let records = Records::dense(n, flat.dim as usize, ElementType::F32, reader.at());
    let dataset = Dataset::of_records(reader.path(), &records)?;
    reader.skip(4 * coordinates)?;
    Ok((header, dataset, links))
}
