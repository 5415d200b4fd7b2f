//! What users put into a collection: points under keys.

use super::CollectionError;
use roxanne_core::{build_codes::BuildCodec, element::ElementType, id::MAX_DIM, metric::Metric};
use std::fmt;

/// The longest text key, in bytes.
const MAX_KEY_BYTES: usize = 512;
/// The longest payload, in bytes of JSON.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// Which keys a collection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// Whole numbers below 2^64.
    #[default]
    Numbers,
    /// Texts of 1 to 512 bytes without a zero byte.
    Strings,
}

impl KeyKind {
    /// All, with the names that people give.
    pub const ALL: [KeyKind; 2] = [KeyKind::Numbers, KeyKind::Strings];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            KeyKind::Numbers => "numbers",
            KeyKind::Strings => "strings",
        }
    }

    /// The key that `text` is.
    ///
    /// # Errors
    /// `BadKey`: no number, empty, too long, with a zero byte.
    pub fn parse(self, text: &str) -> Result<PointKey, CollectionError> {
        let bad = |why: &'static str| CollectionError::BadKey { key: text.chars().take(80).collect(), why };
        match self {
            KeyKind::Numbers => {
                // As a program would print it, so that it comes back as it was.
                let number = text.parse().ok().filter(|number: &u64| number.to_string() == text);
                number.map(PointKey::Number).ok_or_else(|| bad("keys of this collection are whole numbers below 2^64"))
            }
            KeyKind::Strings if text.is_empty() => Err(bad("it is empty")),
            KeyKind::Strings if text.len() > MAX_KEY_BYTES => Err(bad("it is longer than 512 bytes")),
            KeyKind::Strings if text.contains('\0') => Err(bad("it has a zero byte")),
            KeyKind::Strings => Ok(PointKey::Text(text.into())),
        }
    }
}

/// The name of a point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointKey {
    /// In a collection of numbers.
    Number(u64),
    /// In a collection of strings.
    Text(Box<str>),
}

impl PointKey {
    pub(super) fn kind(&self) -> KeyKind {
        match self {
            PointKey::Number(_) => KeyKind::Numbers,
            PointKey::Text(_) => KeyKind::Strings,
        }
    }

    /// As the store orders keys: numbers by value.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            PointKey::Number(number) => number.to_be_bytes().to_vec(),
            PointKey::Text(text) => text.as_bytes().to_vec(),
        }
    }

    /// Reads [`PointKey::to_bytes`]; `None` where that is no key of the kind.
    pub(super) fn from_bytes(kind: KeyKind, bytes: &[u8]) -> Option<PointKey> {
        match kind {
            KeyKind::Numbers => Some(PointKey::Number(u64::from_be_bytes(bytes.try_into().ok()?))),
            KeyKind::Strings => Some(PointKey::Text(std::str::from_utf8(bytes).ok()?.into())),
        }
    }
}

impl fmt::Display for PointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PointKey::Number(number) => number.fmt(f),
            PointKey::Text(text) => text.fmt(f),
        }
    }
}

/// A vector under a key, with what is kept beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its name.
    pub key: PointKey,
    /// `[dim]`.
    pub vector: Vec<f32>,
    /// JSON text, at most [`MAX_PAYLOAD_BYTES`]; empty without a payload.
    pub payload: String,
}

/// What a collection is of; fixed when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionConfig {
    /// Coordinates of a vector.
    pub dim: usize,
    /// What near means.
    pub metric: Metric,
    /// The type that vectors are kept in.
    pub element: ElementType,
    /// The kind of keys.
    pub keys: KeyKind,
}

impl CollectionConfig {
    /// Proves that there can be such a collection.
    ///
    /// # Errors
    /// A dimension out of range, a metric that does not go with the type.
    pub(super) fn check(&self) -> Result<(), CollectionError> {
        if self.dim == 0 || self.dim > MAX_DIM || (self.element == ElementType::Binary && !self.dim.is_multiple_of(8)) {
            return Err(CollectionError::Dimension { dim: self.dim });
        }
        roxanne_core::distance::DistanceFn::new(self.metric, self.element, self.dim)?;
        Ok(())
    }

    /// As it stands in the store.
    pub(super) fn to_text(self) -> String {
        format!("roxanne-collection 1\ndim {}\nmetric {}\nelement {}\nkeys {}\n", self.dim, self.metric, self.element, self.keys.name())
    }

    /// Reads [`CollectionConfig::to_text`]; `None` where that is none of this version.
    pub(super) fn from_text(text: &str) -> Option<CollectionConfig> {
        let mut lines = text.lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        if value("roxanne-collection")? != "1" {
            return None;
        }
        let config = CollectionConfig {
            dim: value("dim")?.parse().ok()?,
            metric: value("metric")?.parse().ok()?,
            element: value("element")?.parse().ok()?,
            keys: {
                let name = value("keys")?;
                KeyKind::ALL.into_iter().find(|kind| kind.name() == name)?
            },
        };
        config.check().ok().map(|()| config)
    }

    /// The row that `vector` is kept as.
    ///
    /// # Errors
    /// Another dimension; not finite, too long, zero under cosine; a coordinate that the type does not hold.
    pub(super) fn row(&self, vector: &[f32]) -> Result<Box<[u8]>, VectorError> {
        if vector.len() != self.dim {
            return Err(VectorError::Dimension { got: vector.len(), limit: self.dim });
        }
        BuildCodec::check_row(self.metric, vector)?;
        let mut row = Vec::with_capacity(self.element.row_bytes(self.dim));
        self.element.encode(vector, &mut row)?;
        Ok(row.into())
    }
}

/// Why a vector is none of the collection's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VectorError {
    /// Of another model.
    #[error("{got} coordinates where the collection has {limit}")]
    Dimension {
        /// Of the vector.
        got: usize,
        /// Of the collection.
        limit: usize,
    },
    /// NaN, infinity, too long, or zero under cosine.
    #[error(transparent)]
    Row(#[from] roxanne_core::build_codes::RowError),
    /// A fractional or large coordinate for a collection of bytes.
    #[error(transparent)]
    NotRepresentable(#[from] roxanne_core::element::NotRepresentable),
}
