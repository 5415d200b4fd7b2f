//! Processes beside each other: one at a time writes; and while any only reads, the merger, which would change pages under them, does not.

use super::{CollectionError, io};
use std::{
    fs::{File, TryLockError},
    io::{Read, Write},
    path::Path,
};

const LOCK: &str = "LOCK";
const READERS: &str = "READERS";

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

/// Makes the file that readers and the merger lock.
pub(super) fn prepare(directory: &Path) -> Result<(), CollectionError> {
    let path = directory.join(READERS);
    File::options().write(true).create(true).truncate(false).open(&path).map(drop).map_err(io(&path))
}

/// Holds mergers off while the file is kept, once the one that is at work has ended its round.
pub(super) fn enter(directory: &Path) -> Result<Option<File>, CollectionError> {
    let path = directory.join(READERS);
    match File::open(&path) {
        // Made by an earlier version, or copied in part: nobody merges there either.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(&path)(error)),
        Ok(file) => file.lock_shared().map(|()| Some(file)).map_err(io(&path)),
    }
}

/// Holds readers off while the file is kept.
pub(super) fn keep_out(directory: &Path) -> Result<File, CollectionError> {
    let path = directory.join(READERS);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CollectionError::BeingRead { path: directory.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(io(&path)(error)),
    }
}
