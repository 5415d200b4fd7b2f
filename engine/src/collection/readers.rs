//! Processes that only read, and the merger, which changes pages under them: never both at once.

use super::{CollectionError, io};
use std::{
    fs::{File, TryLockError},
    path::Path,
};

const READERS: &str = "READERS";

/// Makes the file that is locked.
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
