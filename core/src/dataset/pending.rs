//! A file that stands under its name only when it is whole.
//!
//! Bytes go to a hidden neighbor in the same directory; `finish` syncs it, renames it and syncs the directory. Dropped before that, it
//! is removed: an interrupted run leaves what was there before.

use super::DatasetError;
use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct PendingFile {
    path: PathBuf,
    temporary: PathBuf,
    out: BufWriter<File>,
    finished: bool,
}

impl PendingFile {
    /// Begins the file that will be `path`.
    pub(crate) fn create(path: &Path) -> Result<PendingFile, DatasetError> {
        // Two writers of one name, in this process or another, do not meet.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = path.with_file_name(format!(".{name}.{}-{number}.tmp", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(DatasetError::io(path, "create"))?;
        Ok(PendingFile { path: path.to_path_buf(), temporary, out: BufWriter::with_capacity(BUFFER_BYTES, file), finished: false })
    }

    /// The name it will have.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), DatasetError> {
        self.out.write_all(bytes).map_err(DatasetError::io(&self.path, "write"))
    }

    /// Writes `header` over the first bytes, makes the file durable and gives it its name, replacing what stood there.
    pub(crate) fn finish(mut self, header: &[u8]) -> Result<(), DatasetError> {
        self.out.flush().map_err(DatasetError::io(&self.path, "write"))?;
        let file = self.out.get_ref();
        file.write_all_at(header, 0).map_err(DatasetError::io(&self.path, "write the header of"))?;
        file.sync_all().map_err(DatasetError::io(&self.path, "sync"))?;
        fs::rename(&self.temporary, &self.path).map_err(DatasetError::io(&self.path, "rename the finished file to"))?;
        self.finished = true;
        let directory = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|d| d.sync_all()).map_err(DatasetError::io(directory, "sync"))
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.finished {
            // BufWriter may still flush into the nameless file afterwards; nobody will see it. An error here has no one to go to.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
