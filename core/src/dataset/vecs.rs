//! fvecs, bvecs, ivecs: the files of the TEXMEX corpus (SIFT1M, GIST).
//!
//! No header; each row is `i32 dim, then dim coordinates` (f32, u8 or i32), little-endian. Row 0's dimension is held to be that of all:
//! the length must fit it at the door, and each row's own number is compared when the row is read.

use super::layout::{Layout, Stored, checked_dim};
use super::{DatasetError, exact_header};
use crate::element::ElementType;
use std::{fs::File, os::unix::fs::FileExt, path::Path};

/// Bytes before the coordinates of each row.
pub(super) const PREFIX_BYTES: usize = 4;

/// The extension's own spelling and its element type.
pub(super) fn element(extension: &str) -> Option<(&'static str, ElementType)> {
    match extension {
        "fvecs" => Some(("fvecs", ElementType::F32)),
        "bvecs" => Some(("bvecs", ElementType::U8)),
        _ => None,
    }
}

/// Reads row 0's dimension and holds the file's length against it.
pub(super) fn layout(
    file: &File,
    path: &Path,
    file_bytes: u64,
    (extension, element): (&'static str, ElementType),
) -> Result<Layout, DatasetError> {
    if file_bytes == 0 {
        return Err(DatasetError::NoRows { path: path.to_path_buf(), extension });
    }
    let mut prefix = [0; PREFIX_BYTES];
    exact_header(file, path, file_bytes, 0, &mut prefix)?;
    let dim = checked_dim(path, i64::from(i32::from_le_bytes(prefix)), 0)?;
    let layout = Layout { n: 0, dim, stored: Stored::Plain(element), data_offset: 0, prefix_bytes: PREFIX_BYTES, spread: None };
    let stride = layout.stride() as u64;
    let layout = Layout { n: file_bytes.div_ceil(stride), ..layout };
    if !file_bytes.is_multiple_of(stride)
        && let Some(error) = changed_dim(file, path, &layout, file_bytes)?
    {
        return Err(error);
    }
    layout.prove(path, file_bytes)
}

/// The first row whose dimension differs, where the length says that there may be one: from such a row on, every prefix is looked for
/// in the wrong place, so a binary search finds it without reading the file.
fn changed_dim(file: &File, path: &Path, layout: &Layout, file_bytes: u64) -> Result<Option<DatasetError>, DatasetError> {
    let dim_of = |row: u64| -> Result<i32, DatasetError> {
        let mut prefix = [0; PREFIX_BYTES];
        file.read_exact_at(&mut prefix, layout.offset(row)).map_err(DatasetError::io(path, "read"))?;
        Ok(i32::from_le_bytes(prefix))
    };
    let same = |dim: i32| usize::try_from(dim) == Ok(layout.dim);
    // Rows that are long enough to state a dimension; the last of them may be cut off behind it.
    let rows = (file_bytes + (layout.stride() - PREFIX_BYTES) as u64) / layout.stride() as u64;
    // Rows below `good` have the right dimension; the row at `bad`, if there is one, has not.
    let (mut good, mut bad) = (1, rows);
    while good < bad {
        let middle = good + (bad - good) / 2;
        if same(dim_of(middle)?) {
            good = middle + 1;
        } else {
            bad = middle;
        }
    }
    if bad >= rows {
        return Ok(None);
    }
    let (path, offset) = (path.to_path_buf(), layout.offset(bad));
    Ok(Some(DatasetError::DimChanged { path, row: bad, offset, expected: layout.dim, got: dim_of(bad)? }))
}
