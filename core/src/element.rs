//! What one coordinate is. Rows travel as raw little-endian bytes with their [`ElementType`] beside them, because that is how they
//! lie in files and pages, at any alignment; each row is `element.row_bytes(dim)` long.

use half::{bf16, f16};
use std::{fmt, str::FromStr};

/// The type of one coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// One bit, eight to a byte, lowest bit first; `dim` counts bits and is a multiple of 8.
    Binary,
}

impl ElementType {
    /// Every element type, in the order of their numbers on disk.
    pub const ALL: [ElementType; 6] =
        [ElementType::F32, ElementType::F16, ElementType::Bf16, ElementType::U8, ElementType::I8, ElementType::Binary];

    /// Bytes of one row of `dim` coordinates.
    #[inline]
    pub fn row_bytes(self, dim: usize) -> usize {
        match self {
            ElementType::F32 => dim * 4,
            ElementType::F16 | ElementType::Bf16 => dim * 2,
            ElementType::U8 | ElementType::I8 => dim,
            ElementType::Binary => dim.div_ceil(8),
        }
    }

    /// Writes the coordinates of `row` into `out` `[dim]` as f32 (a bit becomes 0 or 1). Exact for every type.
    pub fn decode(self, row: &[u8], out: &mut [f32]) {
        assert_eq!(row.len(), self.row_bytes(out.len()), "row bytes and dimension disagree");
        match self {
            ElementType::F32 => {
                for (o, b) in out.iter_mut().zip(row.as_chunks::<4>().0) {
                    *o = f32::from_le_bytes(*b);
                }
            }
            ElementType::F16 => {
                for (o, b) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                    *o = f16::from_le_bytes(*b).to_f32();
                }
            }
            ElementType::Bf16 => {
                for (o, b) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                    *o = bf16::from_le_bytes(*b).to_f32();
                }
            }
            ElementType::U8 => out.iter_mut().zip(row).for_each(|(o, &b)| *o = f32::from(b)),
            ElementType::I8 => out.iter_mut().zip(row).for_each(|(o, &b)| *o = f32::from(b as i8)),
            ElementType::Binary => out.iter_mut().enumerate().for_each(|(i, o)| *o = f32::from(row[i / 8] >> (i % 8) & 1)),
        }
    }

    /// Appends `values` `[dim]` to `out` as one row of this type.
    ///
    /// # Errors
    /// `NotRepresentable` names the first coordinate that is not finite in this type, or is no whole number in its range for u8, i8
    /// and binary. Rounding to f16 and bf16 is allowed.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) -> Result<(), NotRepresentable> {
        let bad = |at: usize| NotRepresentable { at, value: values[at], element: self };
        if self == ElementType::Binary {
            let start = out.len();
            out.resize(start + self.row_bytes(values.len()), 0);
            for (i, &v) in values.iter().enumerate() {
                match v {
                    0.0 => {}
                    1.0 => out[start + i / 8] |= 1 << (i % 8),
                    _ => return Err(bad(i)),
                }
            }
            return Ok(());
        }
        for (i, &v) in values.iter().enumerate() {
            match self {
                ElementType::F32 if v.is_finite() => out.extend_from_slice(&v.to_le_bytes()),
                ElementType::F16 if f16::from_f32(v).is_finite() => out.extend_from_slice(&f16::from_f32(v).to_le_bytes()),
                ElementType::Bf16 if bf16::from_f32(v).is_finite() => out.extend_from_slice(&bf16::from_f32(v).to_le_bytes()),
                ElementType::U8 if v.fract() == 0.0 && (0.0..=255.0).contains(&v) => out.push(v as u8),
                ElementType::I8 if v.fract() == 0.0 && (-128.0..=127.0).contains(&v) => out.push(v as i8 as u8),
                _ => return Err(bad(i)),
            }
        }
        Ok(())
    }

    /// The name in reports and manifests; `FromStr` reads it back.
    pub fn name(self) -> &'static str {
        match self {
            ElementType::F32 => "f32",
            ElementType::F16 => "f16",
            ElementType::Bf16 => "bf16",
            ElementType::U8 => "u8",
            ElementType::I8 => "i8",
            ElementType::Binary => "binary",
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An element type name nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("unknown element type \"{0}\"; known: f32, f16, bf16, u8, i8, binary")]
pub struct UnknownElementType(pub String);

impl FromStr for ElementType {
    type Err = UnknownElementType;
    fn from_str(text: &str) -> Result<Self, UnknownElementType> {
        ElementType::ALL.into_iter().find(|e| e.name() == text).ok_or_else(|| UnknownElementType(text.to_string()))
    }
}

/// A coordinate that the index's element type cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("coordinate {at} is {value}, which {element} cannot hold")]
pub struct NotRepresentable {
    /// Index of the coordinate in its row.
    pub at: usize,
    /// Its value.
    pub value: f32,
    /// The type asked for.
    pub element: ElementType,
}
