//! The redo file of a merge: every byte that the merge will write, and what it means for the store, durable before the first of them is written.
//!
//! ```text
//! magic | version | generation | epoch | bytes of the plan | images      six u64
//! plan                                                                   see `Plan`
//! images: file u64 (0 graph.rx, 1 codes.rx) | offset u64 | bytes u64 | image
//! xxh3-64 of all of it
//! ```
//! It appears under its name whole or not at all (`redo.tmp`, synced, renamed). Whoever finds it at opening writes the images once more, which
//! changes nothing where they had been written, and then says so in the store.

use crate::disk::Disk;
use roxanne_core::format::{CODES_FILE, GRAPH_FILE};
use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::Xxh3;

const MAGIC: u64 = u64::from_le_bytes(*b"RXREDO\0\0");
const VERSION: u64 = 1;
const NAME: &str = "redo";
const PARTIAL: &str = "redo.tmp";
/// Bytes that are written in one call, and brought to the device before the next: reads of searches wait behind no more than that.
const PART: usize = 1 << 20;

/// The files that a merge changes, in the order of their numbers.
const FILES: [&str; 2] = [GRAPH_FILE, CODES_FILE];

/// Bytes to be written in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// 0 for graph.rx, 1 for codes.rx.
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// A vector that comes into the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    /// As the store has it.
    pub(super) key: Vec<u8>,
    /// What the store must hold of its vector for the node to be the point (xxh3-64 of the value).
    pub(super) hash: u64,
    pub(super) node: u32,
    /// The node that it replaces, or `NO_NODE`.
    pub(super) replaces: u32,
    /// The key in its record; that of a text is a number of its own.
    pub(super) record_key: u64,
}

/// A node that leaves its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) key: Vec<u8>,
    pub(super) node: u32,
    /// The number of the next use of its slot.
    pub(super) generation: u8,
}

/// What a merge means for the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) epoch: u64,
    /// Nodes afterwards.
    pub(super) n: u64,
    pub(super) merged: Vec<Merged>,
    pub(super) freed: Vec<Freed>,
}

impl Plan {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |value: u64| bytes.extend_from_slice(&value.to_le_bytes());
        [self.n, self.merged.len() as u64, self.freed.len() as u64].into_iter().for_each(&mut put);
        for merged in &self.merged {
            [merged.hash, u64::from(merged.node), u64::from(merged.replaces), merged.record_key, merged.key.len() as u64]
                .into_iter()
                .for_each(&mut put);
        }
        for freed in &self.freed {
            [u64::from(freed.node), u64::from(freed.generation), freed.key.len() as u64].into_iter().for_each(&mut put);
        }
        let keys = self.merged.iter().map(|merged| &merged.key).chain(self.freed.iter().map(|freed| &freed.key));
        keys.for_each(|key| bytes.extend_from_slice(key));
        bytes
    }

    /// `None` where that is no plan.
    pub(super) fn from_bytes(epoch: u64, bytes: &[u8]) -> Option<Plan> {
        let mut rest = bytes;
        fn take(rest: &mut &[u8]) -> Option<u64> {
            let (word, after) = rest.split_first_chunk::<8>()?;
            *rest = after;
            Some(u64::from_le_bytes(*word))
        }
        let (n, merged_count, freed_count) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
        let (mut merged, mut freed, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..merged_count {
            let (hash, node, replaces, record_key) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
            lengths.push(usize::try_from(take(&mut rest)?).ok()?);
            merged.push(Merged { key: Vec::new(), hash, node: node.try_into().ok()?, replaces: replaces.try_into().ok()?, record_key });
        }
        for _ in 0..freed_count {
            let (node, generation) = (take(&mut rest)?, take(&mut rest)?);
            lengths.push(usize::try_from(take(&mut rest)?).ok()?);
            freed.push(Freed { key: Vec::new(), node: node.try_into().ok()?, generation: generation.try_into().ok()? });
        }
        let keys = merged.iter_mut().map(|merged| &mut merged.key).chain(freed.iter_mut().map(|freed| &mut freed.key));
        for (key, length) in keys.zip(lengths) {
            let (bytes, after) = rest.split_at_checked(length)?;
            *key = bytes.to_vec();
            rest = after;
        }
        rest.is_empty().then_some(Plan { epoch, n, merged, freed })
    }
}

/// Collects what is written into parts.
struct Parts<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    offset: u64,
    buffer: Vec<u8>,
    hash: Xxh3,
}

impl Parts<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.write(self.path, self.offset, &self.buffer)?;
        self.disk.sync(self.path)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Makes the redo file of a merge of the base in `directory` durable.
pub(super) fn write(disk: &dyn Disk, directory: &Path, generation: u64, plan: &Plan, images: &[Image]) -> io::Result<()> {
    let (partial, path) = (directory.join(PARTIAL), directory.join(NAME));
    disk.create(&partial)?;
    let mut parts = Parts { disk, path: &partial, offset: 0, buffer: Vec::with_capacity(PART), hash: Xxh3::new() };
    let text = plan.to_bytes();
    let head = [MAGIC, VERSION, generation, plan.epoch, text.len() as u64, images.len() as u64];
    head.into_iter().try_for_each(|word| parts.put(&word.to_le_bytes()))?;
    parts.put(&text)?;
    for image in images {
        [image.file as u64, image.offset, image.bytes.len() as u64].into_iter().try_for_each(|word| parts.put(&word.to_le_bytes()))?;
        parts.put(&image.bytes)?;
    }
    let sum = parts.hash.digest();
    parts.put(&sum.to_le_bytes())?;
    parts.flush()?;
    disk.rename(&partial, &path)?;
    disk.sync_directory(directory)
}

/// Writes the images of each file, in their order, and brings them to the device.
pub(super) fn apply(disk: &dyn Disk, directory: &Path, images: &[Image]) -> io::Result<()> {
    for (file, name) in FILES.iter().enumerate() {
        let path = directory.join(name);
        let mut images = images.iter().filter(|image| image.file == file).peekable();
        if images.peek().is_none() {
            continue;
        }
        // Neighbors go in one call.
        let mut part: Vec<u8> = Vec::new();
        let (mut from, mut unsynced) = (0, 0);
        for image in images {
            if from + part.len() as u64 != image.offset || part.len() >= PART {
                if !part.is_empty() {
                    disk.write(&path, from, &part)?;
                    unsynced += part.len();
                    part.clear();
                }
                if unsynced >= PART {
                    disk.sync(&path)?;
                    unsynced = 0;
                }
                from = image.offset;
            }
            part.extend_from_slice(&image.bytes);
        }
        disk.write(&path, from, &part)?;
        disk.sync(&path)?;
    }
    Ok(())
}

/// The merge is done, in the store too.
pub(super) fn remove(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    disk.remove(&directory.join(NAME))
}

/// Where the redo file of a base is.
pub(super) fn path_in(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// The redo file of the base in `directory`, if there is one; what was not finished of another is removed.
///
/// # Errors
/// In words: one that is not whole, or of another generation.
pub(super) fn read(disk: &dyn Disk, directory: &Path, generation: u64) -> Result<Option<(Plan, Vec<Image>)>, String> {
    let said = |error: io::Error| error.to_string();
    disk.remove(&directory.join(PARTIAL)).map_err(said)?;
    let file = match File::open(directory.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(said)?,
    };
    let length = file.metadata().map_err(said)?.len();
    let mut reader = Hashed { reader: BufReader::with_capacity(PART, file), left: length, hash: Xxh3::new() };
    let mut word = || reader_word(&mut reader);
    let [magic, version, its, epoch, plan_bytes, count] = [word()?, word()?, word()?, word()?, word()?, word()?];
    if (magic, its) != (MAGIC, generation) {
        return Err("it is of another generation".to_string());
    }
    if version != VERSION {
        return Err(format!("version {version}; this roxanne knows {VERSION}: use a newer one"));
    }
    let plan = Plan::from_bytes(epoch, &reader.take(plan_bytes)?).ok_or("its plan makes no sense")?;
    let mut images = Vec::new();
    for _ in 0..count {
        let [file, offset, bytes] = [reader_word(&mut reader)?, reader_word(&mut reader)?, reader_word(&mut reader)?];
        if file >= FILES.len() as u64 {
            return Err(format!("an image of file {file}"));
        }
        images.push(Image { file: file as usize, offset, bytes: reader.take(bytes)? });
    }
    let sum = reader.hash.digest();
    let expected = reader_word(&mut reader)?;
    if sum != expected || reader.left != 0 {
        return Err(format!("checksum {sum:016x}, expected {expected:016x}, and {} bytes more", reader.left));
    }
    Ok(Some((plan, images)))
}

/// Reads what a file that may be damaged says it holds, and no more than it is long.
struct Hashed {
    reader: BufReader<File>,
    left: u64,
    hash: Xxh3,
}

impl Hashed {
    fn take(&mut self, bytes: u64) -> Result<Vec<u8>, String> {
        self.left = self.left.checked_sub(bytes).ok_or("it is shorter than it says")?;
        let mut taken = vec![0; bytes as usize];
        self.reader.read_exact(&mut taken).map_err(|error| error.to_string())?;
        self.hash.update(&taken);
        Ok(taken)
    }
}

fn reader_word(reader: &mut Hashed) -> Result<u64, String> {
    let bytes = reader.take(8)?;
    Ok(bytes.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::FileDisk;

    fn example() -> (Plan, Vec<Image>) {
        let merged = |key: &[u8], node| Merged { key: key.to_vec(), hash: 5, node, replaces: u32::MAX, record_key: 1 << 63 };
        let plan = Plan {
            epoch: 3,
            n: 12,
            merged: vec![merged(b"a", 11), merged(b"longer", 2)],
            freed: vec![Freed { key: b"gone".to_vec(), node: 4, generation: 1 }],
        };
        let image = |file, offset: u64, byte| Image { file, offset, bytes: vec![byte; 4096] };
        (plan, vec![image(0, 8192, 1), image(0, 12288, 2), image(0, 65536, 3), image(1, 0, 4)])
    }

    #[test]
    fn it_is_read_as_it_was_written_and_its_images_land_where_they_belong() {
        let (plan, images) = example();
        let (dir, disk) = (tempfile::tempdir().unwrap(), FileDisk::default());
        assert_eq!(read(&disk, dir.path(), 7), Ok(None));
        write(&disk, dir.path(), 7, &plan, &images).unwrap();
        assert_eq!(read(&disk, dir.path(), 7), Ok(Some((plan, images.clone()))));
        assert!(read(&disk, dir.path(), 8).is_err());
        for name in FILES {
            std::fs::write(dir.path().join(name), vec![0; 100_000]).unwrap();
        }
        apply(&disk, dir.path(), &images).unwrap();
        let graph = std::fs::read(dir.path().join(GRAPH_FILE)).unwrap();
        assert!(graph[..8192].iter().all(|&b| b == 0) && graph[8192..12288].iter().all(|&b| b == 1));
        assert!(graph[12288..16384].iter().all(|&b| b == 2) && graph[65536..69632].iter().all(|&b| b == 3) && graph[16384] == 0);
        remove(&disk, dir.path()).unwrap();
        assert_eq!(read(&disk, dir.path(), 7), Ok(None));
    }

    #[test]
    fn one_that_was_damaged_or_cut_is_refused() {
        let (plan, images) = example();
        let (dir, disk) = (tempfile::tempdir().unwrap(), FileDisk::default());
        write(&disk, dir.path(), 7, &plan, &images).unwrap();
        let whole = std::fs::read(path_in(dir.path())).unwrap();
        for at in (0..whole.len()).step_by(97).chain(0..400) {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(path_in(dir.path()), bad).unwrap();
            assert!(read(&disk, dir.path(), 7).is_err(), "byte {at}");
        }
        for length in (0..whole.len()).step_by(501) {
            std::fs::write(path_in(dir.path()), &whole[..length]).unwrap();
            assert!(read(&disk, dir.path(), 7).is_err(), "{length} bytes");
        }
    }
}
