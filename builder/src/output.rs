//! Where a build writes: a temporary directory beside the output, which becomes the output by one rename, or goes away.

use crate::BuildError;
use roxanne_core::format::{FormatError, manifest::Manifest};
use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// What is at the output path.
pub(crate) enum Output {
    /// The same index, complete.
    Complete(Box<Manifest>),
    /// Nothing; a temporary directory was begun.
    Begun(Partial),
}

/// A temporary directory that this build owns. Dropped without a commit, it is removed.
pub(crate) struct Partial {
    out: PathBuf,
    directory: PathBuf,
    /// Held locked until the end.
    lock: Option<File>,
}

const LOCK: &str = "LOCK";

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BuildError + '_ {
    move |error| BuildError::Format(FormatError::Io { path: path.to_path_buf(), error })
}

impl Output {
    /// Looks at `out` and begins unless it is complete with the same `params`.
    pub(crate) fn begin(out: &Path, params: &[(String, String)]) -> Result<Output, BuildError> {
        let exists = |detail: String| BuildError::OutputExists { path: out.to_path_buf(), detail };
        match fs::symlink_metadata(out) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(out)(error)),
            Ok(_) => {
                let manifest = Manifest::read(out).map_err(|e| exists(format!("it exists and is no complete index ({e})")))?;
                let differs = params.iter().find(|(name, value)| manifest.param(name) != Some(value));
                return match differs {
                    None => Ok(Output::Complete(Box::new(manifest))),
                    Some((name, value)) => {
                        let there = manifest.param(name).unwrap_or("unknown");
                        Err(exists(format!("it holds an index with {name} {there}, this build has {value}")))
                    }
                };
            }
        }
        let name = out.file_name().ok_or_else(|| exists("it names no directory".to_string()))?;
        let directory = out.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(&directory)(error)),
        }
        let lock_path = directory.join(LOCK);
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        if lock.try_lock().is_err() {
            return Err(BuildError::Locked { path: directory });
        }
        let partial = Partial { out: out.to_path_buf(), directory, lock: Some(lock) };
        // What a killed build left is of no use.
        for entry in fs::read_dir(&partial.directory).map_err(io(&partial.directory))? {
            let path = entry.map_err(io(&partial.directory))?.path();
            if path != lock_path {
                fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        Ok(Output::Begun(partial))
    }
}

impl Partial {
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory becomes the output.
    pub(crate) fn commit(mut self) -> Result<(), BuildError> {
        let lock_path = self.directory.join(LOCK);
        fs::remove_file(&lock_path).map_err(io(&lock_path))?;
        fs::rename(&self.directory, &self.out).map_err(io(&self.out))?;
        self.lock = None;
        let parent = self.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|d| d.sync_all()).map_err(io(parent))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // Nothing more can be done about an error here; the next build into this path removes the rest.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
