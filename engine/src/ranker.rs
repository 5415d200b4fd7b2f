//! A query as records are compared with it: in the vectors' own type, or in floats where a record holds a byte a coordinate.

use crate::{SearchError, base::Base};
use roxanne_core::{build_codes::BuildCodec, distance::Sq8Query, format::record::Stored};

/// See the module. Its memory is used again by the next query.
#[derive(Default)]
pub(crate) struct Ranker {
    row: Vec<u8>,
    sq8: Sq8Query,
}

impl Ranker {
    /// Takes `query` up, which must be a vector of the index's shape, representable in its type.
    pub(crate) fn take(&mut self, base: &Base, query: &[f32]) -> Result<(), SearchError> {
        let info = &base.info;
        if query.len() != info.dim {
            return Err(SearchError::DimensionMismatch { path: info.path.clone(), found: info.dim, asked: query.len() });
        }
        BuildCodec::check_row(info.metric, query)?;
        self.row.clear();
        info.element.encode(query, &mut self.row)?;
        if info.stored == Stored::Sq8 {
            self.sq8.fill(&base.codec, query);
        }
        Ok(())
    }

    /// How far the vector of a record is.
    #[inline]
    pub(crate) fn distance(&self, base: &Base, vector: &[u8]) -> f32 {
        match base.info.stored {
            Stored::Full => base.distance.distance(&self.row, vector),
            Stored::Sq8 => self.sq8.distance(vector),
        }
    }
}
