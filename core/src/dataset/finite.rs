//! NaN and infinity, looked for at the speed of memory.
//!
//! A float is not finite exactly when all bits of its exponent are set, so one mask and one comparison of integers tell; blocks are
//! only OR-ed together, which the compiler turns into vector code, and a block is looked at closely only when it has one.

use super::DatasetError;
use crate::element::ElementType;

/// Bytes looked at before asking whether one was bad: small enough to be read again from the first cache.
const BLOCK_BYTES: usize = 16 << 10;

/// Accepts `rows` (raw rows of `dim` coordinates, the first of them number `first_row` of its dataset) when all are finite numbers.
/// Integer and binary rows always are.
///
/// # Errors
/// [`DatasetError::NotFinite`] names the first row and coordinate that is NaN or an infinity.
///
/// # Panics
/// When `rows` are not whole rows.
pub fn check_finite(element: ElementType, rows: &[u8], dim: usize, first_row: u64) -> Result<(), DatasetError> {
    assert!(dim > 0 && rows.len().is_multiple_of(element.row_bytes(dim)), "rows are whole");
    let width = match element {
        ElementType::F32 => 4,
        ElementType::F16 | ElementType::Bf16 => 2,
        ElementType::U8 | ElementType::I8 | ElementType::Binary => return Ok(()),
    };
    for (b, block) in rows.chunks(BLOCK_BYTES).enumerate() {
        let found = match element {
            ElementType::F16 => any_exponent16::<0x7C00>(block),
            ElementType::Bf16 => any_exponent16::<0x7F80>(block),
            _ => any_exponent32(block),
        };
        if found && let Some(error) = first_bad(element, block, dim, first_row, b * BLOCK_BYTES / width) {
            return Err(error);
        }
    }
    Ok(())
}

fn any_exponent32(block: &[u8]) -> bool {
    const ONES: u32 = 0x7F80_0000;
    block.as_chunks::<4>().0.iter().fold(0, |any, v| any | u32::from(u32::from_le_bytes(*v) & ONES == ONES)) != 0
}

fn any_exponent16<const ONES: u16>(block: &[u8]) -> bool {
    block.as_chunks::<2>().0.iter().fold(0, |any, v| any | u16::from(u16::from_le_bytes(*v) & ONES == ONES)) != 0
}

/// The error for the first bad coordinate of `values`, the first of which is number `skipped` of the rows.
fn first_bad(element: ElementType, values: &[u8], dim: usize, first_row: u64, skipped: usize) -> Option<DatasetError> {
    let mut value = [0.0];
    for (i, bytes) in values.chunks_exact(element.row_bytes(1)).enumerate() {
        element.decode(bytes, &mut value);
        if !value[0].is_finite() {
            let at = skipped + i;
            return Some(DatasetError::NotFinite { row: first_row + (at / dim) as u64, at: at % dim, value: value[0] });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn rows(element: ElementType, values: &[f32]) -> Vec<u8> {
        let bytes = |v: &f32| match element {
            ElementType::F16 => f16::from_f32(*v).to_le_bytes().to_vec(),
            ElementType::Bf16 => bf16::from_f32(*v).to_le_bytes().to_vec(),
            _ => v.to_le_bytes().to_vec(),
        };
        values.iter().flat_map(bytes).collect()
    }

    #[test]
    fn the_first_row_that_is_not_finite_is_named() {
        for element in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
            for (dim, n) in [(1, 1), (3, 5), (33, 700), (128, 130)] {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values: Vec<f32> = (0..n * dim).map(|i| if i % 2 == 0 { -65000.0 } else { 1e-7 * i as f32 }).collect();
                    assert!(check_finite(element, &rows(element, &values), dim, 0).is_ok());
                    let place = n * dim - 1 - dim / 2;
                    values[place] = bad;
                    values[n * dim - 1] = bad;
                    let error = check_finite(element, &rows(element, &values), dim, 1000).unwrap_err();
                    let DatasetError::NotFinite { row, at, value } = error else { panic!("{error}") };
                    assert_eq!((row, at), (1000 + (place / dim) as u64, place % dim), "{element} {dim} {n}");
                    assert!(!value.is_finite());
                }
            }
        }
    }

    #[test]
    fn bytes_are_always_finite() {
        for element in [ElementType::U8, ElementType::I8] {
            assert!(check_finite(element, &[255; 12], 4, 0).is_ok());
        }
        assert!(check_finite(ElementType::Binary, &[255; 12], 8, 0).is_ok());
    }
}
