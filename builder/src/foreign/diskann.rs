//! DiskANN (the C++ library), in memory and on disk. Neither the metric nor the type of the coordinates is in its files.
//!
//! In memory: `NAME` is `u64 file length, u32 most neighbors, u32 entry, u64 frozen`, then `u32 count, u32 neighbors` a node; the last `frozen` nodes are no vectors of the
//! user's. `NAME.data` is `u32 n, u32 dim, vectors`; `NAME.tags`, where it is there, `u32 n, u32 1, u32 keys`.
//!
//! On disk: a sector of 4,096 bytes of `u32, u32, u64 n, dim, entry, bytes a node, nodes a sector, frozen, ...`; then sectors of nodes, `vector, u32 count, u32 neighbors`,
//! none of which crosses into another sector, or each in as many as it needs.

use super::{Foreign, ForeignError, Links, System, checked_n, reader::Reader, without};
use roxanne_core::{
    dataset::{Dataset, Records},
    element::ElementType,
    format::keys::KeyList,
    id::NodeId,
};
use std::path::{Path, PathBuf};

const SECTOR_BYTES: u64 = 4096;
/// What a node may have at most.
const MAX_LINKS: u64 = 4096;

pub(super) fn read(reader: Reader, element: ElementType) -> Result<Foreign, ForeignError> {
    let is_disk = reader.path().file_name().is_some_and(|name| name.to_string_lossy().ends_with("_disk.index"));
    let (dataset, keys, links) = if is_disk { on_disk(reader, element)? } else { in_memory(reader, element)? };
    Ok(Foreign { system: System::DiskAnn, metric: None, dataset, keys, links })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn in_memory(mut reader: Reader, element: ElementType) -> Result<(Dataset, KeyList, Links), ForeignError> {
    let path = reader.path().to_path_buf();
    let len = reader.left();
    let (length, most, _entry, frozen) = (reader.u64()?, u64::from(reader.u32()?), reader.u32()?, reader.u64()?);
    if length != len || most > MAX_LINKS {
        return Err(reader
            .wrong(format!("no graph of DiskANN: its length is said to be {length} and is {len}, and nodes to have {most} neighbors")));
    }
    let mut links = Links::default();
    let mut row = Vec::new();
    while !reader.is_at_end()? {
        let count = u64::from(reader.u32()?);
        if count > most {
            return Err(reader.wrong(format!("a node of {count} neighbors, where none has more than {most}")));
        }
        row.resize(4 * count as usize, 0);
        reader.fill(&mut row)?;
        links.push(row.as_chunks::<4>().0.iter().map(|id| NodeId(u32::from_le_bytes(*id))));
        reader.go_on(&links)?;
    }
    let nodes = checked_n(&reader, links.n() as u64)?;
    if let Some((row, id)) = links.bad_row() {
        return Err(reader.wrong(format!("node {row} has neighbor {id} of {nodes} nodes")));
    }
    let mut data = reader.beside(&beside(&path, ".data"))?;
    let (n, dim) = (u64::from(data.u32()?), data.u32()? as usize);
    if n != nodes || frozen >= n {
        return Err(data.wrong(format!("{n} vectors, where {} has {nodes} nodes, of which {frozen} are frozen", path.display())));
    }
    let bytes = data.room(n, element.row_bytes(dim) as u64, "vectors")?;
    if bytes != data.left() {
        return Err(data.wrong(format!("{} bytes, where {n} vectors of {dim} {element} take {bytes}", data.left())));
    }
    let dataset = Dataset::of_records(data.path(), &Records::dense(n, dim, element, data.at()))?;
    let mine = n - frozen;
    let keys = match reader.beside(&beside(&path, ".tags")) {
        Ok(tags) => KeyList::Numbers(read_tags(tags, n, mine)?),
        Err(ForeignError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => KeyList::Rows(n),
        Err(error) => return Err(error),
    };
    let is_gone: Vec<bool> = (0..n).map(|row| row >= mine).collect();
    without(dataset, keys, links, &is_gone)
}

/// The keys of the first `mine` of `n` nodes; the others get one as well, which is left out with them.
fn read_tags(mut tags: Reader, n: u64, mine: u64) -> Result<Vec<u64>, ForeignError> {
    let (count, one) = (u64::from(tags.u32()?), tags.u32()?);
    if !(mine..=n).contains(&count) || one != 1 || tags.left() != 4 * count {
        return Err(tags.wrong(format!("{count} x {one} tags in {} bytes, where {mine} of 4 bytes belong", tags.left())));
    }
    let mut keys = Vec::new();
    for _ in 0..mine {
        keys.push(u64::from(tags.u32()?));
    }
    keys.resize(n as usize, u64::MAX);
    Ok(keys)
}

fn on_disk(mut reader: Reader, element: ElementType) -> Result<(Dataset, KeyList, Links), ForeignError> {
    // What it holds then are not the vectors that it was given.
    for (suffix, what) in [
        ("_max_base_norm.bin", "one for inner products, with vectors of another length"),
        ("_pq_pivots.bin", "one of codes in the place of vectors"),
    ] {
        if beside(reader.path(), suffix).exists() {
            return Err(reader.unsupported(format!("{what}: {} lies beside it", beside(reader.path(), suffix).display())));
        }
    }
    reader.skip(8)?;
    let (n, dim, _entry, node_bytes, per_sector, frozen) =
        (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
    let n = checked_n(&reader, n)?;
    if frozen > 0 {
        return Err(reader.unsupported(format!("{frozen} frozen points in an index on disk are not read")));
    }
    let row_bytes = usize::try_from(dim).ok().filter(|&dim| dim <= roxanne_core::id::MAX_DIM).map(|dim| element.row_bytes(dim) as u64);
    let links_of = row_bytes.and_then(|row| node_bytes.checked_sub(row + 4)).filter(|bytes| bytes.is_multiple_of(4)).map(|bytes| bytes / 4);
    let (Some(row_bytes), Some(most)) = (row_bytes, links_of.filter(|most| (1..=MAX_LINKS).contains(most))) else {
        return Err(
            reader.wrong(format!("no index of DiskANN with coordinates of {element}: nodes of {node_bytes} bytes, dimension {dim}"))
        );
    };
    // A node of more than a sector has some to itself.
    let (per_block, block_bytes) =
        if per_sector == 0 { (1, node_bytes.next_multiple_of(SECTOR_BYTES)) } else { (per_sector, SECTOR_BYTES) };
    if per_block.checked_mul(node_bytes).is_none_or(|bytes| bytes > block_bytes) {
        return Err(reader.wrong(format!("{per_sector} nodes of {node_bytes} bytes in a sector of {SECTOR_BYTES}")));
    }
    reader.skip(SECTOR_BYTES - reader.at())?;
    reader.room(n.div_ceil(per_block), block_bytes, "sectors")?;
    let records = Records { n, dim: dim as usize, element, offset: SECTOR_BYTES, stride: node_bytes, per_block, block_bytes };
    let dataset = Dataset::of_records(reader.path(), &records)?;
    let (mut links, mut block) = (Links::default(), vec![0; block_bytes as usize]);
    for first in (0..n).step_by(per_block as usize) {
        reader.fill(&mut block)?;
        for node in block.chunks_exact(node_bytes as usize).take((n - first).min(per_block) as usize) {
            let (words, _) = node[row_bytes as usize..].as_chunks::<4>();
            let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
            let count = words.next().map_or(0, u64::from);
            if count > most {
                return Err(reader.wrong(format!("a node of {count} neighbors before it, where there is room for {most}")));
            }
            links.push(words.take(count as usize).map(NodeId));
        }
        reader.go_on(&links)?;
    }
    if let Some((row, id)) = links.bad_row() {
        return Err(reader.wrong(format!("node {row} has neighbor {id} of {n} nodes")));
    }
    Ok((dataset, KeyList::Rows(n), links))
}
