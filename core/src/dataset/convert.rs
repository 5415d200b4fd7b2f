//! One format into another: framing, byte order and, where the output's format has an element type of its own, the element type.

use super::writer::{DatasetWriter, stored_element};
use super::{Dataset, DatasetError, check_finite};
use std::path::Path;

/// Bytes of rows in memory at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// Writes the rows of `from` to the new file `to`, whose extension tells the format. `progress` hears how many rows are done, after
/// every few megabytes.
///
/// Where the format has another element type, values are re-encoded: to f16 and bf16 they are rounded, to u8 and i8 they must be
/// whole numbers in range. bf16 becomes f32 in .npy, which does not know it.
///
/// # Errors
/// Whatever reading and writing can meet; [`DatasetError::NotFinite`] and [`DatasetError::NotRepresentable`] name the row. Nothing is
/// left behind then.
pub fn convert(from: &Dataset, to: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), DatasetError> {
    let element = stored_element(to, from.element())?;
    let mut writer = DatasetWriter::create(to, element, from.dim())?;
    // As f32 a row may be four times as long as it is.
    let chunk_rows = (CHUNK_BYTES / (from.dim() * 4)).max(1);
    let (mut raw, mut values, mut encoded) = (Vec::new(), Vec::new(), Vec::new());
    let mut start = 0;
    while start < from.n() {
        let count = chunk_rows.min(usize::try_from(from.n() - start).unwrap_or(usize::MAX));
        from.read_rows(start, count, &mut raw)?;
        check_finite(from.element(), &raw, from.dim(), start)?;
        if element == from.element() {
            writer.push_rows(&raw)?;
        } else {
            values.resize(count * from.dim(), 0.0);
            from.element().decode(&raw, &mut values);
            encoded.clear();
            for (r, row) in values.chunks_exact(from.dim()).enumerate() {
                element.encode(row, &mut encoded).map_err(|source| DatasetError::NotRepresentable {
                    path: to.to_path_buf(),
                    row: start + r as u64,
                    source,
                })?;
            }
            writer.push_rows(&encoded)?;
        }
        start += count as u64;
        progress(start);
    }
    writer.finish()
}
