//! Changing files: the seam through which everything is written that is not RocksDB's, so that tests can lose power, and fail, at every step of it.

use rustix::fs::{Advice, fadvise};
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

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

/// The file system. Files stay open from one call to the next.
#[derive(Default)]
pub struct FileDisk {
    files: Mutex<HashMap<PathBuf, Arc<File>>>,
}

impl FileDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(path) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::options().read(true).write(true).open(path)?);
        files.insert(path.to_path_buf(), Arc::clone(&file));
        Ok(file)
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
        self.open(path)?.write_all_at(bytes, offset)
    }

    fn grow(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = self.open(path)?;
        if file.metadata()?.len() < bytes { file.set_len(bytes) } else { Ok(()) }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let file = self.open(path)?;
        file.sync_data()?;
        // Who reads it reads past the kernel's cache.
        let _ = fadvise(&*file, 0, None, Advice::DontNeed);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.forget(from);
        self.forget(to);
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.forget(path);
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
