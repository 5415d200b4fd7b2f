//! A file read from its begin to its end, whose every length is held against what is left of it.

use super::{ForeignError, Links, Reading};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
};

/// Bytes that are read ahead.
const BUFFER_BYTES: usize = 1 << 20;

/// See the module. Numbers are little-endian.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    at: u64,
    len: u64,
    how: Reading,
}

impl Reader {
    pub(super) fn open(path: &Path, how: &Reading) -> Result<Reader, ForeignError> {
        let io = |error| ForeignError::Io { path: path.to_path_buf(), error };
        // Asked before opening: to open a pipe is to wait for its other end.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(ForeignError::Unsupported { path: path.to_path_buf(), detail: "not a regular file".to_string() });
        }
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        Ok(Reader { path: path.to_path_buf(), file: BufReader::with_capacity(BUFFER_BYTES, file), at: 0, len, how: how.clone() })
    }

    /// Another file, read in the same way.
    pub(super) fn beside(&self, path: &Path) -> Result<Reader, ForeignError> {
        Reader::open(path, &self.how)
    }

    /// Goes on, where `links` and as many keys fit the memory that is allowed, and nobody asked for a stop.
    pub(super) fn go_on(&self, links: &Links) -> Result<(), ForeignError> {
        if links.bytes() + 8 * links.n() as u64 > self.how.ram {
            return Err(ForeignError::Budget { path: self.path.clone(), allowed: self.how.ram });
        }
        if self.how.stop.load(Relaxed) { Err(ForeignError::Stopped { path: self.path.clone() }) } else { Ok(()) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The byte that comes next.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> u64 {
        self.len - self.at
    }

    /// An error about what was read last.
    pub(super) fn wrong(&self, detail: String) -> ForeignError {
        ForeignError::Wrong { path: self.path.clone(), at: self.at, detail }
    }

    /// A kind of index that is not read.
    pub(super) fn unsupported(&self, detail: String) -> ForeignError {
        ForeignError::Unsupported { path: self.path.clone(), detail }
    }

    /// `count` things of `bytes` each, where so much is left.
    pub(super) fn room(&self, count: u64, bytes: u64, what: &str) -> Result<u64, ForeignError> {
        match count.checked_mul(bytes) {
            Some(all) if all <= self.left() => Ok(all),
            _ => Err(self
                .wrong(format!("{count} {what} of {bytes} bytes are said to follow, {} bytes do; was the copy interrupted?", self.left()))),
        }
    }

    pub(super) fn fill(&mut self, out: &mut [u8]) -> Result<(), ForeignError> {
        self.room(1, out.len() as u64, "part")?;
        self.file.read_exact(out).map_err(|error| ForeignError::Io { path: self.path.clone(), error })?;
        self.at += out.len() as u64;
        Ok(())
    }

    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), ForeignError> {
        self.room(1, bytes, "part")?;
        let io = |error| ForeignError::Io { path: self.path.clone(), error };
        // Within what was read ahead this moves a pointer.
        i64::try_from(bytes)
            .map_err(|_| self.wrong(format!("{bytes} bytes to leave out")))
            .and_then(|by| self.file.seek_relative(by).map_err(io))?;
        self.at += bytes;
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ForeignError> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ForeignError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ForeignError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ForeignError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Whether all has been read.
    pub(super) fn is_at_end(&mut self) -> Result<bool, ForeignError> {
        let path = &self.path;
        self.file.fill_buf().map(<[u8]>::is_empty).map_err(|error| ForeignError::Io { path: path.clone(), error })
    }
}
