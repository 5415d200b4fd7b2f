//! Changing files: the seam through which everything is written that is not RocksDB's, so that tests can lose power, and fail, at every step of it.

use crate::io::AlignedBuf;
use rustix::{
    fs::{FallocateFlags, OFlags, fallocate},
    io::Errno,
};
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

const SECTOR_BYTES: u64 = 4096;

/// What can be done to files. What was written is on the device after [`Disk::sync`] of its file, a name after [`Disk::sync_directory`] of its
/// directory; before that a loss of power may leave any part of it.
pub trait Disk: Send + Sync {
    /// Makes an empty file, in the place of one that is there.
    ///
    /// # Errors
    /// The operating system's, here and below.
    fn create(&self, path: &Path) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As above.
    fn write(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file at least `bytes` long, with zeros.
    ///
    /// # Errors
    /// As above.
    fn grow(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Brings what was written of the file, and its length, to the device.
    ///
    /// # Errors
    /// As above; what the device has is unknown then, and asking again does not tell.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Gives the file another name, in the place of one that is there.
    ///
    /// # Errors
    /// As above.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// As above.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Brings the names in a directory to the device.
    ///
    /// # Errors
    /// As above.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// RocksDB has synced a batch of the merger: nothing to do but for those who watch.
    fn committed(&self) {}
}

/// The file system. Files stay open from one call to the next, and whole sectors go past the kernel's cache, as those who read them do.
#[derive(Default)]
pub struct FileDisk {
    files: Mutex<HashMap<PathBuf, Arc<Opened>>>,
}

struct Opened {
    file: File,
    /// For whole sectors, where the file system has that.
    direct: Option<File>,
}

impl FileDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<Opened>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(path) {
            return Ok(Arc::clone(file));
        }
        let file = File::options().read(true).write(true).open(path)?;
        let direct = File::options().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path).ok();
        let opened = Arc::new(Opened { file, direct });
        files.insert(path.to_path_buf(), Arc::clone(&opened));
        Ok(opened)
    }

    fn forget(&self, path: &Path) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }
}

impl Disk for FileDisk {
    fn create(&self, path: &Path) -> io::Result<()> {
        self.forget(path);
        File::create(path).map(drop)
    }

    fn write(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Opened { file, direct } = &*self.open(path)?;
        let sectors = !bytes.is_empty() && (offset | bytes.len() as u64).is_multiple_of(SECTOR_BYTES);
        if let Some(direct) = direct.as_ref().filter(|_| sectors) {
            let mut aligned = AlignedBuf::new(bytes.len())?;
            aligned.copy_from_slice(bytes);
            // Some file systems accept the flag and refuse the write.
            match direct.write_all_at(&aligned, offset) {
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
                outcome => return outcome,
            }
        }
        file.write_all_at(bytes, offset)
    }

    fn grow(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = &self.open(path)?.file;
        if file.metadata()?.len() >= bytes {
            return Ok(());
        }
        // With the room on the device, so that a full one is met here.
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::INVAL) => file.set_len(bytes),
            outcome => Ok(outcome?),
        }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.open(path)?.file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.forget(from);
        self.forget(to);
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // A round begins and ends with it: what is beside it may be another's by the next one.
        self.files.lock().unwrap_or_else(PoisonError::into_inner).retain(|open, _| open.parent() != path.parent());
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
