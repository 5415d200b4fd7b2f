//! The head of graph.rx: the shape of the index, twice.
//!
//! A build writes both copies alike; the merger writes them alternately, with a rising epoch, and the newest valid one wins.

use super::{FormatError, VERSION, io_error};
use bytemuck::{Pod, Zeroable};
use std::{fs::File, os::unix::fs::FileExt, path::Path};
use xxhash_rust::xxh3::xxh3_64;

/// `RXGRAPH` and a zero byte.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RXGRAPH\0");
/// Where pages begin. The superblocks lie at 0 and 4096, the rest is zero; a multiple of every page size.
pub const FIRST_PAGE_OFFSET: u64 = 65536;
const COPY_OFFSETS: [u64; 2] = [0, 4096];
/// The epoch of a build; every change in place has the next one.
pub const BUILT: u64 = 1;

/// Shape of graph.rx. All fields are 64 bits wide, so the layout has no holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Superblock {
    /// xxh3-64 of the other fields.
    pub checksum: u64,
    /// [`MAGIC`].
    pub magic: u64,
    /// Format version.
    pub version: u64,
    /// Rises with every rewrite.
    pub epoch: u64,
    /// [`super::file_id`] that every page carries.
    pub file_id: u64,
    /// Nodes.
    pub n: u64,
    /// Pages.
    pub page_count: u64,
    /// Bytes a page.
    pub page_bytes: u64,
    /// Bytes a record.
    pub record_bytes: u64,
    /// Bits of one packed neighbor id.
    pub id_bits: u64,
    /// Room of a neighbor list (R).
    pub max_degree: u64,
    /// The node that reaches all others.
    pub entry: u64,
}

impl Superblock {
    /// The first [`FIRST_PAGE_OFFSET`] bytes of graph.rx.
    pub fn to_head(mut self) -> Vec<u8> {
        self.checksum = xxh3_64(&bytemuck::bytes_of(&self)[8..]);
        let mut head = vec![0; FIRST_PAGE_OFFSET as usize];
        for at in COPY_OFFSETS {
            head[at as usize..][..size_of::<Superblock>()].copy_from_slice(bytemuck::bytes_of(&self));
        }
        head
    }

    /// Where the copy of its epoch stands and what it is: the other copy is the one of the epoch before.
    pub fn to_copy(mut self) -> (u64, Vec<u8>) {
        self.checksum = xxh3_64(&bytemuck::bytes_of(&self)[8..]);
        (COPY_OFFSETS[(self.epoch % 2) as usize], bytemuck::bytes_of(&self).to_vec())
    }

    /// Reads the newest valid copy.
    ///
    /// # Errors
    /// Neither copy is whole, or the format is newer than this code.
    pub fn read(path: &Path) -> Result<Superblock, FormatError> {
        let file = File::open(path).map_err(io_error(path))?;
        let mut newest: Option<Superblock> = None;
        for at in COPY_OFFSETS {
            let mut bytes = [0; size_of::<Superblock>()];
            if let Err(error) = file.read_exact_at(&mut bytes, at) {
                if error.kind() == std::io::ErrorKind::UnexpectedEof {
                    continue;
                }
                return Err(io_error(path)(error));
            }
            let block: Superblock = bytemuck::pod_read_unaligned(&bytes);
            let whole = block.magic == MAGIC && block.checksum == xxh3_64(&bytes[8..]);
            if whole && newest.is_none_or(|n| n.epoch < block.epoch) {
                newest = Some(block);
            }
        }
        let Some(block) = newest else {
            let detail = "neither superblock is whole".to_string();
            return Err(FormatError::Corrupt { path: path.to_path_buf(), offset: 0, detail });
        };
        match u32::try_from(block.version) {
            Ok(VERSION) => Ok(block),
            version => Err(FormatError::TooNew { path: path.to_path_buf(), found: version.unwrap_or(u32::MAX) }),
        }
    }

    /// Compares the whole head with what it must be: both copies and the zeros between. The copy of the epoch before, where the index was changed in
    /// place, may be any: it is what a write that was cut off leaves.
    ///
    /// # Errors
    /// The first byte that differs.
    pub fn verify_head(&self, path: &Path) -> Result<(), FormatError> {
        let mut head = vec![0; FIRST_PAGE_OFFSET as usize];
        File::open(path).and_then(|f| f.read_exact_at(&mut head, 0)).map_err(io_error(path))?;
        let expected = self.to_head();
        if self.epoch > BUILT {
            let other = COPY_OFFSETS[((self.epoch + 1) % 2) as usize] as usize;
            let other = other..other + size_of::<Superblock>();
            head[other.clone()].copy_from_slice(&expected[other]);
        }
        match head.iter().zip(expected).position(|(&got, want)| got != want) {
            None => Ok(()),
            Some(offset) => {
                let detail = "the superblocks or the zeros behind them were altered".to_string();
                Err(FormatError::Corrupt { path: path.to_path_buf(), offset: offset as u64, detail })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_damaged_copy_is_survived_and_two_are_not() {
        let block = Superblock { magic: MAGIC, version: 1, n: 5, entry: 3, ..Superblock::zeroed() };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("graph.rx");
        let mut head = block.to_head();
        let written = Superblock { checksum: u64::from_le_bytes(head[..8].try_into().unwrap()), ..block };
        head[40] ^= 1;
        std::fs::write(&path, &head).unwrap();
        assert_eq!(Superblock::read(&path).unwrap(), written);
        assert!(written.verify_head(&path).is_err());
        head[4096 + 40] ^= 1;
        std::fs::write(&path, &head).unwrap();
        assert!(Superblock::read(&path).unwrap_err().is_corruption());
        std::fs::write(&path, Superblock { version: 2, ..block }.to_head()).unwrap();
        assert!(matches!(Superblock::read(&path), Err(FormatError::TooNew { found: 2, .. })));
    }
}
