//! Files that the steps of a sharded build leave for each other: runs of segments, each with a checksum of its own.
//!
//! A segment is a header of [`HEADER`] bytes, records of one width, and zeros up to a whole block of the disk. Its checksum covers the
//! records and is seeded with what the file is, whose build it belongs to and where the segment begins: a flipped bit, a swapped segment and
//! a file of another build are all found, when they are read.

use super::disk::{BLOCK, Blocks, Disk, Link, Target, WAITING};
use crate::BuildError;
use roxanne_core::format::FormatError;
use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// Bytes of a full segment, at most.
pub(super) const SEGMENT_BYTES: usize = 2 << 20;
/// Magic, bytes of records, checksum, zero; u64 each.
const HEADER: usize = 32;
const MAGIC: u64 = u64::from_le_bytes(*b"rxsegmnt");
/// Memory of all buffers that a build has at once, at most: the writer's, and those of the three files that it ever reads side by side.
pub(crate) const BUFFER_BYTES: u64 = (2 + WAITING as u64 + 3 * 3) * SEGMENT_BYTES as u64;

/// What a file of segments is: the seed of its checksums.
#[derive(Clone, Copy)]
pub(super) struct Identity(pub(super) u64);

impl Identity {
    /// Of the file `kind` of `shard` in the build of this fingerprint.
    pub(super) fn of(fingerprint: u64, kind: &str, shard: usize) -> Identity {
        Identity(xxh3_64(format!("{fingerprint:x} {kind} {shard}").as_bytes()))
    }

    fn checksum(self, offset: u64, records: &[u8]) -> u64 {
        xxh3_64_with_seed(records, xxh3_64(bytemuck::bytes_of(&[self.0.to_le(), offset.to_le(), (records.len() as u64).to_le()])))
    }
}

/// Records of a full segment.
pub(super) fn per_segment(width: usize) -> usize {
    ((SEGMENT_BYTES - HEADER) / width).max(1)
}

/// Bytes of a segment of so many bytes of records.
fn segment_bytes(records: usize) -> usize {
    (HEADER + records).next_multiple_of(BLOCK)
}

/// Where the segment of record `at` begins in a file of full segments, and the place of the record in it.
pub(super) fn place_of(at: u64, width: usize) -> (u64, usize) {
    let per = per_segment(width) as u64;
    (at / per * segment_bytes(per as usize * width) as u64, (at % per) as usize)
}

/// Bytes of a file of `count` records in full segments.
pub(crate) fn file_bytes(count: u64, width: usize) -> u64 {
    let per = per_segment(width) as u64;
    let rest = (count % per) as usize * width;
    count / per * segment_bytes(per as usize * width) as u64 + if rest > 0 { segment_bytes(rest) as u64 } else { 0 }
}

/// Writes records of one width.
pub(super) struct SegmentWriter<'d> {
    disk: &'d Disk,
    target: Arc<Target>,
    identity: Identity,
    /// Where the next segment begins.
    offset: u64,
    /// Bytes of records in a full segment.
    full: usize,
    /// The segment that is being filled, and the bytes of records in it.
    blocks: Option<Blocks>,
    filled: usize,
    /// Over all checksums.
    hash: Xxh3,
}

impl<'d> SegmentWriter<'d> {
    /// Writes from `offset`, the end of what is there and counts, on.
    pub(super) fn new(disk: &'d Disk, target: &Arc<Target>, identity: Identity, width: usize, offset: u64) -> SegmentWriter<'d> {
        let full = per_segment(width) * width;
        SegmentWriter { disk, target: target.clone(), identity, offset, full, blocks: None, filled: 0, hash: Xxh3::new() }
    }

    /// Adds whole records, or parts of them that become whole.
    pub(super) fn push(&mut self, mut records: &[u8]) -> Result<(), BuildError> {
        while !records.is_empty() {
            let blocks = self.blocks.get_or_insert_with(|| self.disk.buffer(segment_bytes(self.full)));
            let part = records.len().min(self.full - self.filled);
            blocks.bytes_mut()[HEADER + self.filled..][..part].copy_from_slice(&records[..part]);
            self.filled += part;
            records = &records[part..];
            if self.filled == self.full {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Ends the segment; the next record begins one.
    pub(super) fn flush(&mut self) -> Result<(), BuildError> {
        let (Some(mut blocks), filled) = (self.blocks.take(), std::mem::take(&mut self.filled)) else { return Ok(()) };
        let bytes = segment_bytes(filled);
        let segment = &mut blocks.bytes_mut()[..bytes];
        segment[HEADER + filled..].fill(0);
        let checksum = self.identity.checksum(self.offset, &segment[HEADER..][..filled]);
        for (word, value) in segment.chunks_exact_mut(8).zip([MAGIC, filled as u64, checksum, 0]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        self.hash.update(&checksum.to_le_bytes());
        self.disk.write(&self.target, self.offset, blocks, bytes)?;
        self.offset += bytes as u64;
        Ok(())
    }

    /// The end of what was flushed.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Completes and syncs the file; gives its bytes, and the hash of what it holds.
    pub(super) fn finish(mut self) -> Result<(u64, u64), BuildError> {
        self.flush()?;
        self.disk.settle()?;
        self.target.end_at(self.offset)?;
        self.target.sync()?;
        Ok((self.offset, self.hash.digest()))
    }
}

/// Reads segments one after the other; a thread is one ahead.
pub(super) struct SegmentReader {
    segments: Receiver<Result<(Blocks, usize), FormatError>>,
    link: Arc<Link>,
    current: Blocks,
    /// Bytes of records in it, and those that [`read`](SegmentReader::read) has taken.
    records: usize,
    taken: usize,
}

impl SegmentReader {
    /// The segments of `path` from the one at byte `from` up to byte `end`.
    pub(super) fn open(disk: &Disk, path: &Path, identity: Identity, from: u64, end: u64) -> Result<SegmentReader, BuildError> {
        let target = Target::open_to_read(path)?;
        let (send, segments) = sync_channel(1);
        let link = disk.link().clone();
        let ahead = move || {
            let mut offset = from;
            while offset < end {
                let read = read_segment(&link, &target, identity, offset, end);
                let next = read.as_ref().map_or(end, |(_, records)| offset + segment_bytes(*records) as u64);
                // When nobody listens any more.
                if send.send(read).is_err() {
                    return;
                }
                offset = next;
            }
        };
        thread::Builder::new().name("read ahead".into()).spawn(ahead).map_err(|e| BuildError::Threads(e.to_string()))?;
        Ok(SegmentReader { segments, link: disk.link().clone(), current: Blocks::default(), records: 0, taken: 0 })
    }

    /// The records of the next segment; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, BuildError> {
        let Ok(segment) = self.segments.recv() else { return Ok(None) };
        let (blocks, records) = segment?;
        self.link.give_back(std::mem::replace(&mut self.current, blocks));
        (self.records, self.taken) = (records, records);
        Ok(Some(&self.current.bytes()[HEADER..][..records]))
    }

    /// Fills `out` with what comes next, whatever segments it lies in; how much there was.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, BuildError> {
        let mut done = 0;
        while done < out.len() {
            if self.taken == self.records {
                if self.next()?.is_none() {
                    break;
                }
                self.taken = 0;
            }
            let part = (self.records - self.taken).min(out.len() - done);
            out[done..done + part].copy_from_slice(&self.current.bytes()[HEADER + self.taken..][..part]);
            (self.taken, done) = (self.taken + part, done + part);
        }
        Ok(done)
    }
}

/// One segment and the bytes of its records, held against its checksum.
fn read_segment(link: &Link, target: &Target, identity: Identity, offset: u64, end: u64) -> Result<(Blocks, usize), FormatError> {
    let corrupt = |detail: String| FormatError::Corrupt { path: target.path().to_path_buf(), offset, detail };
    let read = |out: &mut [u8], at: u64| {
        link.read(target, out, at)?.ok_or_else(|| corrupt(format!("the file ends before byte {}", at + out.len() as u64)))
    };
    let mut blocks = link.free_buffer();
    blocks.grow(BLOCK);
    read(&mut blocks.bytes_mut()[..BLOCK], offset)?;
    let word = |at: usize| blocks.bytes()[at * 8..][..8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let [magic, records, checksum] = [0, 1, 2].map(word);
    if magic != MAGIC || records > (end - offset).saturating_sub(HEADER as u64) {
        return Err(corrupt("no segment of a build begins here".into()));
    }
    let bytes = segment_bytes(records as usize);
    blocks.grow(bytes);
    if bytes > BLOCK {
        read(&mut blocks.bytes_mut()[BLOCK..bytes], offset + BLOCK as u64)?;
    }
    let found = identity.checksum(offset, &blocks.bytes()[HEADER..][..records as usize]);
    if found != checksum {
        return Err(corrupt(format!("the checksum is {found:016x} where {checksum:016x} was written, or the file is of another build")));
    }
    Ok((blocks, records as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path, width: usize, records: &[u8]) -> u64 {
        let disk = Disk::new().unwrap();
        let mut writer = SegmentWriter::new(&disk, &Target::open(path).unwrap(), Identity(7), width, 0);
        records.chunks(1000).for_each(|part| writer.push(part).unwrap());
        writer.finish().unwrap().0
    }

    fn read(path: &Path, identity: u64, from: u64, end: u64) -> Result<Vec<u8>, BuildError> {
        let disk = Disk::new()?;
        let mut reader = SegmentReader::open(&disk, path, Identity(identity), from, end)?;
        let mut all = Vec::new();
        while let Some(records) = reader.next()? {
            all.extend_from_slice(records);
        }
        Ok(all)
    }

    #[test]
    fn records_come_back_from_any_segment_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some");
        for (width, count) in [(1, 0), (12, 1), (300, 14_000), (300, 2 * per_segment(300)), (5000, 1700)] {
            let records: Vec<u8> = (0..width * count).map(|i| (i * 7 / 3) as u8).collect();
            let bytes = written(&path, width, &records);
            assert_eq!((bytes, std::fs::metadata(&path).unwrap().len()), (file_bytes(count as u64, width), bytes), "{count} x {width}");
            assert!(read(&path, 7, 0, bytes).unwrap() == records);
            let (from, within) = place_of(count as u64 / 2, width);
            if count > 0 {
                assert!(read(&path, 7, from, bytes).unwrap()[within * width..] == records[count / 2 * width..], "{count} x {width}");
            }
        }
    }

    #[test]
    fn damage_and_files_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some");
        let bytes = written(&path, 100, &[5; 90_000]);
        let refused = |identity: u64| matches!(read(&path, identity, 0, bytes), Err(BuildError::Format(FormatError::Corrupt { .. })));
        assert!(!refused(7) && refused(8));
        let whole = std::fs::read(&path).unwrap();
        for at in [0, 9, 17, HEADER, 50_000, HEADER + 89_999] {
            let mut damaged = whole.clone();
            damaged[at] ^= 16;
            std::fs::write(&path, damaged).unwrap();
            assert!(refused(7), "byte {at}");
        }
        std::fs::write(&path, &whole[..whole.len() - BLOCK]).unwrap();
        assert!(refused(7));
    }
}
