//! Processes beside each other: one at a time writes, and any number reads. Those that read follow the one that writes, and tell it what they may still
//! look at: no slot of the base is emptied or used again before. Where they cannot tell, the merger stands still as long as they read.
//!
//! | file | |
//! |---|---|
//! | `LOCK` | locked by who writes, whose number is in it |
//! | `READERS` | locked, shared, by who is opening the collection or reads and cannot follow; by the merger, alone, while it writes |
//! | `FILES` | locked, shared, by who opens files of the store that another writes; by the writer, alone, while it removes such |
//! | `readers/*/seen` | one for each that follows, locked by it: three u64, the base's generation, the last merge and the last batch before which it looks at nothing any more |
//! | `readers/*/store` | RocksDB's log of that process |

use super::{CollectionError, appear::is_gone, io, locked};
use std::{
    collections::hash_map::RandomState,
    fs::{self, File, TryLockError},
    hash::{BuildHasher, Hasher},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

const LOCK: &str = "LOCK";
const READERS: &str = "READERS";
const FILES: &str = "FILES";
const FOLLOWERS: &str = "readers";
const SEEN: &str = "seen";
/// Between two looks at what others do.
const LOOK: Duration = Duration::from_millis(5);

/// Takes the right to write; the file holds the process's number.
pub(super) fn lock(directory: &Path) -> Result<File, CollectionError> {
    let path = directory.join(LOCK);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "(unknown)".to_string() } else { pid.trim().to_string() };
            return Err(CollectionError::Locked { path: directory.to_path_buf(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(io(&path)(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io(&path))?;
    Ok(file)
}

/// Holds off who would remove files of the store, while the file is kept.
pub(super) fn look_at_files(directory: &Path) -> Result<Option<File>, CollectionError> {
    let path = directory.join(FILES);
    match File::open(&path) {
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(io(&path)(error)),
        Ok(file) => file.lock_shared().map(|()| Some(file)).map_err(io(&path)),
    }
}

/// Holds off who looks at the files of the store, while the file is kept; `None` when somebody does after so long.
pub(super) fn change_files(directory: &Path, patience: Duration) -> Result<Option<File>, CollectionError> {
    lock_within(&directory.join(FILES), patience)
}

/// The lock of a file, which is made where it is not there, alone; `None` where others have it after so long.
fn lock_within(path: &Path, patience: Duration) -> Result<Option<File>, CollectionError> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io(path))?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if begin.elapsed() < patience => thread::sleep(LOOK),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(io(path)(error)),
        }
    }
}

/// Makes the file that readers and the merger lock.
pub(super) fn prepare_to_lock(directory: &Path) -> Result<(), CollectionError> {
    let path = directory.join(READERS);
    File::options().write(true).create(true).truncate(false).open(&path).map(drop).map_err(io(&path))
}

/// Makes what readers and the merger meet in.
pub(super) fn prepare(directory: &Path) -> Result<(), CollectionError> {
    prepare_to_lock(directory)?;
    let path = directory.join(FOLLOWERS);
    fs::create_dir_all(&path).map_err(io(&path))
}

/// Holds mergers off while the file is kept, once the one that is at work has ended its round.
pub(super) fn enter(directory: &Path) -> Result<Option<File>, CollectionError> {
    let path = directory.join(READERS);
    match File::open(&path) {
        // Made by an earlier version, or copied in part: nobody merges there either.
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(io(&path)(error)),
        Ok(file) => file.lock_shared().map(|()| Some(file)).map_err(io(&path)),
    }
}

/// Holds readers off while the file is kept; waits so long for those that are there.
pub(super) fn keep_out(directory: &Path, patience: Duration) -> Result<File, CollectionError> {
    let locked = lock_within(&directory.join(READERS), patience)?;
    locked.ok_or_else(|| CollectionError::BeingRead { path: directory.to_path_buf() })
}

/// What a process looks at nothing before of any more: a state of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Of the base.
    pub(super) generation: u64,
    /// The last merge into it.
    pub(super) merged: u64,
    /// The last batch.
    pub(super) sequence: u64,
}

impl Seen {
    fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let words = [self.generation, self.merged, self.sequence];
        bytes.as_chunks_mut().0.iter_mut().zip(words).for_each(|(place, word): (&mut [u8; 8], u64)| *place = word.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; 24]) -> Seen {
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        Seen { generation: word(0), merged: word(8), sequence: word(16) }
    }
}

/// A process's place among those that follow; it goes with it.
pub(super) struct Follower {
    path: PathBuf,
    seen: File,
    /// What it said last.
    said: Mutex<Seen>,
}

impl Follower {
    /// Takes a place; until it says otherwise, it may look at anything. `None` where no file can be made in the collection's directory.
    pub(super) fn enter(directory: &Path) -> Option<Follower> {
        // Processes that know each other by no common numbers may share the directory.
        let path = directory.join(FOLLOWERS).join(format!("{}-{:016x}", std::process::id(), RandomState::new().build_hasher().finish()));
        fs::create_dir(&path).ok()?;
        let made = File::options().read(true).write(true).create_new(true).open(path.join(SEEN)).and_then(|seen| {
            // Locked before it is whole: one that is whole and not locked is left over.
            seen.lock()?;
            seen.write_all_at(&Seen::default().to_bytes(), 0)?;
            Ok(seen)
        });
        match made {
            Ok(seen) => Some(Follower { path, seen, said: Mutex::default() }),
            Err(_) => {
                let _ = fs::remove_dir_all(&path);
                None
            }
        }
    }

    /// Where RocksDB keeps its log.
    pub(super) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Says what it looks at nothing before of any more; the default says that it may look at anything.
    pub(super) fn say(&self, seen: Seen) -> Result<(), CollectionError> {
        let mut said = locked(&self.said);
        if *said != seen {
            self.seen.write_all_at(&seen.to_bytes(), 0).map_err(io(&self.path))?;
            *said = seen;
        }
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Waits until no process looks at anything of this base from before `state`; false when some may after so long.
pub(super) fn wait_for_readers(directory: &Path, state: Seen, patience: Duration) -> Result<bool, CollectionError> {
    let begin = Instant::now();
    loop {
        let mut all = true;
        for seen in readers(directory)? {
            let is_behind = seen.merged < state.merged || seen.sequence < state.sequence;
            // Of another base alone it looks at other files; of both it says nothing.
            all &= !((seen.generation == state.generation || seen == Seen::default()) && is_behind);
        }
        if all || begin.elapsed() >= patience {
            return Ok(all);
        }
        thread::sleep(LOOK);
    }
}

/// What those say that follow; what is left of others is removed.
fn readers(directory: &Path) -> Result<Vec<Seen>, CollectionError> {
    let path = directory.join(FOLLOWERS);
    let mut all = Vec::new();
    let entries = match fs::read_dir(&path) {
        Err(error) if is_gone(&error) => return Ok(all),
        entries => entries.map_err(io(&path))?,
    };
    for entry in entries {
        let place = entry.map_err(io(&path))?.path();
        let file = match File::options().read(true).write(true).open(place.join(SEEN)) {
            // It comes, or goes, this moment.
            Err(error) if is_gone(&error) => continue,
            file => file.map_err(io(&place))?,
        };
        let mut bytes = [0; 24];
        if file.read_exact_at(&mut bytes, 0).is_err() {
            continue;
        }
        match file.try_lock() {
            Ok(()) => drop(fs::remove_dir_all(&place)),
            Err(TryLockError::WouldBlock) => all.push(Seen::from_bytes(&bytes)),
            Err(TryLockError::Error(error)) => return Err(io(&place)(error)),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_merger_knows_what_others_may_look_at_and_clears_away_what_they_left() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        let state = Seen { generation: 7, merged: 3, sequence: 50 };
        let nobody_is_behind = || wait_for_readers(dir.path(), state, Duration::ZERO).unwrap();
        assert!(nobody_is_behind());
        let follower = Follower::enter(dir.path()).unwrap();
        assert!(!nobody_is_behind(), "one that has said nothing yet");
        for (seen, behind) in [
            (Seen { merged: 2, ..state }, true),
            (Seen { sequence: 49, ..state }, true),
            (Seen { generation: 6, merged: 0, sequence: 1 }, false),
            (state, false),
            (Seen { merged: 4, sequence: 60, ..state }, false),
        ] {
            follower.say(seen).unwrap();
            assert_eq!(nobody_is_behind(), !behind, "{seen:?}");
        }
        follower.say(Seen { merged: 0, ..state }).unwrap();
        // As a process ends that is killed.
        let path = follower.path.clone();
        follower.seen.unlock().unwrap();
        std::mem::forget(follower);
        assert!(nobody_is_behind() && !path.exists());
        let another = Follower::enter(dir.path()).unwrap();
        assert!(!nobody_is_behind());
        drop(another);
        assert!(nobody_is_behind() && fs::read_dir(dir.path().join(FOLLOWERS)).unwrap().count() == 0);
    }
}
