//! Directories that appear whole or not at all: made beside their place, synced, renamed.

use super::{CollectionError, io};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Brings the names in a directory to the device.
pub(super) fn sync_directory(path: &Path) -> Result<(), CollectionError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io(path))
}

/// Fills a new directory by `fill` and gives it its name, `path`, durably. Where that fails nothing is left.
///
/// # Errors
/// Something that is there already; what the file system, or `fill`, says.
pub(super) fn appear<T>(path: &Path, fill: impl FnOnce(&Path) -> Result<T, CollectionError>) -> Result<T, CollectionError> {
    let Some(name) = path.file_name().filter(|_| fs::symlink_metadata(path).is_err()) else {
        return Err(CollectionError::Exists { path: path.to_path_buf() });
    };
    // No build's checkpoint has this name.
    let partial: PathBuf = path.with_file_name(format!(".{}.creating", name.to_string_lossy()));
    match fs::remove_dir_all(&partial) {
        Err(error) if !is_gone(&error) => return Err(io(&partial)(error)),
        _ => fs::create_dir(&partial).map_err(io(&partial))?,
    }
    let filled = fill(&partial).and_then(|filled| {
        sync_directory(&partial)?;
        fs::rename(&partial, path).map_err(io(path))?;
        sync_directory(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        Ok(filled)
    });
    filled.inspect_err(|_| drop(fs::remove_dir_all(&partial)))
}

/// Whether what was asked for is not there.
pub(super) fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}
