//! fbin, f16bin, bf16bin, u8bin, i8bin: the files of the big-ann benchmarks.
//!
//! `u32 n, u32 dim, then n rows of dim`, all little-endian; the element type is told by the extension alone.

use super::layout::{Layout, Stored, checked_dim};
use super::{DatasetError, exact_header};
use crate::element::ElementType;
use std::{fs::File, path::Path};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 8;

/// The element type that an extension of this family stands for.
pub(super) fn element(extension: &str) -> Option<ElementType> {
    match extension {
        "fbin" => Some(ElementType::F32),
        "f16bin" => Some(ElementType::F16),
        "bf16bin" => Some(ElementType::Bf16),
        "u8bin" => Some(ElementType::U8),
        "i8bin" => Some(ElementType::I8),
        _ => None,
    }
}

/// Reads the header.
pub(super) fn layout(file: &File, path: &Path, file_bytes: u64, element: ElementType) -> Result<Layout, DatasetError> {
    let [n, dim] = read_counts(file, path, file_bytes)?;
    let dim = checked_dim(path, i64::from(dim), 0)?;
    let (stored, data_offset) = (Stored::Plain(element), HEADER_BYTES as u64);
    Layout { n: u64::from(n), dim, stored, data_offset, prefix_bytes: 0, spread: None }.prove(path, file_bytes)
}

/// The two numbers that open such a file; a truth file opens with two as well.
pub(crate) fn read_counts(file: &File, path: &Path, file_bytes: u64) -> Result<[u32; 2], DatasetError> {
    let mut header = [0; HEADER_BYTES];
    exact_header(file, path, file_bytes, 0, &mut header)?;
    let [a, b, c, d, e, f, g, h] = header;
    Ok([u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])])
}

/// The header of `n` rows of `dim`.
pub(crate) fn header(n: u32, dim: u32) -> [u8; HEADER_BYTES] {
    let ([a, b, c, d], [e, f, g, h]) = (n.to_le_bytes(), dim.to_le_bytes());
    [a, b, c, d, e, f, g, h]
}
