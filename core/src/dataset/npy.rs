//! npy: numpy's own file, versions 1 to 3 (NEP 1).
//!
//! `"\x93NUMPY", u8 major, u8 minor, u16 or u32 header length, header, rows`. The header is a Python dict literal of three entries,
//! `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`; only what numpy itself writes there is understood.

use super::layout::{Layout, Stored, checked_dim};
use super::{DatasetError, exact_header};
use crate::element::ElementType;
use std::{fs::File, path::Path};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// A header of a two-dimensional array takes about 80 bytes; one far beyond it describes something else.
const MAX_HEADER_BYTES: usize = 1 << 16;
/// Bytes of the headers we write: rows begin at a multiple of 64, as numpy has it, and any count fits.
pub(super) const WRITTEN_HEADER_BYTES: usize = 128;

/// Reads the header.
pub(super) fn layout(file: &File, path: &Path, file_bytes: u64) -> Result<Layout, DatasetError> {
    let refuse = |problem: String| DatasetError::Npy { path: path.to_path_buf(), problem };
    let mut start = [0; 10];
    exact_header(file, path, file_bytes, 0, &mut start)?;
    if !start.starts_with(MAGIC) {
        return Err(refuse("does not begin as a .npy file; write it with numpy.save".into()));
    }
    let (text_offset, text_bytes) = match start[6] {
        1 => (10, usize::from(u16::from_le_bytes([start[8], start[9]]))),
        2 | 3 => {
            let mut length = [0; 4];
            exact_header(file, path, file_bytes, 8, &mut length)?;
            (12, u32::from_le_bytes(length) as usize)
        }
        version => return Err(refuse(format!(".npy version {version} is unknown; known: 1, 2, 3"))),
    };
    if text_bytes > MAX_HEADER_BYTES {
        return Err(refuse(format!(
            "its header is {text_bytes} bytes long, expected at most {MAX_HEADER_BYTES}; write it with numpy.save"
        )));
    }
    let mut text = vec![0; text_bytes];
    exact_header(file, path, file_bytes, text_offset, &mut text)?;
    let Header { descr, fortran_order, shape } = parse(&String::from_utf8_lossy(&text)).map_err(refuse)?;
    if fortran_order {
        return Err(refuse("stored by columns (Fortran order); save np.ascontiguousarray(x) instead".into()));
    }
    let [n, dim] = shape[..] else {
        return Err(refuse(format!("an array of {} dimensions, expected 2; save x.reshape(n, dim)", shape.len())));
    };
    let dim = checked_dim(path, i64::try_from(dim).unwrap_or(i64::MAX), 0)?;
    let stored = stored(&descr).map_err(refuse)?;
    Layout { n, dim, stored, data_offset: text_offset + text_bytes as u64, prefix_bytes: 0, spread: None }.prove(path, file_bytes)
}

fn stored(descr: &str) -> Result<Stored, String> {
    let (order, kind) = descr.split_at_checked(1).unwrap_or(("", descr));
    let big_endian = order == ">";
    let element = match (order, kind) {
        ("<" | ">", "f8") => return Ok(Stored::Double { big_endian }),
        ("<" | ">", "f4") => ElementType::F32,
        ("<" | ">", "f2") => ElementType::F16,
        ("<" | ">" | "|", "u1") => ElementType::U8,
        ("<" | ">" | "|", "i1") => ElementType::I8,
        (_, "b1") => return Err("dtype bool; save np.packbits(x, axis=1, bitorder=\"little\") and use metric hamming".into()),
        (_, "V2") => return Err("dtype V2 (bfloat16?); save x.astype(np.float32)".into()),
        _ => return Err(format!("dtype {descr:?} is none of f2, f4, f8, u1, i1; save x.astype(np.float32)")),
    };
    Ok(if big_endian && element.row_bytes(1) > 1 { Stored::Swapped(element) } else { Stored::Plain(element) })
}

/// The three entries.
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

fn parse(text: &str) -> Result<Header, String> {
    let bad = || format!("cannot understand its header {:?}; write it with numpy.save", text.trim_end());
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    let mut rest = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(bad)?.trim();
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(bad)?;
        let value = after.trim_start().strip_prefix(':').ok_or_else(bad)?.trim_start();
        let after = match key {
            "descr" if value.starts_with('[') => return Err("a structured dtype; save one two-dimensional array of numbers".into()),
            "descr" => {
                let (text, after) = quoted(value).ok_or_else(bad)?;
                descr = Some(text.to_string());
                after
            }
            "fortran_order" => {
                let (truth, after) = match (value.strip_prefix("True"), value.strip_prefix("False")) {
                    (Some(after), _) => (true, after),
                    (_, Some(after)) => (false, after),
                    _ => return Err(bad()),
                };
                fortran_order = Some(truth);
                after
            }
            "shape" => {
                let (list, after) = value.strip_prefix('(').and_then(|v| v.split_once(')')).ok_or_else(bad)?;
                // numpy on Python 2 wrote its counts as 10L.
                let counts = list.split(',').map(|c| c.trim().trim_end_matches('L')).filter(|c| !c.is_empty());
                shape = Some(counts.map(|c| c.parse().map_err(|_| bad())).collect::<Result<_, _>>()?);
                after
            }
            _ => return Err(bad()),
        };
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    match (descr, fortran_order, shape) {
        (Some(descr), Some(fortran_order), Some(shape)) => Ok(Header { descr, fortran_order, shape }),
        _ => Err(bad()),
    }
}

/// The Python string that `text` begins with, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('\'').and_then(|t| t.split_once('\'')).or_else(|| text.strip_prefix('"').and_then(|t| t.split_once('"')))
}

/// The dtype of an element type; none for bf16, which numpy does not know.
pub(super) fn descr(element: ElementType) -> Option<&'static str> {
    match element {
        ElementType::F32 => Some("<f4"),
        ElementType::F16 => Some("<f2"),
        ElementType::U8 | ElementType::Binary => Some("|u1"),
        ElementType::I8 => Some("|i1"),
        ElementType::Bf16 => None,
    }
}

/// The header of `n` rows of `dim` coordinates.
pub(super) fn header(descr: &str, n: u64, dim: usize) -> [u8; WRITTEN_HEADER_BYTES] {
    let mut bytes = [b' '; WRITTEN_HEADER_BYTES];
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({n}, {dim}), }}");
    bytes[..6].copy_from_slice(MAGIC);
    bytes[6..8].copy_from_slice(&[1, 0]);
    bytes[8..10].copy_from_slice(&((WRITTEN_HEADER_BYTES - 10) as u16).to_le_bytes());
    // 20 digits of n, 4 of dim and 60 of the rest are below the 117 there are.
    bytes[10..10 + text.len()].copy_from_slice(text.as_bytes());
    bytes[WRITTEN_HEADER_BYTES - 1] = b'\n';
    bytes
}
