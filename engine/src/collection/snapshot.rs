//! Copies of a collection that is being written: all of it as of one moment, each file under a checksum, restored only when every byte is as it was.
//!
//! A snapshot is a directory that holds what a collection's holds, and `SNAPSHOT`, written last:
//! ```text
//! roxanne-snapshot 1
//! sequence 1234                          the last batch in it
//! file store/000012.sst 4711 6f0c...     name, bytes, xxh3-64
//! checksum 8a11...                       of all lines above
//! ```

use super::{
    Collection, CollectionError,
    appear::{appear, sync_directory},
    io, locked,
};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read, Write as _},
    path::Path,
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const LIST: &str = "SNAPSHOT";
const HEAD: &str = "roxanne-snapshot 1";
/// Bytes that are read at a time.
const PART: usize = 1 << 20;

/// What is in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The last batch in it.
    pub sequence: u64,
    /// Bytes of all files.
    pub bytes: u64,
    files: Vec<(String, u64, u64)>,
}

fn damaged(path: &Path, detail: String) -> CollectionError {
    CollectionError::Snapshot { path: path.to_path_buf(), detail }
}

/// The hash of a file and how long it is; what is read goes to `copy`, where there is one.
fn hash_of(path: &Path, mut copy: Option<&mut File>) -> Result<(u64, u64), CollectionError> {
    let mut file = File::open(path).map_err(io(path))?;
    let (mut hash, mut bytes, mut buffer) = (Xxh3::new(), 0, vec![0; PART]);
    loop {
        let read = file.read(&mut buffer).map_err(io(path))?;
        if read == 0 {
            return Ok((bytes, hash.digest()));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
        if let Some(copy) = copy.as_mut() {
            copy.write_all(&buffer[..read]).map_err(io(path))?;
        }
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<(u64, u64), CollectionError> {
    let mut copy = File::create_new(to).map_err(io(to))?;
    let found = hash_of(from, Some(&mut copy))?;
    copy.sync_all().map_err(io(to))?;
    Ok(found)
}

/// The files in `directory` and in the directories in it, by name; the list itself is none of them.
fn files_in(directory: &Path) -> Result<Vec<String>, CollectionError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(io(directory))? {
        let entry = entry.map_err(io(directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().map_err(io(directory))?.is_dir() {
            files.extend(files_in(&entry.path())?.into_iter().map(|file| format!("{name}/{file}")));
        } else if name != LIST {
            files.push(name);
        }
    }
    files.sort_unstable();
    Ok(files)
}

impl Collection {
    /// Copies all of the collection, as of some moment of the call, into the new directory `out`. Searches and writes go on; merges wait.
    ///
    /// # Errors
    /// Something that is there already; what the file system says. Nothing is left of it then.
    pub fn snapshot(&self, out: impl AsRef<Path>) -> Result<SnapshotInfo, CollectionError> {
        let (inner, out) = (self.inner(), out.as_ref());
        // The base's files stand still, and no other takes its place.
        let _no_merge = locked(&inner.merging);
        appear(out, |partial| {
            // Writes wait for that long.
            let sequence = {
                let writer = locked(&inner.writer);
                inner.store.checkpoint(partial)?;
                writer.sequence
            };
            super::processes::prepare_to_lock(partial)?;
            let mut files = Vec::new();
            for name in files_in(partial)? {
                let path = partial.join(&name);
                let (bytes, hash) = hash_of(&path, None)?;
                File::open(&path).and_then(|file| file.sync_all()).map_err(io(&path))?;
                files.push((name, bytes, hash));
            }
            if let Some(base) = &inner.snapshot.load_full().base {
                let directory = &base.info().path;
                let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
                fs::create_dir(partial.join(&name)).map_err(io(partial))?;
                for file in files_in(directory)? {
                    let (bytes, hash) = copy_file(&directory.join(&file), &partial.join(&name).join(&file))?;
                    files.push((format!("{name}/{file}"), bytes, hash));
                }
                sync_directory(&partial.join(&name))?;
            }
            let info = SnapshotInfo { sequence, bytes: files.iter().map(|(_, bytes, _)| bytes).sum(), files };
            let list = partial.join(LIST);
            let mut file = File::create_new(&list).map_err(io(&list))?;
            file.write_all(info.to_text().as_bytes()).and_then(|()| file.sync_all()).map_err(io(&list))?;
            // Read again: it is called done when it can be restored.
            SnapshotInfo::check(partial)?;
            Ok(info)
        })
    }

    /// Makes a collection in the new directory `path` of the snapshot at `source`, every byte of which is compared with its checksum.
    ///
    /// # Errors
    /// `Snapshot` where a file is missing, altered or more than there should be; something that is there already; what the file system says. Nothing
    /// is left of it then.
    pub fn restore(source: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<SnapshotInfo, CollectionError> {
        let (source, path) = (source.as_ref(), path.as_ref());
        let info = SnapshotInfo::read(source)?;
        info.check_names(source)?;
        appear(path, |partial| {
            for (name, bytes, hash) in &info.files {
                let target = partial.join(name);
                if let Some(directory) = target.parent() {
                    fs::create_dir_all(directory).map_err(io(directory))?;
                }
                if copy_file(&source.join(name), &target)? != (*bytes, *hash) {
                    return Err(damaged(&source.join(name), "it is not what was written".to_string()));
                }
            }
            for (name, ..) in &info.files {
                partial.join(name).parent().map_or(Ok(()), sync_directory)?;
            }
            Ok(())
        })?;
        Ok(info)
    }
}

impl SnapshotInfo {
    fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\nsequence {}\n", self.sequence);
        // Writing to a String cannot fail.
        for (name, bytes, hash) in &self.files {
            let _ = writeln!(text, "file {name} {bytes} {hash:016x}");
        }
        let sum = xxh3_64(text.as_bytes());
        let _ = writeln!(text, "checksum {sum:016x}");
        text
    }

    /// Reads what the snapshot in `directory` says it holds.
    ///
    /// # Errors
    /// No snapshot, one of a newer version, an altered list.
    pub fn read(directory: impl AsRef<Path>) -> Result<SnapshotInfo, CollectionError> {
        let path = directory.as_ref().join(LIST);
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => damaged(&path, "there is no such file, so this is no snapshot".to_string()),
            _ => damaged(&path, error.to_string()),
        })?;
        let wrong = |what: &str| damaged(&path, what.to_string());
        if text.lines().next() != Some(HEAD) {
            return Err(wrong("this version reads \"roxanne-snapshot 1\""));
        }
        let body = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
        if text[body..] != format!("checksum {:016x}\n", xxh3_64(&text.as_bytes()[..body])) {
            return Err(wrong("its checksum does not match its lines"));
        }
        let mut info = SnapshotInfo { sequence: 0, bytes: 0, files: Vec::new() };
        for line in text[..body].lines().skip(1) {
            let parts: Vec<&str> = line.split(' ').collect();
            match parts[..] {
                ["sequence", number] => info.sequence = number.parse().map_err(|_| wrong("its sequence is none"))?,
                ["file", name, bytes, hash] => {
                    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']);
                    let parsed = bytes.parse::<u64>().ok().zip(u64::from_str_radix(hash, 16).ok());
                    let Some((bytes, hash)) = parsed.filter(|_| name.split('/').count() <= 2 && name.split('/').all(plain)) else {
                        return Err(damaged(&path, format!("a line that makes no sense: {line:?}")));
                    };
                    info.bytes = info.bytes.saturating_add(bytes);
                    info.files.push((name.to_string(), bytes, hash));
                }
                _ => return Err(damaged(&path, format!("a line that makes no sense: {line:?}"))),
            }
        }
        Ok(info)
    }

    /// Reads every byte of the snapshot in `directory` and compares it with its checksum.
    ///
    /// # Errors
    /// The first file that is missing, altered or one too many.
    pub fn check(directory: impl AsRef<Path>) -> Result<SnapshotInfo, CollectionError> {
        let directory = directory.as_ref();
        let info = SnapshotInfo::read(directory)?;
        info.check_names(directory)?;
        for (name, bytes, hash) in &info.files {
            if hash_of(&directory.join(name), None)? != (*bytes, *hash) {
                return Err(damaged(&directory.join(name), "it is not what was written".to_string()));
            }
        }
        Ok(info)
    }

    fn check_names(&self, directory: &Path) -> Result<(), CollectionError> {
        let mut wanted: Vec<&String> = self.files.iter().map(|(name, ..)| name).collect();
        wanted.sort_unstable();
        let there = files_in(directory)?;
        let missing = wanted.iter().find(|name| there.binary_search(name).is_err());
        let unknown = there.iter().find(|name| wanted.binary_search(name).is_err());
        match (missing, unknown) {
            (Some(name), _) => Err(damaged(&directory.join(name), "it is missing".to_string())),
            (_, Some(name)) => Err(damaged(&directory.join(name), "it is in no list".to_string())),
            _ => Ok(()),
        }
    }
}
