//! Where the rows of a file lie and how their coordinates are written. Every format comes down to this one chain:
//!
//! `row r begins at data_offset + r * stride;  stride = prefix_bytes + dim * width`
//!
//! Rows that are parts of another file's records lie further apart ([`Spread`]).
//!
//! A format module reads a header and proposes a `Layout`; `Layout::prove` holds it against the file's length, once.

use super::DatasetError;
use crate::element::ElementType;
use crate::id::MAX_DIM;
use std::path::Path;

/// How one coordinate is written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// As our raw rows have it.
    Plain(ElementType),
    /// The same with its two or four bytes in the other order.
    Swapped(ElementType),
    /// Double precision, handed out as f32.
    Double {
        /// Byte order.
        big_endian: bool,
    },
}

impl Stored {
    /// The element type of the rows that come out.
    pub(super) fn element(self) -> ElementType {
        match self {
            Stored::Plain(element) | Stored::Swapped(element) => element,
            Stored::Double { .. } => ElementType::F32,
        }
    }

    /// Bytes of one coordinate in the file.
    fn width(self) -> usize {
        match self {
            Stored::Plain(element) | Stored::Swapped(element) => element.row_bytes(1),
            Stored::Double { .. } => 8,
        }
    }
}

/// The shape of a file.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Rows.
    pub(super) n: u64,
    /// Coordinates of a row, 1..=MAX_DIM.
    pub(super) dim: usize,
    /// How a coordinate is written.
    pub(super) stored: Stored,
    /// Where row 0 begins.
    pub(super) data_offset: u64,
    /// Bytes before the coordinates of each row: 4 where a row states its own dimension, else 0.
    pub(super) prefix_bytes: usize,
    /// How far apart rows are that do not follow each other.
    pub(super) spread: Option<Spread>,
}

/// Rows in records, and these in blocks: row r begins at `data_offset + r / per_block * block_bytes + r % per_block * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    /// Bytes from one record to the next within a block.
    pub(super) stride: u64,
    /// Records in a block.
    pub(super) per_block: u64,
    /// Bytes from one block to the next.
    pub(super) block_bytes: u64,
}

impl Layout {
    /// Bytes of the coordinates of a row in the file.
    pub(super) fn body_bytes(&self) -> usize {
        self.dim * self.stored.width()
    }

    /// Bytes from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.prefix_bytes + self.body_bytes()
    }

    /// Where `row` begins.
    pub(super) fn offset(&self, row: u64) -> u64 {
        let within = match self.spread {
            None => row * self.stride() as u64,
            Some(Spread { stride, per_block, block_bytes }) => row / per_block * block_bytes + row % per_block * stride,
        };
        self.data_offset + within
    }

    /// Rows, at least one, that take no more than about `bytes` of the file.
    pub(super) fn rows_within(&self, bytes: u64) -> usize {
        let row = self.spread.map_or(self.stride() as u64, |Spread { per_block, block_bytes, .. }| block_bytes.div_ceil(per_block));
        (bytes / row.max(1)).max(1) as usize
    }

    /// Bytes of the file from the begin of row `start` to the end of the last of `count`, at least one.
    pub(super) fn span(&self, start: u64, count: usize) -> usize {
        match self.spread {
            None => count * self.stride(),
            Some(_) => (self.offset(start + count as u64 - 1) - self.offset(start)) as usize + self.body_bytes(),
        }
    }

    /// Where the last row ends.
    pub(super) fn end(&self) -> u64 {
        match (self.spread, self.n) {
            (Some(_), 1..) => self.offset(self.n - 1) + self.body_bytes() as u64,
            _ => self.offset(self.n),
        }
    }

    /// The error of a file that ends at byte `got`.
    pub(super) fn truncated(&self, path: &Path, expected: u64, got: u64) -> DatasetError {
        let row = got.saturating_sub(self.data_offset) / self.stride() as u64;
        DatasetError::Truncated { path: path.to_path_buf(), expected, got, row, offset: self.offset(row) }
    }

    /// Accepts the layout when exactly `n` rows fill a file of `file_bytes`. After this no product of the fields can wrap.
    pub(super) fn prove(self, path: &Path, file_bytes: u64) -> Result<Layout, DatasetError> {
        let expected = self.n.checked_mul(self.stride() as u64).and_then(|b| b.checked_add(self.data_offset)).unwrap_or(u64::MAX);
        match file_bytes.cmp(&expected) {
            std::cmp::Ordering::Equal => Ok(self),
            std::cmp::Ordering::Less => Err(self.truncated(path, expected, file_bytes)),
            std::cmp::Ordering::Greater => {
                let (path, n, dim) = (path.to_path_buf(), self.n, self.dim);
                Err(DatasetError::TooLong { path, expected, got: file_bytes, n, dim })
            }
        }
    }
}

/// `dim` as a size, when it is one that the index can hold. `row` is the row that states it.
pub(super) fn checked_dim(path: &Path, dim: i64, row: u64) -> Result<usize, DatasetError> {
    match usize::try_from(dim) {
        Ok(dim) if (1..=MAX_DIM).contains(&dim) => Ok(dim),
        _ => Err(DatasetError::DimOutOfRange { path: path.to_path_buf(), dim, row }),
    }
}

/// Turns `count` rows as they lie in the file, in `bytes`, into raw rows of `layout.stored.element()`, in place. Prefixes are compared
/// with the dimension; `first_row` is for the message.
pub(super) fn unwrap_rows(layout: &Layout, path: &Path, first_row: u64, count: usize, bytes: &mut Vec<u8>) -> Result<(), DatasetError> {
    if layout.prefix_bytes > 0 {
        drop_prefixes(layout, path, first_row, bytes)?;
    }
    if layout.spread.is_some() {
        drop_gaps(layout, first_row, count, bytes);
    }
    match layout.stored {
        Stored::Plain(_) => {}
        Stored::Swapped(element) => match element.row_bytes(1) {
            4 => bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|c| c.reverse()),
            2 => bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|c| c.reverse()),
            _ => {}
        },
        Stored::Double { big_endian } => narrow_doubles(layout, path, first_row, big_endian, bytes)?,
    }
    Ok(())
}

fn drop_prefixes(layout: &Layout, path: &Path, first_row: u64, bytes: &mut Vec<u8>) -> Result<(), DatasetError> {
    let (stride, body) = (layout.stride(), layout.body_bytes());
    let rows = bytes.len() / stride;
    for r in 0..rows {
        let at = r * stride;
        let got = i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if usize::try_from(got) != Ok(layout.dim) {
            let (path, row) = (path.to_path_buf(), first_row + r as u64);
            return Err(DatasetError::DimChanged { path, row, offset: layout.offset(row), expected: layout.dim, got });
        }
        // Rows move towards the front, so none is overwritten before it has moved.
        bytes.copy_within(at + layout.prefix_bytes..at + stride, r * body);
    }
    bytes.truncate(rows * body);
    Ok(())
}

fn drop_gaps(layout: &Layout, first_row: u64, count: usize, bytes: &mut Vec<u8>) {
    let body = layout.body_bytes();
    for r in 0..count {
        let at = (layout.offset(first_row + r as u64) - layout.offset(first_row)) as usize;
        // As above: rows move towards the front.
        bytes.copy_within(at..at + body, r * body);
    }
    bytes.truncate(count * body);
}

fn narrow_doubles(layout: &Layout, path: &Path, first_row: u64, big_endian: bool, bytes: &mut Vec<u8>) -> Result<(), DatasetError> {
    let values = bytes.len() / 8;
    for i in 0..values {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
        let value = if big_endian { f64::from_be_bytes(eight) } else { f64::from_le_bytes(eight) };
        let narrow = value as f32;
        if narrow.is_infinite() && value.is_finite() {
            let row = first_row + (i / layout.dim) as u64;
            return Err(DatasetError::BeyondF32 { path: path.to_path_buf(), row, at: i % layout.dim, value });
        }
        bytes[i * 4..i * 4 + 4].copy_from_slice(&narrow.to_le_bytes());
    }
    bytes.truncate(values * 4);
    Ok(())
}
