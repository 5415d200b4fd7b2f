//! What of a sharded build is done: a text file that only grows, each line written after the data it speaks of is on disk.
//!
//! A line ends with the checksum of itself and of all lines before it, so a torn or foreign tail is cut off and the work it stood for done
//! again; units are deterministic and their outputs lie at offsets that lines tell, so doing one again writes the same bytes.

use crate::BuildError;
use roxanne_core::format::FormatError;
use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::Xxh3;

/// Its name in a build's directory.
pub(crate) const JOURNAL: &str = "JOURNAL";

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The build that this directory belongs to: a fingerprint of everything that shapes it, and its shards.
    Build { fingerprint: u64, shards: usize },
    /// Rows up to `rows` are with their shards, whose files have these lengths; hashes of the chunks of input that were read for it.
    Routed { rows: u64, members: Vec<u64>, hashes: Vec<u64> },
    /// A shard's graph is on disk.
    Shard(ShardDone),
    /// So many pages of graph.rx are on disk.
    Pages { pages: u64 },
}

/// What is known of a finished shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardDone {
    pub(super) shard: usize,
    /// Its own vectors, and those that it only borrowed.
    pub(super) core: u64,
    pub(super) ghosts: u64,
    /// The row that all its vectors are reached from.
    pub(super) entry: u32,
    /// A row with room for one more neighbor; `u32::MAX` where none has.
    pub(super) host: u32,
    /// Edges that its fix-up added.
    pub(super) fixed: u64,
}

impl Record {
    fn text(&self) -> String {
        let list = |values: &[u64]| values.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        match self {
            Record::Build { fingerprint, shards } => format!("build {fingerprint} {shards}"),
            Record::Routed { rows, members, hashes } => format!("routed {rows} {} {}", list(members), list(hashes)),
            Record::Shard(d) => format!("shard {} {} {} {} {} {}", d.shard, d.core, d.ghosts, d.entry, d.host, d.fixed),
            Record::Pages { pages } => format!("pages {pages}"),
        }
    }

    fn parse(text: &str) -> Option<Record> {
        let mut words = text.split(' ');
        let kind = words.next()?;
        let words: Vec<&str> = words.collect();
        let list = |word: &str| word.split(',').filter(|v| !v.is_empty()).map(|v| v.parse().ok()).collect::<Option<Vec<u64>>>();
        match (kind, words.as_slice()) {
            ("build", [fingerprint, shards]) => {
                Some(Record::Build { fingerprint: fingerprint.parse().ok()?, shards: shards.parse().ok()? })
            }
            ("routed", [rows, members, hashes]) => {
                Some(Record::Routed { rows: rows.parse().ok()?, members: list(members)?, hashes: list(hashes)? })
            }
            ("shard", [shard, core, ghosts, entry, host, fixed]) => Some(Record::Shard(ShardDone {
                shard: shard.parse().ok()?,
                core: core.parse().ok()?,
                ghosts: ghosts.parse().ok()?,
                entry: entry.parse().ok()?,
                host: host.parse().ok()?,
                fixed: fixed.parse().ok()?,
            })),
            ("pages", [pages]) => Some(Record::Pages { pages: pages.parse().ok()? }),
            _ => None,
        }
    }
}

/// The file, open for more.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Over all lines so far.
    hash: Xxh3,
}

impl Journal {
    /// Opens or creates the journal of `directory`; gives what it says.
    pub(super) fn open(directory: &Path) -> Result<(Journal, Vec<Record>), BuildError> {
        let path = directory.join(JOURNAL);
        let io = |error| FormatError::Io { path: path.clone(), error };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let text = String::from_utf8_lossy(&std::fs::read(&path).map_err(io)?).into_owned();
        let (mut hash, mut records, mut sound) = (Xxh3::new(), Vec::new(), 0);
        for line in text.split_inclusive('\n') {
            let Some((body, sum)) = line.strip_suffix('\n').and_then(|line| line.rsplit_once(' ')) else { break };
            let mut next = hash.clone();
            next.update(body.as_bytes());
            let Some(record) = Record::parse(body).filter(|_| sum == format!("{:016x}", next.digest())) else { break };
            records.push(record);
            hash = next;
            sound += line.len() as u64;
        }
        file.set_len(sound).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok((Journal { path, file, hash }, records))
    }

    /// Adds a line; it is on disk when this returns.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), BuildError> {
        let body = record.text();
        self.hash.update(body.as_bytes());
        let line = format!("{body} {:016x}\n", self.hash.digest());
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        Ok(written.map_err(|error| FormatError::Io { path: self.path.clone(), error })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_gives_back_what_it_was_told_and_cuts_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let done = ShardDone { shard: 1, core: 5, ghosts: 2, entry: 9, host: u32::MAX, fixed: 0 };
        let records = [
            Record::Build { fingerprint: u64::MAX, shards: 2 },
            Record::Routed { rows: 7, members: vec![3, 1 << 40], hashes: vec![] },
            Record::Shard(done),
            Record::Pages { pages: 12 },
        ];
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert!(found.is_empty());
        records.iter().for_each(|record| journal.add(record).unwrap());
        drop(journal);
        let whole = std::fs::read(dir.path().join(JOURNAL)).unwrap();
        for end in 0..=whole.len() {
            std::fs::write(dir.path().join(JOURNAL), &whole[..end]).unwrap();
            let (mut journal, found) = Journal::open(dir.path()).unwrap();
            let lines = whole[..end].iter().filter(|&&b| b == b'\n').count();
            assert_eq!(found, records[..lines]);
            records[lines..].iter().for_each(|record| journal.add(record).unwrap());
            assert_eq!(std::fs::read(dir.path().join(JOURNAL)).unwrap(), whole);
        }
        // A line from another journal is none of this one's.
        let mut foreign = whole.clone();
        foreign[8] ^= 1;
        std::fs::write(dir.path().join(JOURNAL), &foreign).unwrap();
        assert!(Journal::open(dir.path()).unwrap().1.is_empty());
    }
}
