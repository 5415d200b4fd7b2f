//! Vectors as users have them: files of rows, read as a stream and at any place, the seeded generator that stands in for a file, and wholes
//! made of runs of other datasets' rows.
//!
//! An opened [`Dataset`] has proven its shape against the length of its file, so nothing is ever allocated or read on the word of a
//! header alone. Rows come out as raw little-endian bytes of one [`ElementType`], whatever the file's byte order and framing. Reading
//! takes `&self` (pread): threads share a dataset, and memory is what the caller asks for at a time, never the file.

mod bigann;
mod convert;
mod error;
mod finite;
mod layout;
mod npy;
mod parts;
mod pending;
mod records;
mod synth;
#[cfg(test)]
mod tests;
mod vecs;
mod writer;

pub(crate) use bigann::{header as counts_header, read_counts};
pub use convert::convert;
pub use error::DatasetError;
pub use finite::check_finite;
pub use parts::Run;
pub(crate) use pending::PendingFile;
pub use records::Records;
pub use writer::DatasetWriter;

use crate::element::ElementType;
use crate::id::MAX_DIM;
use layout::Layout;
use parts::Parts;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use synth::Mixture;

/// Bytes of the file that are read at a time where rows do not follow each other.
const PIECE_BYTES: u64 = 1 << 20;

/// An opened input: `n` rows of `dim` coordinates of one type.
#[derive(Debug)]
pub struct Dataset {
    source: PathBuf,
    n: u64,
    dim: usize,
    element: ElementType,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    File { file: File, layout: Layout },
    Synth(Box<Mixture>),
    Parts(Box<Parts>),
}

impl Dataset {
    /// Opens `source`: a path whose extension tells the format, or `synth:` and the keys of a generated mixture.
    ///
    /// Files: `.fbin .f16bin .bf16bin .u8bin .i8bin` (u32 n, u32 dim, rows), `.fvecs .bvecs` (each row after its i32 dim), `.npy` (two
    /// dimensions, C order, f2 f4 f8 u1 i1 of either byte order; f8 comes out as f32). `synth:` keys: `n` and `dim`; `type`
    /// (f32, f16, bf16, u8, i8, binary; default f32), `seed` (default 1), `clusters` (default 1024), `latent` (default 16) and
    /// `part=base|query`: queries come from the same mixture as the base of equal `dim`, `seed`, `clusters` and `latent`, and are none
    /// of its rows.
    ///
    /// # Errors
    /// Everything that a header can get wrong; see [`DatasetError`]. A header that says n = 0 is fine when the length agrees.
    pub fn open(source: &str) -> Result<Dataset, DatasetError> {
        if let Some(keys) = source.strip_prefix("synth:") {
            let (mixture, n) = synth::parse(source, keys)?;
            let (dim, element) = (mixture.dim(), mixture.element());
            return Ok(Dataset { source: source.into(), n, dim, element, rows: Rows::Synth(Box::new(mixture)) });
        }
        Dataset::open_file(Path::new(source))
    }

    fn open_file(path: &Path) -> Result<Dataset, DatasetError> {
        let extension = extension(path);
        let big_ann = bigann::element(&extension);
        let vecs = vecs::element(&extension);
        if extension == "ivecs" {
            return Err(DatasetError::HoldsIds { path: path.to_path_buf() });
        }
        if big_ann.is_none() && vecs.is_none() && extension != "npy" {
            return Err(DatasetError::UnknownFormat { path: path.to_path_buf(), extension });
        }
        let (file, file_bytes) = open_regular(path)?;
        let layout = match (big_ann, vecs) {
            (Some(element), _) => bigann::layout(&file, path, file_bytes, element)?,
            (_, Some(format)) => vecs::layout(&file, path, file_bytes, format)?,
            _ => npy::layout(&file, path, file_bytes)?,
        };
        let (n, dim, element) = (layout.n, layout.dim, layout.stored.element());
        Ok(Dataset { source: path.to_path_buf(), n, dim, element, rows: Rows::File { file, layout } })
    }

    /// What was opened, as it was given.
    pub fn source(&self) -> &str {
        self.source.to_str().unwrap_or("(a path that is not UTF-8)")
    }

    /// Rows.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Coordinates of a row, 1..=[`MAX_DIM`]; of binary rows these are bits.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The type of the coordinates that [`read_rows`](Dataset::read_rows) hands out.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Bytes of one row as handed out.
    pub fn row_bytes(&self) -> usize {
        self.element.row_bytes(self.dim)
    }

    /// The same rows taken for packed bits, lowest first, as the Hamming metric wants them: u8 rows of `dim` bytes become binary rows
    /// of `dim * 8` bits. Binary rows stay what they are.
    ///
    /// # Errors
    /// [`DatasetError::NotPacked`] when rows are not u8, or have more than [`MAX_DIM`] bits.
    pub fn into_binary(self) -> Result<Dataset, DatasetError> {
        match self.element {
            ElementType::Binary => Ok(self),
            ElementType::U8 if self.dim <= MAX_DIM / 8 => Ok(Dataset { element: ElementType::Binary, dim: self.dim * 8, ..self }),
            _ => Err(DatasetError::NotPacked { path: self.source, dim: self.dim, element: self.element }),
        }
    }

    /// Only the first `n` rows (all of them when there are fewer).
    pub fn limit(self, n: u64) -> Dataset {
        Dataset { n: self.n.min(n), ..self }
    }

    /// Fills `out` with rows `start..start + count`, raw little-endian bytes of [`element`](Dataset::element), tightly packed
    /// `[count * row_bytes]`. What `out` held before is gone; its capacity is used again.
    ///
    /// # Errors
    /// Rows beyond [`n`](Dataset::n); a failing disk; a file that has shrunk since it was opened; a row of fvecs or bvecs with another
    /// dimension; a double beyond f32. `out` is then of no use.
    pub fn read_rows(&self, start: u64, count: usize, out: &mut Vec<u8>) -> Result<(), DatasetError> {
        if start.checked_add(count as u64).is_none_or(|end| end > self.n) {
            return Err(DatasetError::NoSuchRows { path: self.source.clone(), start, count, n: self.n });
        }
        match &self.rows {
            Rows::Parts(parts) => parts.read_rows(self.n, start, count, out),
            Rows::Synth(mixture) => {
                out.clear();
                mixture.rows(start, count, out);
                Ok(())
            }
            Rows::File { file, layout } if layout.spread.is_some() => {
                // In pieces: what lies between rows may be more than they are.
                let (at_once, mut piece) = (layout.rows_within(PIECE_BYTES), Vec::new());
                out.clear();
                for first in (0..count).step_by(at_once) {
                    let (start, some) = (start + first as u64, at_once.min(count - first));
                    piece.resize(layout.span(start, some), 0);
                    match file.read_exact_at(&mut piece, layout.offset(start)) {
                        Ok(()) => layout::unwrap_rows(layout, &self.source, start, some, &mut piece)?,
                        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(self.shrunk(file, layout)),
                        Err(e) => return Err(DatasetError::io(&self.source, "read rows of")(e)),
                    }
                    out.extend_from_slice(&piece);
                }
                Ok(())
            }
            Rows::File { file, layout } => {
                // Only growth is filled with zeros: a buffer that is used again costs nothing here.
                out.resize(count * layout.stride(), 0);
                match file.read_exact_at(out, layout.offset(start)) {
                    Ok(()) => layout::unwrap_rows(layout, &self.source, start, count, out),
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.shrunk(file, layout)),
                    Err(e) => Err(DatasetError::io(&self.source, "read rows of")(e)),
                }
            }
        }
    }

    /// [`read_rows`](Dataset::read_rows), decoded to f32 `[count * dim]`. The raw bytes pass through a buffer of their own.
    ///
    /// # Errors
    /// As [`read_rows`](Dataset::read_rows).
    pub fn read_rows_f32(&self, start: u64, count: usize, out: &mut Vec<f32>) -> Result<(), DatasetError> {
        let mut raw = Vec::new();
        self.read_rows(start, count, &mut raw)?;
        out.resize(count * self.dim, 0.0);
        // One call for all rows: no row has bits to spare, for a binary dim is a multiple of 8.
        self.element.decode(&raw, out);
        Ok(())
    }

    fn shrunk(&self, file: &File, layout: &Layout) -> DatasetError {
        match file.metadata() {
            Ok(now) => layout.truncated(&self.source, layout.end(), now.len()),
            Err(e) => DatasetError::io(&self.source, "read the length of")(e),
        }
    }
}

/// The extension that tells the format, in lower case; empty when there is none.
pub(crate) fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// Opens a regular file and tells its length.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), DatasetError> {
    // Asked before opening: to open a pipe is to wait for its other end.
    if !std::fs::metadata(path).map_err(DatasetError::io(path, "open"))?.is_file() {
        return Err(DatasetError::NotAFile { path: path.to_path_buf() });
    }
    let file = File::open(path).map_err(DatasetError::io(path, "open"))?;
    let bytes = file.metadata().map_err(DatasetError::io(path, "read the length of"))?.len();
    Ok((file, bytes))
}

/// Reads a piece of a header, which must lie within the file.
fn exact_header(file: &File, path: &Path, file_bytes: u64, offset: u64, out: &mut [u8]) -> Result<(), DatasetError> {
    let expected = offset + out.len() as u64;
    if file_bytes < expected {
        return Err(DatasetError::NoHeader { path: path.to_path_buf(), expected, got: file_bytes });
    }
    file.read_exact_at(out, offset).map_err(DatasetError::io(path, "read the header of"))
}
