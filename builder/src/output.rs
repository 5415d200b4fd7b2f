//! Where a build writes: a temporary directory beside the output, which becomes the output by one rename, or goes away. Its lock is held
//! until after the rename, so that no other build ever works in a directory that is being published.

use crate::{BuildError, sharded::JOURNAL};
use roxanne_core::format::{
    FormatError,
    manifest::{self, Manifest},
};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use std::{
    fs::{self, File, TryLockError},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What is at the output path.
pub(crate) enum Output {
    /// The same index, complete.
    Complete(Box<Manifest>),
    /// Nothing; a temporary directory was begun.
    Begun(Partial),
}

/// A temporary directory that this build owns. Dropped without a commit, it is removed, unless it holds a checkpoint.
pub(crate) struct Partial {
    out: PathBuf,
    directory: PathBuf,
    /// Held locked until the end.
    lock: Option<File>,
    /// Removed at the end, whatever is in it.
    is_scratch: bool,
}

/// What to do about the checkpoint of a build that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    /// This build has none: one that is found is another's.
    None,
    /// Go on from it.
    Continue,
    /// Start over.
    Fresh,
    /// There must be one, which nobody else works on ...
    Expected,
    /// ... or others may too.
    Joined,
}

const LOCK: &str = "LOCK";
/// The parameter that names the graph of another system, where it was taken.
pub(crate) const GRAPH: &str = "graph";
/// Parameters that are left out where they are what they always were.
const NAMED_WHERE_UNUSUAL: [&str; 3] = [manifest::STORED, manifest::CAPACITY, GRAPH];
/// The parameter that stands for the content of the input.
pub(crate) const INPUT: &str = "input";

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BuildError + '_ {
    move |error| BuildError::Format(FormatError::Io { path: path.to_path_buf(), error })
}

impl Output {
    /// Looks at `out` and begins unless it is complete with the same `params` and `input`, which is computed only to be compared.
    pub(crate) fn begin(
        out: &Path,
        params: &[(String, String)],
        input: &dyn Fn() -> Result<String, BuildError>,
        checkpoint: Checkpoint,
    ) -> Result<Output, BuildError> {
        loop {
            if let Some(complete) = complete_output(out, params, input)? {
                return Ok(complete);
            }
            let Some(partial) = Partial::lock(out, checkpoint)? else { continue };
            // Another build may have published since the first look; the lock now keeps it from happening again.
            if fs::symlink_metadata(out).is_err() {
                let found = partial.has_checkpoint();
                match checkpoint {
                    Checkpoint::Continue if found => {}
                    Checkpoint::Expected | Checkpoint::Joined if found => {}
                    Checkpoint::Expected | Checkpoint::Joined => return Err(BuildError::NotRouted { path: partial.directory.clone() }),
                    Checkpoint::None if found => return Err(BuildError::OtherCheckpoint { path: partial.directory.clone() }),
                    _ => partial.clear()?,
                }
                return Ok(Output::Begun(partial));
            }
        }
    }
}

/// The index at `out` if it is what would be built; `None` if nothing is there.
fn complete_output(
    out: &Path,
    params: &[(String, String)],
    input: &dyn Fn() -> Result<String, BuildError>,
) -> Result<Option<Output>, BuildError> {
    let exists = |detail: String| BuildError::OutputExists { path: out.to_path_buf(), detail };
    match fs::symlink_metadata(out) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(out)(error)),
        Ok(_) => {}
    }
    let manifest = Manifest::read(out).map_err(|e| exists(format!("it exists and is no complete index ({e})")))?;
    let differs = |name: &str, value: &str| {
        let there = manifest.param(name).unwrap_or("unknown");
        (there != value).then(|| exists(format!("it holds an index with {name} {there}, this build has {value}")))
    };
    let absent = |name: &&str| params.iter().all(|(known, _)| known != name);
    let unasked = NAMED_WHERE_UNUSUAL.into_iter().filter(absent).filter(|name| manifest.param(name).is_some());
    if let Some(error) =
        params.iter().find_map(|(name, value)| differs(name, value)).or_else(|| unasked.clone().find_map(|name| differs(name, "none")))
    {
        return Err(error);
    }
    if let Some(error) = differs(INPUT, &input()?) {
        return Err(error);
    }
    remove_strays(out);
    Ok(Some(Output::Complete(Box::new(manifest))))
}

/// Removes what only an index that is not published yet has a use for.
fn remove_strays(index: &Path) {
    for name in [JOURNAL, LOCK] {
        let _ = fs::remove_file(index.join(name));
    }
}

impl Partial {
    /// Creates or takes over the temporary directory; `None` when it went away meanwhile.
    fn lock(out: &Path, checkpoint: Checkpoint) -> Result<Option<Partial>, BuildError> {
        let Some(name) = out.file_name() else {
            return Err(BuildError::OutputExists { path: out.to_path_buf(), detail: "it names no directory".to_string() });
        };
        let directory = out.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(&directory)(error)),
        }
        let lock_path = directory.join(LOCK);
        let lock = match File::create(&lock_path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io(&lock_path))?,
        };
        let locked = if checkpoint == Checkpoint::Joined { lock.try_lock_shared() } else { lock.try_lock() };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BuildError::Locked { path: directory }),
            Err(TryLockError::Error(error)) => return Err(io(&lock_path)(error)),
        }
        // What was locked may have been renamed or removed just before.
        let file = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let locked = lock.metadata().map(file).map_err(io(&lock_path))?;
        if fs::metadata(&lock_path).map(file).ok() != Some(locked) {
            return Ok(None);
        }
        Ok(Some(Partial { out: out.to_path_buf(), directory, lock: Some(lock), is_scratch: false }))
    }

    /// A directory among the system's temporary ones, for what a rehearsal in shards must keep until its end.
    pub(crate) fn scratch() -> Result<Partial, BuildError> {
        let out = std::env::temp_dir().join(format!("roxanne-rehearsal-{}", std::process::id()));
        let mut partial = Partial::lock(&out, Checkpoint::Fresh)?.ok_or(BuildError::Locked { path: out })?;
        partial.is_scratch = true;
        partial.clear()?;
        Ok(partial)
    }

    /// Removes what a killed build left, which is of no use.
    fn clear(&self) -> Result<(), BuildError> {
        for entry in fs::read_dir(&self.directory).map_err(io(&self.directory))? {
            let path = entry.map_err(io(&self.directory))?.path();
            if path != self.directory.join(LOCK) {
                fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        Ok(())
    }

    /// The index that a killed build had completed and not yet published.
    pub(crate) fn completed(&self) -> Option<Manifest> {
        Manifest::read(&self.directory).ok()
    }

    /// Whether a build can go on from what is here.
    pub(crate) fn has_checkpoint(&self) -> bool {
        self.directory.join(JOURNAL).exists()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Nothing of it stays, a checkpoint neither.
    pub(crate) fn discard(mut self) {
        self.is_scratch = true;
    }

    /// The directory becomes the output, unless something came to be there meanwhile.
    pub(crate) fn commit(mut self) -> Result<(), BuildError> {
        match renameat_with(CWD, &self.directory, CWD, &self.out, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let detail = "something was put there during the build".to_string();
                return Err(BuildError::OutputExists { path: self.out.clone(), detail });
            }
            // File systems without the flag: a plain rename replaces nothing but an empty directory.
            Err(Errno::INVAL) => fs::rename(&self.directory, &self.out).map_err(io(&self.out))?,
            Err(error) => return Err(io(&self.out)(error.into())),
        }
        // The index is there now. Files that stay because the process dies here are no harm, and go when the same build is asked for again.
        remove_strays(&self.out);
        self.lock = None;
        let parent = self.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|d| d.sync_all()).map_err(io(parent))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // A checkpoint stays.
        if self.lock.is_some() && (self.is_scratch || !self.has_checkpoint()) {
            // The lock goes last, and the directory only when nobody else has begun in it. About an error nothing can be done here; the
            // next build into this path removes the rest.
            let _ = self.clear();
            let _ = fs::remove_file(self.directory.join(LOCK));
            let _ = fs::remove_dir(&self.directory);
        }
    }
}
