//! Rows that are parts of the records of another file: an index that somebody else wrote has its vectors between its edges.

use super::{
    Dataset, DatasetError, Rows,
    layout::{Layout, Spread, Stored, checked_dim},
    open_regular,
};
use crate::{element::ElementType, id::MAX_NODES};
use std::path::Path;

/// What may lie between two rows at most, as it is read with them: 16 KiB.
const MAX_GAP: u64 = 16 << 10;

/// Where rows lie: row r begins at `offset + r / per_block * block_bytes + r % per_block * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// Rows, at most [`MAX_NODES`].
    pub n: u64,
    /// Coordinates of a row.
    pub dim: usize,
    /// Their type.
    pub element: ElementType,
    /// Byte of the file where the first row begins.
    pub offset: u64,
    /// Bytes from one row to the next: no fewer than a row has, and 16 KiB more at most.
    pub stride: u64,
    /// Rows after which a new block begins.
    pub per_block: u64,
    /// Bytes from one block to the next: no fewer than its rows take, and 16 KiB more at most.
    pub block_bytes: u64,
}

impl Records {
    /// Rows that follow each other, from byte `offset` on.
    pub fn dense(n: u64, dim: usize, element: ElementType, offset: u64) -> Records {
        let stride = element.row_bytes(dim) as u64;
        Records { n, dim, element, offset, stride, per_block: 1, block_bytes: stride }
    }
}

impl Dataset {
    /// The rows of `records` in the file at `path`, which may hold anything between them.
    ///
    /// # Errors
    /// The file is absent or ends before the last row does; rows that lie over each other, or have a dimension that none can have.
    pub fn of_records(path: &Path, records: &Records) -> Result<Dataset, DatasetError> {
        let Records { n, dim, element, offset, stride, per_block, block_bytes } = *records;
        checked_dim(path, i64::try_from(dim).unwrap_or(i64::MAX), 0)?;
        let row_bytes = element.row_bytes(dim) as u64;
        let tight = |outer: u64, inner: u64| outer.checked_sub(inner).is_some_and(|gap| gap <= MAX_GAP);
        let fits = n <= MAX_NODES
            && per_block > 0
            && tight(stride, row_bytes)
            && stride.checked_mul(per_block).is_some_and(|all| tight(block_bytes, all));
        // As a number of bytes it must not wrap, whatever the blocks are said to be.
        let end = block_bytes.checked_mul(n).and_then(|all| all.checked_add(offset));
        if !fits || end.is_none() {
            return Err(DatasetError::Records { path: path.to_path_buf(), records: *records });
        }
        let (file, file_bytes) = open_regular(path)?;
        let spread = Some(Spread { stride, per_block, block_bytes });
        let layout = Layout { n, dim, stored: Stored::Plain(element), data_offset: offset, prefix_bytes: 0, spread };
        if file_bytes < layout.end() {
            return Err(layout.truncated(path, layout.end(), file_bytes));
        }
        Ok(Dataset { source: path.to_path_buf(), n, dim, element, rows: Rows::File { file, layout } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_out_whatever_lies_between_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..200).collect();
        std::fs::write(&path, &bytes).unwrap();
        let of = |n, offset, stride, per_block, block_bytes| {
            Dataset::of_records(&path, &Records { n, dim: 3, element: ElementType::U8, offset, stride, per_block, block_bytes })
        };
        for (offset, stride, per_block, block_bytes) in
            [(0, 3, 1, 3), (7, 5, 1, 5), (7, 5, 1, 11), (2, 4, 3, 12), (5, 4, 3, 17), (5, 3, 7, 30)]
        {
            let dataset = of(12, offset, stride, per_block, block_bytes).unwrap();
            let at = |row: u64| (offset + row / per_block * block_bytes + row % per_block * stride) as usize;
            for (start, count) in [(0, 0), (0, 12), (3, 1), (1, 7), (11, 1), (12, 0), (5, 6)] {
                let mut out = vec![9; 4];
                dataset.read_rows(start, count, &mut out).unwrap();
                let expected: Vec<u8> = (start..start + count as u64).flat_map(|row| bytes[at(row)..at(row) + 3].to_vec()).collect();
                assert_eq!(out, expected, "{offset} {stride} {per_block} {block_bytes}: {start}+{count}");
            }
            assert!(dataset.read_rows(6, 7, &mut Vec::new()).is_err());
        }
        // The last row may end with the file, and no later.
        assert!(of(50, 50, 3, 1, 3).is_ok() && of(20, 7, 10, 1, 10).is_ok());
        assert!(matches!(of(51, 50, 3, 1, 3), Err(DatasetError::Truncated { expected: 203, got: 200, .. })));
        for (n, offset, stride, per_block, block_bytes) in [
            (5, 0, 2, 1, 2),
            (5, 0, 3, 2, 5),
            (5, 0, 3, 0, 3),
            (5, 0, 20_000, 1, 20_000),
            (5, 0, 3, 1, 20_000),
            (5, u64::MAX, 3, 1, 3),
            (5, 0, 3, 1, u64::MAX),
            (5, 0, u64::MAX, 2, 8),
            (u64::MAX, 0, 3, 1, 3),
        ] {
            let error = of(n, offset, stride, per_block, block_bytes).unwrap_err();
            assert!(matches!(error, DatasetError::Records { .. }), "{error}");
        }
        assert!(matches!(of(0, 200, 3, 1, 3).unwrap().n(), 0));
    }
}
