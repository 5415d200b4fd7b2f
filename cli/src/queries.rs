//! Queries as a command holds them: raw rows of their own type, decoded one at a time, so that a million of them take no more memory
//! than their file.

use crate::failure::Failure;
use roxanne_core::dataset::{Dataset, check_finite};
use roxanne_core::element::ElementType;
use roxanne_engine::IndexInfo;

/// Some consecutive queries in memory.
pub(crate) struct Queries {
    element: ElementType,
    dim: usize,
    rows: Vec<u8>,
}

/// Opens `source` as queries to `index`: bits where it holds bits, of its dimension, the first `limit`.
pub(crate) fn open(source: &str, index: &IndexInfo, limit: Option<u64>) -> Result<Dataset, Failure> {
    let dataset = Dataset::open(source)?;
    let dataset =
        if index.element == ElementType::Binary && dataset.element() == ElementType::U8 { dataset.into_binary()? } else { dataset };
    check_dim(source, dataset.dim(), index)?;
    Ok(dataset.limit(limit.unwrap_or(u64::MAX)))
}

/// Refuses queries of another dimension than the index's.
pub(crate) fn check_dim(source: &str, dim: usize, index: &IndexInfo) -> Result<(), Failure> {
    if dim == index.dim {
        return Ok(());
    }
    let index_path = index.path.display();
    let text = format!("{source}: queries have {dim} dimensions, {index_path} has {}; search with the model that built it", index.dim);
    Err(Failure::input(text))
}

impl Queries {
    /// Reads `count` queries from `first` on; none may be NaN or infinite.
    pub(crate) fn read(dataset: &Dataset, first: u64, count: usize) -> Result<Queries, Failure> {
        let mut rows = Vec::new();
        dataset.read_rows(first, count, &mut rows)?;
        check_finite(dataset.element(), &rows, dataset.dim(), first).map_err(|e| Failure::from(e).at(dataset.source()))?;
        Ok(Queries { element: dataset.element(), dim: dataset.dim(), rows })
    }

    /// One query that was typed.
    pub(crate) fn inline(values: &[f32]) -> Queries {
        let rows = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Queries { element: ElementType::F32, dim: values.len(), rows }
    }

    /// Vectors `[n x dim]` that are there already, as values.
    pub(crate) fn of_values(values: &[f32], dim: usize) -> Queries {
        Queries { dim, ..Queries::inline(values) }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() / self.element.row_bytes(self.dim)
    }

    /// Decodes query `at` (below `len`) into `out`.
    pub(crate) fn decode(&self, at: usize, out: &mut Vec<f32>) {
        let row_bytes = self.element.row_bytes(self.dim);
        out.resize(self.dim, 0.0);
        self.element.decode(&self.rows[at * row_bytes..][..row_bytes], out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_decode_to_what_they_were() {
        let typed = Queries::inline(&[0.5, -2.0]);
        let mut out = Vec::new();
        typed.decode(0, &mut out);
        assert_eq!((typed.len(), out.as_slice()), (1, &[0.5, -2.0][..]));
        let dataset = Dataset::open("synth:n=5,dim=3,type=u8,seed=1").unwrap();
        let (some, mut all) = (Queries::read(&dataset, 2, 3).unwrap(), Vec::new());
        dataset.read_rows_f32(0, 5, &mut all).unwrap();
        some.decode(1, &mut out);
        assert_eq!((some.len(), out.as_slice()), (3, &all[9..12]));
    }
}
