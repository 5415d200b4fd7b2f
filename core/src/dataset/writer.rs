//! Writing datasets, in every format that is read.

use super::{DatasetError, PendingFile, bigann, extension, npy, vecs};
use crate::element::ElementType;
use std::path::{Path, PathBuf};

/// How the rows are framed.
#[derive(Debug)]
enum Framing {
    /// u32 n, u32 dim, rows.
    BigAnn,
    /// Every row after its i32 dim.
    Vecs(&'static str),
    /// A .npy header of this dtype, rows.
    Npy(&'static str),
}

/// A dataset being written. Nothing stands under its path before [`finish`](DatasetWriter::finish); dropped earlier, nothing remains.
#[derive(Debug)]
pub struct DatasetWriter {
    pending: PendingFile,
    framing: Framing,
    /// Coordinates of a row as the file states them: bytes, for packed binary.
    dim: usize,
    row_bytes: usize,
    n: u64,
}

/// The element type that rows of `element` take in a file of `path`'s format: the format's own, or `element` where it has no own.
pub(super) fn stored_element(path: &Path, element: ElementType) -> Result<ElementType, DatasetError> {
    let extension = extension(path);
    if extension == "npy" {
        return Ok(if element == ElementType::Bf16 { ElementType::F32 } else { element });
    }
    match (bigann::element(&extension).or(vecs::element(&extension).map(|(_, e)| e)), extension.as_str()) {
        // Packed bits are bytes to every format that has bytes.
        (Some(ElementType::U8), _) if element == ElementType::Binary => Ok(element),
        (Some(own), _) => Ok(own),
        (None, "ivecs") => Err(DatasetError::HoldsIds { path: path.to_path_buf() }),
        (None, _) => Err(DatasetError::UnknownFormat { path: path.to_path_buf(), extension }),
    }
}

impl DatasetWriter {
    /// Begins a file of rows of `dim` coordinates of `element`; the extension of `path` tells the format. Binary rows are written as
    /// u8 rows of `dim / 8`, to be read back through [`Dataset::into_binary`](super::Dataset::into_binary).
    ///
    /// # Errors
    /// An unknown format, or one that does not hold `element`; a dimension that no dataset may have; a path that exists.
    pub fn create(path: impl Into<PathBuf>, element: ElementType, dim: usize) -> Result<DatasetWriter, DatasetError> {
        let path = path.into();
        if stored_element(&path, element)? != element {
            return Err(DatasetError::WrongElement { path, element, advice: homes(element) });
        }
        super::layout::checked_dim(&path, i64::try_from(dim).unwrap_or(i64::MAX), 0)?;
        if path.symlink_metadata().is_ok() {
            return Err(DatasetError::Exists { path });
        }
        let extension = extension(&path);
        let row_bytes = element.row_bytes(dim);
        let dim = if element == ElementType::Binary { row_bytes } else { dim };
        let framing = match (vecs::element(&extension), npy::descr(element)) {
            (Some((own, _)), _) => Framing::Vecs(own),
            (None, Some(descr)) if extension == "npy" => Framing::Npy(descr),
            _ => Framing::BigAnn,
        };
        let mut writer = DatasetWriter { pending: PendingFile::create(&path)?, framing, dim, row_bytes, n: 0 };
        // Room for the header; the true one is known at the end.
        let header = writer.header()?;
        writer.pending.write(&header)?;
        Ok(writer)
    }

    /// Appends whole raw rows, as [`Dataset::read_rows`](super::Dataset::read_rows) hands them out.
    ///
    /// # Errors
    /// Bytes that are not whole rows; a full disk.
    pub fn push_rows(&mut self, rows: &[u8]) -> Result<(), DatasetError> {
        if !rows.len().is_multiple_of(self.row_bytes) {
            let path = self.pending.path().to_path_buf();
            return Err(DatasetError::PartialRow { path, got: rows.len(), row_bytes: self.row_bytes });
        }
        match self.framing {
            Framing::BigAnn | Framing::Npy(_) => self.pending.write(rows)?,
            Framing::Vecs(_) => {
                let prefix = (self.dim as u32).to_le_bytes();
                for row in rows.chunks_exact(self.row_bytes) {
                    self.pending.write(&prefix)?;
                    self.pending.write(row)?;
                }
            }
        }
        self.n += (rows.len() / self.row_bytes) as u64;
        Ok(())
    }

    /// Rows pushed so far.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Writes the count, makes the file durable and gives it its name.
    ///
    /// # Errors
    /// A full disk; a count that the format cannot state; fvecs or bvecs of no rows.
    pub fn finish(self) -> Result<(), DatasetError> {
        if let (Framing::Vecs(extension), 0) = (&self.framing, self.n) {
            return Err(DatasetError::NoRows { path: self.pending.path().to_path_buf(), extension });
        }
        let header = self.header()?;
        self.pending.finish(&header)
    }

    /// The bytes in front of the first row, always as many.
    fn header(&self) -> Result<Vec<u8>, DatasetError> {
        let too_many = |_| DatasetError::TooManyRows { path: self.pending.path().to_path_buf() };
        Ok(match self.framing {
            Framing::BigAnn => bigann::header(u32::try_from(self.n).map_err(too_many)?, self.dim as u32).to_vec(),
            Framing::Vecs(_) => Vec::new(),
            Framing::Npy(descr) => npy::header(descr, self.n, self.dim).to_vec(),
        })
    }
}

/// Extensions that hold `element`.
fn homes(element: ElementType) -> &'static str {
    match element {
        ElementType::F32 => ".fbin, .fvecs, .npy",
        ElementType::F16 => ".f16bin, .npy",
        ElementType::Bf16 => ".bf16bin",
        ElementType::U8 | ElementType::Binary => ".u8bin, .bvecs, .npy",
        ElementType::I8 => ".i8bin, .npy",
    }
}
