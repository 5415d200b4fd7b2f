//! A file of pages of one size, opened past the page cache where the filesystem can.
//!
//! The engine caches what is worth caching itself, by frequency; the kernel's cache would hold everything twice and hide the device
//! from the load control. Where there is no direct reading (some tmpfs, overlay and network filesystems) the file is read through
//! the cache, and [`PageFile::direct`] tells.

use super::{
    AlignedBuf, ReadError,
    attempt::{Attempt, Next, SECTOR_BYTES},
};
use rustix::{
    fs::{Advice, OFlags, fadvise},
    io::Errno,
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Why a file of pages could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenPagesError {
    /// The operating system refused.
    #[error("{path}: cannot {step}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// Pages of a size that is not read.
    #[error("{path}: pages of {page_bytes} bytes; they must be 4096 to 65536 and a multiple of 4096")]
    PageBytes {
        /// The file.
        path: PathBuf,
        /// The size asked for.
        page_bytes: usize,
    },
    /// Pages that do not lie on sectors.
    #[error("{path}: the first page at offset {offset}; it must be a multiple of 4096")]
    FirstPageOffset {
        /// The file.
        path: PathBuf,
        /// The offset asked for.
        offset: u64,
    },
    /// Less than the pages that should be there.
    #[error("{path}: {found} bytes, but its {page_count} pages need {needed}; it was cut or copied in part, restore it from a copy")]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Pages that should be there.
        page_count: u64,
        /// Bytes needed, header included.
        needed: u128,
        /// Bytes of the file.
        found: u64,
    },
}

/// An open file of pages, shared by the readers of all threads.
#[derive(Debug)]
pub struct PageFile {
    file: File,
    path: Arc<Path>,
    page_bytes: usize,
    first_page_offset: u64,
    /// Rises where the file is changed in place.
    page_count: AtomicU64,
    direct: bool,
}

impl PageFile {
    /// Opens `path` for reading: `page_count` pages of `page_bytes` (4096 to 65536, a multiple of 4096) that begin at
    /// `first_page_offset` (a multiple of 4096). What follows them is ignored.
    ///
    /// # Errors
    /// A file that cannot be opened or is shorter than its pages, and the sizes above.
    pub fn open(path: &Path, page_bytes: usize, first_page_offset: u64, page_count: u64) -> Result<Arc<PageFile>, OpenPagesError> {
        Self::open_as(path, page_bytes, first_page_offset, page_count, true)
    }

    /// `open`, trying direct reads only when `try_direct`.
    pub(crate) fn open_as(
        path: &Path,
        page_bytes: usize,
        first_page_offset: u64,
        page_count: u64,
        try_direct: bool,
    ) -> Result<Arc<PageFile>, OpenPagesError> {
        if !(4096..=65536).contains(&page_bytes) || !page_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(OpenPagesError::PageBytes { path: path.to_path_buf(), page_bytes });
        }
        if !first_page_offset.is_multiple_of(SECTOR_BYTES as u64) {
            return Err(OpenPagesError::FirstPageOffset { path: path.to_path_buf(), offset: first_page_offset });
        }
        let refused = |step, source| OpenPagesError::Io { path: path.to_path_buf(), step, source };
        let direct_file = if try_direct { open_direct(path, first_page_offset).map_err(|e| refused("open it", e))? } else { None };
        let direct = direct_file.is_some();
        let file = match direct_file {
            Some(file) => file,
            None => open_buffered(path).map_err(|e| refused("open it", e))?,
        };
        let found = file.metadata().map_err(|e| refused("ask for its length", e))?.len();
        let needed = u128::from(first_page_offset) + u128::from(page_count) * page_bytes as u128;
        if u128::from(found) < needed {
            return Err(OpenPagesError::TooShort { path: path.to_path_buf(), page_count, needed, found });
        }
        Ok(Arc::new(PageFile { file, path: path.into(), page_bytes, first_page_offset, page_count: AtomicU64::new(page_count), direct }))
    }

    /// A file of `page_count` pages whose length nobody has looked at.
    #[cfg(test)]
    pub(crate) fn unchecked(path: &str, page_bytes: usize, page_count: u64) -> PageFile {
        let file = File::open(path).unwrap();
        PageFile {
            file,
            path: Path::new(path).into(),
            page_bytes,
            first_page_offset: 0,
            page_count: AtomicU64::new(page_count),
            direct: false,
        }
    }

    /// Whether reads go past the page cache.
    pub fn direct(&self) -> bool {
        self.direct
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Pages of the file.
    pub fn page_count(&self) -> u64 {
        self.page_count.load(Ordering::Acquire)
    }

    /// There are `page_count` pages now, for which the file was made long enough.
    pub(crate) fn grow(&self, page_count: u64) {
        self.page_count.fetch_max(page_count, Ordering::Release);
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads page `page` into `buf`, `page_bytes` long and a part of an [`AlignedBuf`], on this thread, for openings, checks and tools.
    ///
    /// # Errors
    /// `PastEnd`, `UnexpectedEnd` and `Device`, as a reader's.
    pub fn read_page_blocking(&self, page: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        assert_eq!(buf.len(), self.page_bytes, "buffer and page differ in size");
        let page_offset = self.offset_of(page)?;
        let mut attempt = Attempt::default();
        loop {
            let start = attempt.start();
            let answer = self.file.read_at(&mut buf[start..], page_offset + start as u64);
            // An error without a number cannot come from a read; EIO says what it would mean.
            let answer = answer.map_err(|e| e.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
            if attempt.after(answer, self, page)? == Next::Ended {
                return Ok(());
            }
        }
    }

    /// Reads the pages from `first` on that fill `memory`, a part of an [`AlignedBuf`], in one call where that goes well.
    ///
    /// # Errors
    /// Those of the first page that cannot be read.
    pub fn read_pages_blocking(&self, first: u64, memory: &mut [u8]) -> Result<(), ReadError> {
        if self.file.read_exact_at(memory, self.offset_of(first)?).is_ok() {
            return Ok(());
        }
        // Whatever stands against it belongs to one page, which is asked for by itself and named.
        (first..).zip(memory.chunks_exact_mut(self.page_bytes)).try_for_each(|(page, buf)| self.read_page_blocking(page, buf))
    }

    /// Where page `page` begins; `PastEnd` when there is none. Cannot overflow: the end of the last page was compared with the length.
    pub(crate) fn offset_of(&self, page: u64) -> Result<u64, ReadError> {
        let page_count = self.page_count();
        if page < page_count {
            Ok(self.first_page_offset + page * self.page_bytes as u64)
        } else {
            Err(ReadError::PastEnd { path: self.path.clone(), page, page_count })
        }
    }

    /// The error of a page of this file that the device does not give.
    pub(crate) fn device_error(&self, page: u64, errno: i32) -> ReadError {
        match self.offset_of(page) {
            Ok(offset) => ReadError::Device { path: self.path.clone(), page, offset, bytes: self.page_bytes, errno },
            Err(past_end) => past_end,
        }
    }

    /// The error of a page of which the file holds only `got` bytes.
    pub(crate) fn unexpected_end(&self, page: u64, got: usize) -> ReadError {
        match self.offset_of(page) {
            Ok(offset) => ReadError::UnexpectedEnd { path: self.path.clone(), page, offset, expected: self.page_bytes, got },
            Err(past_end) => past_end,
        }
    }
}

impl AsFd for PageFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens `path` for direct reads, or `None` where the filesystem has none. Some accept the flag and refuse the first read, so one
/// sector at `offset` is read.
fn open_direct(path: &Path, offset: u64) -> io::Result<Option<File>> {
    let refuses = |e: &io::Error| [Errno::INVAL, Errno::OPNOTSUPP].iter().any(|r| e.raw_os_error() == Some(r.raw_os_error()));
    let file = match OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path) {
        Ok(file) => file,
        Err(e) if refuses(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    match file.read_at(&mut AlignedBuf::new(SECTOR_BYTES)?, offset) {
        Err(e) if refuses(&e) => Ok(None),
        // Any other error belongs to that page and comes back when it is read in earnest.
        _ => Ok(Some(file)),
    }
}

fn open_buffered(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // Only a hint: without it the kernel would read ahead of each page what nobody wants. Refused, it costs speed alone.
    let _ = fadvise(&file, 0, None, Advice::Random);
    Ok(file)
}

/// Forgets what the kernel has cached of `path`, for measurements from cold. Written pages are synced first, since dirty ones stay.
///
/// # Errors
/// The operating system's.
pub fn drop_page_cache(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_data()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::suite::numbered_pages;

    #[test]
    fn a_file_shorter_than_its_pages_is_refused_with_both_numbers() {
        let temp = numbered_pages(4096, 4096, 3);
        let error = PageFile::open(temp.path(), 4096, 4096, 4).unwrap_err();
        assert!(matches!(error, OpenPagesError::TooShort { needed: 20480, found: 16384, .. }), "{error}");
        assert!(error.to_string().contains("16384") && error.to_string().contains("20480"));
        assert!(PageFile::open(temp.path(), 4096, 4096, u64::MAX).is_err());
    }

    #[test]
    fn sizes_that_cannot_be_read_directly_are_refused() {
        let temp = numbered_pages(4096, 0, 40);
        for page_bytes in [0, 512, 4095, 4097, 65536 + 4096] {
            assert!(matches!(PageFile::open(temp.path(), page_bytes, 0, 1), Err(OpenPagesError::PageBytes { .. })));
        }
        assert!(matches!(PageFile::open(temp.path(), 4096, 512, 1), Err(OpenPagesError::FirstPageOffset { .. })));
        assert!(matches!(PageFile::open(&temp.path().join("none"), 4096, 0, 1), Err(OpenPagesError::Io { .. })));
    }

    #[test]
    fn a_page_is_read_whole_at_any_size_and_way() {
        for (page_bytes, direct) in [(4096, true), (8192, true), (65536, true), (12288, false)] {
            let temp = numbered_pages(page_bytes, 4096, 5);
            let file = PageFile::open_as(temp.path(), page_bytes, 4096, 5, direct).unwrap();
            let mut buf = AlignedBuf::new(page_bytes).unwrap();
            for page in [4, 0, 2] {
                file.read_page_blocking(page, &mut buf).unwrap();
                assert!(buf.iter().all(|&b| u64::from(b) == page + 1));
            }
            assert!(matches!(file.read_page_blocking(5, &mut buf), Err(ReadError::PastEnd { page: 5, page_count: 5, .. })));
        }
    }

    #[test]
    fn a_file_of_no_pages_opens() {
        let temp = numbered_pages(4096, 0, 0);
        assert_eq!(PageFile::open(temp.path(), 4096, 0, 0).unwrap().page_count(), 0);
    }

    #[test]
    fn the_page_cache_of_a_fresh_file_can_be_dropped() {
        drop_page_cache(numbered_pages(4096, 0, 4).path()).unwrap();
    }
}
