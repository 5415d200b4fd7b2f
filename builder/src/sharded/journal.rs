//! What of a sharded build is done. A text file that only grows tells of passes that one process makes: each line is written after the data
//! it speaks of is on disk. A shard, which any process may build, has a file of one line, put in place by a rename.
//!
//! A line of the journal ends with the checksum of itself and of all lines before it, so a torn or foreign tail is cut off and the work it
//! stood for done again; units are deterministic and their outputs lie at places that lines tell, so doing one again writes the same bytes.

use super::{io, sync_directory};
use crate::BuildError;
use roxanne_core::format::FormatError;
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Its name in a build's directory.
pub(crate) const JOURNAL: &str = "JOURNAL";

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The build that this directory belongs to: a fingerprint of everything that shapes it, of a sample of its input, and its shards.
    Build { fingerprint: u64, input: u64, shards: usize },
    /// Rows up to some place are with their shards.
    Routed(Routed),
    /// So many pages of graph.rx are on disk.
    Pages { pages: u64 },
}

/// Where routing is. Lists have an entry a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routed {
    /// Rows that are with their shards.
    pub(super) rows: u64,
    /// Vectors that are core, and all members.
    pub(super) cores: Vec<u64>,
    pub(super) members: Vec<u64>,
    /// Bytes of the files of members, and of the vectors that are kept beside their codes.
    pub(super) member_ends: Vec<u64>,
    pub(super) vector_ends: Vec<u64>,
    /// Of the chunks of input that were read: in a record those since the record before, in a journal all.
    pub(super) hashes: Vec<u64>,
}

impl Routed {
    /// Of `shards` shards that have nothing yet.
    pub(super) fn none(shards: usize) -> Routed {
        let zeros = || vec![0; shards];
        Routed { cores: zeros(), members: zeros(), member_ends: zeros(), vector_ends: zeros(), ..Routed::default() }
    }

    /// The first id of each shard, and the end: [shards + 1].
    pub(super) fn first_ids(&self) -> Vec<u64> {
        let mut first = vec![0];
        self.cores.iter().for_each(|core| first.push(first[first.len() - 1] + core));
        first
    }

    /// After all records.
    pub(super) fn of(records: &[Record], shards: usize) -> Routed {
        let mut all = Routed::none(shards);
        for record in records {
            if let Record::Routed(routed) = record {
                let hashes = [all.hashes, routed.hashes.clone()].concat();
                all = Routed { hashes, ..routed.clone() };
            }
        }
        all
    }
}

fn list(values: &[u64]) -> String {
    values.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

fn parse_list(word: &str) -> Option<Vec<u64>> {
    word.split(',').filter(|v| !v.is_empty()).map(|v| v.parse().ok()).collect()
}

impl Record {
    fn text(&self) -> String {
        match self {
            Record::Build { fingerprint, input, shards } => format!("build {fingerprint} {input} {shards}"),
            Record::Routed(r) => {
                let lists = [&r.cores, &r.members, &r.member_ends, &r.vector_ends, &r.hashes].map(|values| list(values));
                format!("routed {} {}", r.rows, lists.join(" "))
            }
            Record::Pages { pages } => format!("pages {pages}"),
        }
    }

    fn parse(text: &str) -> Option<Record> {
        match text.split(' ').collect::<Vec<_>>().as_slice() {
            ["build", fingerprint, input, shards] => {
                Some(Record::Build { fingerprint: fingerprint.parse().ok()?, input: input.parse().ok()?, shards: shards.parse().ok()? })
            }
            ["routed", rows, cores, members, member_ends, vector_ends, hashes] => Some(Record::Routed(Routed {
                rows: rows.parse().ok()?,
                cores: parse_list(cores)?,
                members: parse_list(members)?,
                member_ends: parse_list(member_ends)?,
                vector_ends: parse_list(vector_ends)?,
                hashes: parse_list(hashes)?,
            })),
            ["pages", pages] => Some(Record::Pages { pages: pages.parse().ok()? }),
            _ => None,
        }
    }
}

/// The file, open for more.
pub(super) struct Journal {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    /// Over all lines so far.
    hash: Xxh3,
}

/// The sound records of a journal's text, the hash after them, and their bytes.
fn parse(text: &str) -> (Vec<Record>, Xxh3, u64) {
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
    (records, hash, sound)
}

impl Journal {
    /// Opens or creates the journal of `directory`; gives what it says.
    pub(super) fn open(directory: &Path) -> Result<(Journal, Vec<Record>), BuildError> {
        let path = directory.join(JOURNAL);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io(&path))?;
        let (records, hash, sound) = parse(&String::from_utf8_lossy(&fs::read(&path).map_err(io(&path))?));
        file.set_len(sound).map_err(io(&path))?;
        file.seek(SeekFrom::End(0)).map_err(io(&path))?;
        Ok((Journal { directory: directory.to_path_buf(), path, file, hash }, records))
    }

    /// What the journal of `directory` says, which others may be reading too.
    pub(super) fn read(directory: &Path) -> Result<Vec<Record>, BuildError> {
        let path = directory.join(JOURNAL);
        Ok(parse(&String::from_utf8_lossy(&fs::read(&path).map_err(io(&path))?)).0)
    }

    /// Adds a line; it is on disk when this returns.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), BuildError> {
        // The files that the line speaks of, by their names.
        sync_directory(&self.directory)?;
        crash_point();
        let body = record.text();
        self.hash.update(body.as_bytes());
        let line = format!("{body} {:016x}\n", self.hash.digest());
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| FormatError::Io { path: self.path.clone(), error })?;
        crash_point();
        Ok(())
    }
}

/// A file that a shard left: its name ends with the hash of what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) bytes: u64,
    pub(super) hash: u64,
}

/// What is known of a finished shard.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Nodes, order, codes, inbox.
    pub(super) files: [Left; 4],
    /// Where in its inbox file the edges for each shard end.
    pub(super) inbox_ends: Vec<u64>,
}

impl ShardDone {
    fn path(directory: &Path, shard: usize) -> PathBuf {
        directory.join(format!("done.{shard}"))
    }

    fn text(&self) -> String {
        let files: String = self.files.iter().map(|file| format!(" {} {}", file.bytes, file.hash)).collect();
        let ends: String = self.inbox_ends.iter().map(|end| format!(" {end}")).collect();
        format!("shard {} {} {} {} {} {}{files}{ends}", self.shard, self.core, self.ghosts, self.entry, self.host, self.fixed)
    }

    fn parse(text: &str) -> Option<ShardDone> {
        let numbers = text.strip_prefix("shard ")?.split(' ').map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let (&[shard, core, ghosts, entry, host, fixed], rest) = numbers.split_first_chunk()?;
        let (files, inbox_ends) = rest.split_first_chunk::<8>()?;
        let files = [0, 1, 2, 3].map(|at| Left { bytes: files[2 * at], hash: files[2 * at + 1] });
        let [entry, host] = [entry, host].map(|row| u32::try_from(row).ok());
        let (shard, inbox_ends) = (shard as usize, inbox_ends.to_vec());
        Some(ShardDone { shard, core, ghosts, entry: entry?, host: host?, fixed, files, inbox_ends })
    }

    /// The shard is done from now on; its files are on disk.
    pub(super) fn write(&self, directory: &Path, fingerprint: u64, own_name: &str) -> Result<(), BuildError> {
        let (path, temporary) = (ShardDone::path(directory, self.shard), directory.join(format!("done.{}.{own_name}", self.shard)));
        let body = self.text();
        let line = format!("{body} {:016x}\n", xxh3_64_with_seed(body.as_bytes(), fingerprint));
        sync_directory(directory)?;
        crash_point();
        let written = File::create(&temporary).and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_data()));
        written.and_then(|()| fs::rename(&temporary, &path)).map_err(io(&path))?;
        sync_directory(directory)?;
        crash_point();
        Ok(())
    }

    /// What is known of `shard`; `None` before it is done.
    pub(super) fn read(directory: &Path, fingerprint: u64, shard: usize) -> Result<Option<ShardDone>, BuildError> {
        let path = ShardDone::path(directory, shard);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => String::from_utf8_lossy(&read.map_err(io(&path))?).into_owned(),
        };
        let line = text.strip_suffix('\n').and_then(|line| line.rsplit_once(' '));
        let sound = line.filter(|(body, sum)| *sum == format!("{:016x}", xxh3_64_with_seed(body.as_bytes(), fingerprint)));
        match sound.and_then(|(body, _)| ShardDone::parse(body)).filter(|done| done.shard == shard) {
            Some(done) => Ok(Some(done)),
            None => Err(BuildError::ShardDamaged { path, detail: "damaged, or of another build".into() }),
        }
    }
}

/// In tests of resuming the process is killed here, when this is the point that `ROXANNE_DIE_AT` counts to.
#[cfg(feature = "crash-points")]
pub(crate) fn crash_point() {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let passed = PASSED.fetch_add(1, Relaxed) + 1;
    if std::env::var("ROXANNE_DIE_AT").is_ok_and(|point| point == passed.to_string()) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(feature = "crash-points"))]
pub(crate) fn crash_point() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_gives_back_what_it_was_told_and_cuts_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let some = || vec![3, 1 << 40];
        let routed = Routed { rows: 7, cores: some(), members: some(), member_ends: some(), vector_ends: vec![], hashes: vec![9] };
        let records = [Record::Build { fingerprint: u64::MAX, input: 4, shards: 2 }, Record::Routed(routed), Record::Pages { pages: 12 }];
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert!(found.is_empty());
        records.iter().for_each(|record| journal.add(record).unwrap());
        drop(journal);
        let whole = fs::read(dir.path().join(JOURNAL)).unwrap();
        for end in 0..=whole.len() {
            fs::write(dir.path().join(JOURNAL), &whole[..end]).unwrap();
            let lines = whole[..end].iter().filter(|&&b| b == b'\n').count();
            assert_eq!(Journal::read(dir.path()).unwrap(), records[..lines]);
            let (mut journal, found) = Journal::open(dir.path()).unwrap();
            assert_eq!(found, records[..lines]);
            records[lines..].iter().for_each(|record| journal.add(record).unwrap());
            assert_eq!(fs::read(dir.path().join(JOURNAL)).unwrap(), whole);
        }
        // A line from another journal is none of this one's.
        let mut foreign = whole.clone();
        foreign[8] ^= 1;
        fs::write(dir.path().join(JOURNAL), &foreign).unwrap();
        assert!(Journal::open(dir.path()).unwrap().1.is_empty());
    }

    #[test]
    fn a_shard_is_done_for_its_own_build_and_a_damaged_word_of_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = [1, 2, 3, 4].map(|at| Left { bytes: at << 40, hash: u64::MAX - at });
        let done = ShardDone { shard: 1, core: 5, ghosts: 2, entry: 9, host: u32::MAX, fixed: 0, files, inbox_ends: vec![7, 9] };
        assert_eq!(ShardDone::read(dir.path(), 8, 1).unwrap(), None);
        done.write(dir.path(), 8, "mine").unwrap();
        assert_eq!(ShardDone::read(dir.path(), 8, 1).unwrap(), Some(done));
        assert!(ShardDone::read(dir.path(), 9, 1).is_err());
        let path = dir.path().join("done.1");
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(ShardDone::read(dir.path(), 8, 1).is_err(), "{end} bytes");
        }
    }
}
